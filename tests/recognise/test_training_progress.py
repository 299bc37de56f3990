"""How far training went: counters, Adam's powers, slots, with data and without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import write_bundle
from keras_writer import vars_bytes

from bncheck.facts.layers import RunFacts
from bncheck.recognise.training_progress import adam_steps, run_facts
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.sources.bundle.checkpoint import read_checkpoint
from bncheck.sources.keras.keras import read_keras
from bncheck.sources.provenance import DIGEST, digest

OBJECT = "/.ATTRIBUTES/VARIABLE_VALUE"


def run(folder: Path, tensors: dict[str, Any], *, data: bool = True, steps: int | None = None) -> RunFacts:
    """The run facts of a checkpoint with these tensors."""
    write_bundle(folder / "m", tensors, data=data)
    return run_facts(read_checkpoint(folder / "m"), Options(steps=steps))


def powers(beta: float, steps: int, kind: type = np.float32) -> Any:
    """Adam's power after so many steps, multiplied up as TensorFlow does."""
    power = kind(beta)
    with np.errstate(under="ignore"):
        for _ in range(steps):
            power = kind(power * kind(beta))
    return power


@pytest.mark.parametrize("data", [True, False])
@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("step", [1, 300, 158_301, 2_000_000])
def test_global_step(tmp_path: Path, kind: type, step: int, *, data: bool) -> None:
    """The global step is read from its value, or, index only, from its checksum."""
    found = run(tmp_path, {"global_step": kind(step)}, data=data)
    assert (found.global_step, found.updates, found.updates_from) == (step, step, "global_step")
    assert found.index_only is not data
    assert found.values
    assert found.keys == {"global_step"}


@pytest.mark.parametrize("data", [True, False])
def test_step_zero_alone_tells_nothing(tmp_path: Path, *, data: bool) -> None:
    """A global step of 0 is also what a step has that was never handed to the optimizer."""
    found = run(tmp_path, {"global_step": np.int64(0)}, data=data)
    assert (found.global_step, found.updates, found.updates_from) == (0, None, "")


def test_impossible_step(tmp_path: Path) -> None:
    """A checksum that would stand for an absurd step is not believed."""
    assert run(tmp_path, {"global_step": np.int64(-1)}, data=False).global_step is None
    assert run(tmp_path, {"global_step": np.int64(-1)}).global_step is None


def test_no_counters(tmp_path: Path) -> None:
    """Without counters nothing is said of updates; a save counter is none."""
    found = run(tmp_path, {"w": np.ones(2, np.float32), f"save_counter{OBJECT}": np.int64(9)})
    assert (found.global_step, found.updates, found.optimizer_slots) == (None, None, None)


@pytest.mark.parametrize(
    "key",
    [f"optimizer/iter{OBJECT}", f"optimizer/_iterations{OBJECT}", "training/Adam/iterations", "optimizer/iterations"],
)
def test_keras_iterations(tmp_path: Path, key: str) -> None:
    """Keras counts in a variable of its optimizer, whatever its generation."""
    found = run(tmp_path, {key: np.int64(17_900)}, data=False)
    assert (found.updates, found.updates_from) == (17_900, "optimizer iterations")


@pytest.mark.parametrize("data", [True, False])
def test_iterations_as_float(tmp_path: Path, *, data: bool) -> None:
    """Keras 2.0 counts in a float32; one that is no whole number counts nothing."""
    assert run(tmp_path, {"optimizer/iterations_1": np.float32(92_494)}, data=data).updates == 92_494
    assert run(tmp_path, {"optimizer/iterations": np.float32(0.5)}, data=data).updates is None
    assert run(tmp_path, {"optimizer/iterations": np.float32(np.inf)}, data=data).updates is None


def test_untrained_keras_model(tmp_path: Path) -> None:
    """An optimizer that counts 0 has not stepped."""
    found = run(tmp_path, {f"optimizer/iter{OBJECT}": np.int64(0)})
    assert (found.updates, found.updates_from) == (0, "optimizer iterations")


