"""Layers of PyTorch's files: their own counters, and PyTorch's default decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytorch_writer import Call, Name, batch_norm, state_of, write_archive

import bncheck
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources import open_model


def saved(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A state dict of these arrays."""
    return write_archive(path, state_of(arrays), {str(i): array.tobytes() for i, array in enumerate(arrays.values())})


def codes(path: Path, **options: Any) -> list[str]:
    """What `inspect` finds."""
    return [finding.code for finding in bncheck.inspect_model(path, **options).findings]


def test_decay_is_one_minus_momentum(tmp_path: Path) -> None:
    """PyTorch's default, unless --decay tells; n by the layer's own counter."""
    raw = open_model(saved(tmp_path / "m.pt", batch_norm("bn", updates=7)))
    facts = recognise(raw, Options())
    assert [(layer.decay, layer.counted) for layer in facts.layers] == [(pytest.approx(0.9), 7)]
    assert (facts.run.updates, facts.run.updates_from) == (7, "num_batches_tracked")
    assert recognise(raw, Options(decay=0.99)).layers[0].decay == 0.99


def test_each_layer_counts_for_itself(tmp_path: Path) -> None:
    """A layer that joined late still holds its initial value, whatever the others counted."""
    arrays = batch_norm("old", updates=5000) | batch_norm("new", updates=3)
    report = bncheck.inspect_model(saved(tmp_path / "m.pt", arrays))
    found = next(finding for finding in report.findings if finding.code == "BN103")
    assert found.layers == ("new",)
    assert "3 updates" in found.message


@pytest.mark.parametrize(("updates", "says"), [(0, "num_batches_tracked` is 0"), (500, "up to 500")])
def test_counters_tell_how_statistics_came_to_stand_still(tmp_path: Path, updates: int, says: str) -> None:
    """Never counted, or counted and lost."""
    arrays = batch_norm("bn", updates=updates)
    arrays |= {"bn.running_mean": np.zeros(4, "f4"), "bn.running_var": np.ones(4, "f4")}
    (found,) = bncheck.inspect_model(saved(tmp_path / "m.pt", arrays)).findings
    assert found.code == "BN101"
    assert says in found.message
    assert "update_bn" in found.fix
    assert "tf." not in found.fix


def test_statistics_that_came_from_elsewhere(tmp_path: Path) -> None:
    """Moved, though this run counted nothing: loaded, frozen, converted; no fault."""
    assert codes(saved(tmp_path / "m.pt", batch_norm("bn", updates=0))) == []


def test_the_same_names_elsewhere_are_not_pytorchs(tmp_path: Path) -> None:
    """A NumPy archive has no default decay."""
    np.savez(tmp_path / "w.npz", allow_pickle=False, **batch_norm("bn", updates=7))
    (layer,) = recognise(open_model(tmp_path / "w.npz"), Options()).layers
    assert (layer.decay, layer.counted) == (None, None)


@pytest.mark.parametrize(("momentum", "decay"), [(0.03, 0.97), (None, None)])
def test_a_whole_module_tells_its_momentum(tmp_path: Path, momentum: float | None, decay: float | None) -> None:
    """None averages all batches alike, and has no decay."""
    raw = open_model(whole(tmp_path / "m.pt", Name("torch.nn.modules.batchnorm", "BatchNorm2d"), momentum=momentum))
    (layer,) = recognise(raw, Options()).layers
    assert (layer.name, layer.epsilon, layer.decay) == ("bn", 1e-3, pytest.approx(decay) if decay else None)


def test_instance_norm_is_none_of_ours(tmp_path: Path) -> None:
    """With running statistics its vectors are called as batch norm's: a module tells it, a state dict does not."""
    path = whole(tmp_path / "m.pt", Name("torch.nn.modules.instancenorm", "InstanceNorm2d"), momentum=0.1)
    assert codes(path) == ["BN001"]


@pytest.mark.parametrize(("counter", "affine", "found"), [("count", False, []), ("count", True, ["n"])])
@pytest.mark.parametrize("kind", ["f8", "i8"])
def test_what_normalises_observations_is_none_of_ours(
    tmp_path: Path, counter: str, kind: str, *, affine: bool, found: list[str]
) -> None:
    """It counts samples and has neither gamma and beta nor PyTorch's counter."""
    arrays = {f"n.{name}": np.linspace(0.5, 2, 4) for name in ("running_mean", "running_var")}
    arrays |= {f"n.{counter}": np.array(10**7, kind)}
    arrays |= {f"n.{name}": np.linspace(0.5, 2, 4) for name in ("weight", "bias") if affine}
    layers = recognise(open_model(saved(tmp_path / "m.pt", arrays)), Options()).layers
    assert [layer.name for layer in layers] == found


def test_batch_norm_without_gamma_and_beta(tmp_path: Path) -> None:
    """By PyTorch's counter, or where nothing else counts."""
    for left_out in (("weight", "bias"), ("weight", "bias", "num_batches_tracked")):
        arrays = {name: array for name, array in batch_norm("bn").items() if not name.endswith(left_out)}
        (layer,) = recognise(open_model(saved(tmp_path / "m.pt", arrays)), Options()).layers
        assert layer.name == "bn"


def whole(path: Path, of: Name, *, momentum: float | None) -> Path:
    """A network of one layer, `bn`, pickled with its modules."""
    arrays = {name.removeprefix("bn."): array for name, array in batch_norm("bn", updates=9).items()}
    state = {"_buffers": state_of(arrays), "_parameters": {}, "_modules": {}, "momentum": momentum, "eps": 1e-3}
    net = Call(Name("models", "Net"), (), {"_modules": {"bn": Call(of, (), state)}, "_buffers": {}, "_parameters": {}})
    return write_archive(path, net, {str(place): array.tobytes() for place, array in enumerate(arrays.values())})


def test_a_model_halved_for_serving_is_a_note(tmp_path: Path) -> None:
    """All of it, as PyTorch's mixed precision never leaves it; statistics alone are a warning."""
    half = {name: array.astype("f2") if array.dtype == "f4" else array for name, array in batch_norm("bn").items()}
    assert severity(saved(tmp_path / "all.pt", half)) == "info"
    only = batch_norm("bn") | {name: array for name, array in half.items() if "running" in name}
    assert severity(saved(tmp_path / "statistics.pt", only)) == "warning"


def severity(path: Path) -> str:
    """Of the one finding."""
    (found,) = bncheck.inspect_model(path).findings
    assert found.code == "BN111"
    return found.severity.value
