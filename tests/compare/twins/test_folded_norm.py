"""Twins of graphs of quantization-aware training, against the same graphs as plain TensorFlow runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_quant_runs import Run, plain_outputs, train
from numpy.typing import NDArray

from bncheck.commands.compare import compare_float_vs_quantized, compare_train_vs_eval
from bncheck.commands.inspect import inspect_checkpoint
from bncheck.compare.prepared import prepare
from bncheck.compare.twins.twins import open_twins
from bncheck.facts.fake_quant import StepReached
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources import open_model

pytestmark = pytest.mark.tensorflow
pytest.importorskip("sklearn")

FREEZE = 60
STEPS = 90


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Batch norm frozen from step 60 on, rounding from step 30 on, 90 steps."""
    folder = tmp_path_factory.mktemp("frozen")
    return train(folder, "--steps", str(STEPS), "--freeze", str(FREEZE), "--delay", "30")


@pytest.fixture(scope="module")
def forgotten(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """No update ever ran."""
    return train(tmp_path_factory.mktemp("forgotten"), "--steps", "120", "--forgotten")


def _images(run: Run) -> NDArray[Any]:
    with np.load(run.data("test")) as archive:
        return np.asarray(archive["images"][:64])


def _outputs(run: Run, graph: str | None, outputs: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """(train mode, eval mode) of the twins."""
    raw = open_model(Path(run.prefix), graph=None if graph is None else Path(graph), use_graph=True)
    prepared = prepare(raw, Options(outputs=(outputs,)))
    with open_twins(prepared.forward) as twins:
        found = twins.run(_images(run))
    return found.train_outputs[0], found.eval_outputs[0]


def _apart(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Energy of the difference against that of the outputs."""
    return float(np.sum((one - other) ** 2) / np.sum(one**2))


@pytest.mark.parametrize("graph", ["training", "served"])
def test_eval_twin_is_the_served_graph(frozen: Run, graph: str) -> None:
    """From the MetaGraph of training as from that of evaluation, the eval twin gives what the latter gives."""
    _, found = _outputs(frozen, None if graph == "training" else frozen.eval_graph, "scores")
    assert _apart(plain_outputs(frozen.eval_graph, frozen.prefix, _images(frozen)), found) < 1e-4


def test_train_twin_is_training_before_the_freeze_step(frozen: Run) -> None:
    """With the counter set back, training's own graph gives what the train twin gives; its ranges move a little."""
    found, _ = _outputs(frozen, None, "scores")
    expected = plain_outputs(f"{frozen.prefix}.meta", frozen.prefix, _images(frozen), counter=FREEZE - 1)
    served = plain_outputs(frozen.eval_graph, frozen.prefix, _images(frozen))
    assert _apart(expected, found) < 0.01 < _apart(expected, served)


def test_eval_twin_is_training_after_the_freeze_step(frozen: Run) -> None:
    """As it was saved, training normalises with the moving statistics, like the eval twin."""
    _, found = _outputs(frozen, None, "scores")
    after = plain_outputs(f"{frozen.prefix}.meta", frozen.prefix, _images(frozen))
    assert _apart(after, found) < 0.01


def test_the_freeze_step_is_told_with_how_far_training_came(frozen: Run) -> None:
    """The counter of the rewriter, not the global step, against the step that the graph compares it with."""
    report = inspect_checkpoint(frozen.prefix)
    assert any(f"from step {FREEZE} on, which training has reached" in note for note in report.target.notes)
    known = recognise(open_model(Path(frozen.prefix), graph=None, use_graph=True), Options()).fake_quant
    assert known is not None
    assert known.freeze == StepReached(step=FREEZE, counter="fake_quantization_step", at=STEPS)
    assert known.delay == StepReached(step=30, counter="fake_quantization_step", at=STEPS)
    assert known.folded == 4


def test_never_frozen_is_told(forgotten: Run) -> None:
    """Without `freeze_bn_delay`; the served graph has nothing to freeze."""
    assert any("never freezes it" in note for note in inspect_checkpoint(forgotten.prefix).target.notes)
    served = inspect_checkpoint(forgotten.prefix, graph=forgotten.eval_graph)
    assert any(note.endswith("folds 4 batch norms into their weights") for note in served.target.notes)


def test_converts_by_the_learned_ranges(frozen: Run) -> None:
    """int8 kernels take ranges that are even in both directions; accuracy stays that of eval mode."""
    report = compare_float_vs_quantized(frozen.prefix, data=frozen.data("test"))
    assert report.quantized is not None
    measured = report.quantized.accuracy
    assert measured.quantized is not None
    assert measured.eval is not None
    assert measured.quantized == pytest.approx(measured.eval, abs=0.05)


def test_forgotten_updates_show_in_the_served_accuracy(forgotten: Run) -> None:
    """`compare` measures what plain TensorFlow measures in both modes, and says why."""
    report = compare_train_vs_eval(forgotten.prefix, data=forgotten.data("test"), batch_size=32)
    assert report.comparison is not None
    measured = report.comparison.accuracy
    assert measured.train is not None
    assert measured.eval is not None
    assert measured.train == pytest.approx(forgotten.facts["train_mode"], abs=0.04)
    assert measured.eval == pytest.approx(forgotten.facts["served"], abs=0.02)
    assert measured.train > measured.eval + 0.4
    assert "BN201" in {finding.code for finding in report.findings}