@pytest.mark.parametrize("data", [True, False])
def test_adam_over_reset_step(tmp_path: Path, *, data: bool) -> None:
    """A fine-tune reset the global step; Adam's powers remember, and the difference is said."""
    tensors = {"beta1_power": powers(0.9, 5000), "beta2_power": powers(0.999, 5000), "global_step": np.int64(0)}
    found = run(tmp_path, tensors, data=data)
    assert (found.global_step, found.updates) == (0, 5000)
    assert found.updates_from == "Adam's beta powers (global_step says 0)"


def test_step_over_fresh_adam(tmp_path: Path) -> None:
    """A fresh optimizer on a restored step: the larger one counts."""
    tensors = {"beta1_power": powers(0.9, 3), "beta2_power": powers(0.999, 3), "global_step": np.int64(800)}
    found = run(tmp_path, tensors)
    assert (found.updates, found.updates_from) == (800, "global_step")


def test_agreeing_counts(tmp_path: Path) -> None:
    """Where step and Adam agree, the step is named."""
    tensors = {"beta1_power": powers(0.9, 300), "beta2_power": powers(0.999, 300), "global_step": np.int64(300)}
    found = run(tmp_path, tensors)
    assert (found.updates, found.updates_from) == (300, "global_step")


def test_steps_given(tmp_path: Path) -> None:
    """--steps goes before everything in the file."""
    found = run(tmp_path, {"global_step": np.int64(5)}, steps=1234)
    assert (found.global_step, found.updates, found.updates_from) == (5, 1234, "--steps")


def test_two_adams(tmp_path: Path) -> None:
    """Of the two optimizers of a GAN the one that stepped more counts."""
    tensors = {
        "beta1_power": powers(0.5, 40),
        "beta2_power": powers(0.999, 40),
        "beta1_power_1": powers(0.5, 200),
        "beta2_power_1": powers(0.999, 200),
    }
    assert run(tmp_path, tensors).updates == 200


@pytest.mark.parametrize("steps", [0, 1, 300, 827, 5000, 80_000])
@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.999), (0.5, 0.999), (0.9, 0.98), (0.9, 0.99), (0.85, 0.999)])
def test_adam_steps(beta1: float, beta2: float, steps: int) -> None:
    """The powers give the exact step, for usual betas and for one unusual of the two, until beta2's power dies out."""
    found = adam_steps(float(powers(beta1, steps)), float(powers(beta2, steps)))
    assert found == (steps if powers(beta2, steps) >= np.finfo(np.float32).tiny else None)


def test_adam_steps_in_float64() -> None:
    """Double precision powers are compared in double precision."""
    found = adam_steps(float(powers(0.9, 500, np.float64)), float(powers(0.999, 500, np.float64)), dtype="float64")
    assert found == 500


def test_adam_steps_rounded_otherwise() -> None:
    """Powers that are a few bits off count by their logarithm."""
    assert adam_steps(0.9**301 * (1 + 3e-6), 0.999**301 * (1 + 3e-6)) == 300


@pytest.mark.parametrize(
    ("beta1_power", "beta2_power"),
    [(0.0, 0.0), (float("nan"), float("nan")), (0.9, float(powers(0.999, 300))), (2.0, 0.5), (-0.1, 0.9), (0.7, 0.31)],
)
def test_adam_steps_that_contradict(beta1_power: float, beta2_power: float) -> None:
    """Powers that died out, contradict each other, or are none say nothing."""
    assert adam_steps(beta1_power, beta2_power) is None


@pytest.mark.parametrize("data", [True, False])
def test_slots(tmp_path: Path, *, data: bool) -> None:
    """Slots count as moved where they left what they started at, by value or by checksum."""
    tensors = {
        "w": np.ones(8, np.float32),
        "w/Adam": np.zeros(8, np.float32),
        "w/Adam_1": np.full(8, 0.5, np.float32),
        "w/RMSProp": np.ones(8, np.float32),
        "w/Adagrad": np.full(8, 0.1, np.float32),
        "w/Momentum": np.arange(8, dtype=np.float32),
        "w/ExponentialMovingAverage": np.arange(8, dtype=np.float32),
        f"v/.OPTIMIZER_SLOT/optimizer/m{OBJECT}": np.arange(8, dtype=np.float32),
        f"optimizer/_variables/2{OBJECT}": np.zeros(8, np.float32),
        f"optimizer/_trainable_variables/2{OBJECT}": np.arange(8, dtype=np.float32),
    }
    assert run(tmp_path, tensors, data=data).optimizer_slots == (3, 7)


