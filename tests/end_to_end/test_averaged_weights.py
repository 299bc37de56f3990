"""Checkpoints with averages of their weights: each copy is repaired with statistics of its own, by plain TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_quant_runs import run_fixture

from bncheck.commands.compare import compare_train_vs_eval
from bncheck.commands.gate.gate import gate
from bncheck.commands.repair import repair
from bncheck.facts.errors import UsageError
from bncheck.facts.findings import Verdict
from bncheck.facts.repairs import RepairReport, RepairVerdict
from bncheck.sources import open_model

pytestmark = pytest.mark.tensorflow
pytest.importorskip("sklearn")

SCRIPT = "averaged_weights"
POINTS = 0.02
"""By how much a served copy may fall behind its train mode."""


@pytest.fixture(scope="module")
def slim_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All model variables are averaged, as TF-slim's training script does it; no update ever ran."""
    folder = tmp_path_factory.mktemp("slim")
    return folder, run_fixture("train", str(folder), script=SCRIPT)


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Trainable variables alone are averaged: both copies have one set of statistics."""
    folder = tmp_path_factory.mktemp("shared")
    return folder, run_fixture("train", str(folder), "--trainable-only", script=SCRIPT)


@pytest.fixture(scope="module")
def repaired(slim_run: tuple[Path, dict[str, Any]]) -> dict[str, RepairReport]:
    """Copies in which one of both, the raw weights or the averages, got statistics of its own."""
    folder, facts = slim_run
    source, options = folder / facts["checkpoint"], {"data": folder / "train.npz", "compare": False}
    return {which: repair(source, folder / f"{which}.ckpt", weights=which, **options) for which in ("raw", "ema")}


def _served(prefix: str, weights: str) -> float:
    return float(run_fixture("serve", ".", "--checkpoint", prefix, "--weights", weights, script=SCRIPT)["served"])


def _changed(old: Path, new: Path) -> set[str]:
    before, after = (open_model(path, graph=None, use_graph=False).tensors for path in (old, new))
    return {key for key in before if not np.array_equal(before[key].read(), after[key].read())}


def test_both_copies_are_repaired(slim_run: tuple[Path, dict[str, Any]]) -> None:
    """Raw weights and averages are junk before, and within 2 points of train mode after."""
    folder, facts = slim_run
    assert max(facts["raw_served"], facts["ema_served"]) < 0.4
    report = repair(folder / facts["checkpoint"], folder / "both.ckpt", data=folder / "train.npz", batch_size=32)
    for weights in ("raw", "ema"):
        assert _served(report.output, weights) >= facts[f"{weights}_train_mode"] - POINTS
    assert len(report.averaged) == len(report.repaired) == 3
    assert report.averaged_after is not None
    assert report.averaged_after.accuracy.eval is not None
    assert report.averaged_after.accuracy.eval > 0.8


def test_one_copy_is_repaired_where_it_is_named(
    slim_run: tuple[Path, dict[str, Any]], repaired: dict[str, RepairReport]
) -> None:
    """The other one stays bit for bit."""
    folder, facts = slim_run
    for weights, ending in (("raw", ("moving_mean", "moving_variance")), ("ema", ("/ExponentialMovingAverage",))):
        assert repaired[weights].verdict is RepairVerdict.PASS
        changed = _changed(folder / facts["checkpoint"], Path(repaired[weights].output))
        assert len(changed) == 6
        assert all("/moving_" in key and key.endswith(ending) for key in changed)


def test_shared_statistics_belong_to_one_copy(shared_run: tuple[Path, dict[str, Any]]) -> None:
    """Nobody is told which one: it asks. Named, the averages are served as well as they train."""
    folder, facts = shared_run
    source = folder / facts["checkpoint"]
    with pytest.raises(UsageError, match="--weights raw or --weights ema"):
        repair(source, folder / "asked.ckpt", data=folder / "train.npz")
    assert not list(folder.glob("asked*"))
    report = repair(source, folder / "ema.ckpt", data=folder / "train.npz", weights="ema", compare=False)
    assert _served(report.output, "ema") >= facts["ema_train_mode"] - POINTS


def test_compare_runs_the_copy_that_is_named(slim_run: tuple[Path, dict[str, Any]]) -> None:
    """As plain TensorFlow does from the averages."""
    folder, facts = slim_run
    report = compare_train_vs_eval(folder / facts["checkpoint"], data=folder / "test.npz", weights="ema", batch_size=32)
    assert report.comparison is not None
    assert report.comparison.accuracy.train == pytest.approx(facts["ema_train_mode"], abs=0.03)


def test_a_gate_judges_the_copy_that_is_named(
    slim_run: tuple[Path, dict[str, Any]], repaired: dict[str, RepairReport]
) -> None:
    """Repaired for the averages alone, these pass and the raw weights fail."""
    options: dict[str, Any] = {"data": slim_run[0] / "test.npz", "quantize": False, "batch_size": 32}
    reports = {weights: gate(repaired["ema"].output, weights=weights, **options) for weights in ("raw", "ema")}
    assert reports["raw"].verdict is Verdict.FAIL
    assert (reports["ema"].verdict, reports["ema"].headline) == (Verdict.PASS, "")