def test_slots_of_a_keras_file_count_once(tmp_path: Path) -> None:
    """Also where their names look like a checkpoint's slots, as they do in Keras 3 files."""
    path = tmp_path / "m.weights.h5"
    values = [np.asarray(5, np.int64), np.asarray(0.1, np.float32), np.ones(4, np.float32) / 3, np.zeros(4, np.float32)]
    path.write_bytes(
        vars_bytes({"layers/bn": ("bn", list(np.eye(4, dtype=np.float32))), "optimizer": ("adam", values)})
    )
    assert run_facts(read_keras(path), Options()).optimizer_slots == (1, 2)


def test_many_slots_are_sampled(tmp_path: Path) -> None:
    """Of very many slots no more than 200 are looked at, the smallest."""
    tensors: dict[str, Any] = {f"v{n}/Adam": np.ones(n + 2, np.float32) * 3 for n in range(500)}
    assert run(tmp_path, tensors).optimizer_slots == (200, 200)


REAL = Path(__file__).parents[2].parent / "shared" / "real"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real models are not beside this checkout")
@pytest.mark.parametrize(
    ("path", "step", "updates"),
    [
        ("chiron_dna", 158_301, 158_301),
        ("basic_pitch/nmp/variables", None, 17_900),
        ("mlperf_tiny_kws/kws_ref_model/variables", None, 30_816),
        ("handtracking_meta/model.ckpt", 19_048, 19_048),
        ("spleeter_meta/5stems/model", 0, None),
    ],
)
def test_real_models(path: str, step: int | None, updates: int | None) -> None:
    """Strangers' checkpoints, two of them without data, tell their steps."""
    found = run_facts(read_checkpoint(REAL / path), Options())
    assert (found.global_step, found.updates) == (step, updates)


def test_a_repaired_checkpoint_counts_no_updates(tmp_path: Path) -> None:
    """The counter of a repaired checkpoint says nothing of its statistics; --steps still does."""
    prefix = tmp_path / "model.ckpt"
    write_bundle(prefix, {"global_step": np.array(300, np.int64)})
    assert run_facts(open_model(prefix), Options()).updates == 300
    told = {"layers": [], DIGEST: digest([])}
    prefix.with_name("model.ckpt.bncheck.json").write_text(json.dumps(told))
    raw = open_model(prefix)
    assert run_facts(raw, Options()).updates is None
    assert run_facts(raw, Options(steps=7)).updates == 7
    assert "repaired by bncheck" in raw.notes[-1]


@pytest.mark.parametrize(
    ("biases", "moved"),
    [
        ({}, None),
        ({"fc/bias": np.full(4, 0.1, np.float32)}, False),
        ({"lstm/bias": np.array([0, 1, 0, 0], np.float32)}, False),
        ({"conv/biases": np.zeros(4, np.float32), "fc/bias": np.array([0, 0.01, 0, 0.2], np.float32)}, True),
        ({"fc/bias/Adam": np.array([0, 0.01, 0, 0.2], np.float32)}, None),
        ({"fc/vars/0": np.ones((2, 2), np.float32), "fc/vars/1": np.array([0, 0.2], np.float32)}, True),
        ({"norm/vars/0": np.ones(2, np.float32), "norm/vars/1": np.array([0, 0.2], np.float32)}, None),
    ],
)
def test_biases_tell_of_training(biases: dict[str, Any], moved: bool | None, tmp_path: Path) -> None:  # noqa: FBT001
    """A bias that differs between channels was trained; an LSTM starts at zeros and ones, slots are none;
    Keras numbers vectors, the bias behind its kernel.
    """
    assert run(tmp_path, {"conv/kernel": np.ones((2, 4), np.float32), **biases}).biases_moved is moved
