"""Repair of checkpoints of quantization-aware training: judged in the graph that is served, by plain TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_quant_runs import Run, served_accuracy, train

from bncheck.commands.inspect import inspect_checkpoint
from bncheck.commands.repair import repair
from bncheck.facts.fake_quant import RecordedRange
from bncheck.facts.repairs import RangeRepair, RepairReport, RepairVerdict
from bncheck.recognise import recognise
from bncheck.repair.ranges import NewRanges, of_both_copies
from bncheck.repair.write_checkpoint import write_checkpoint
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.sources.bundle.locate import Place

pytestmark = pytest.mark.tensorflow
pytest.importorskip("sklearn")

POINTS = 0.02
"""By how much the served graph may fall behind train mode."""


@pytest.fixture(scope="module")
def forgotten(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """No update ever ran: every folded weight was rounded within a range for variance 1."""
    return train(tmp_path_factory.mktemp("forgotten"), "--steps", "300", "--forgotten")


@pytest.fixture(scope="module")
def repaired(forgotten: Run) -> RepairReport:
    """The same with statistics and ranges of the training images."""
    options = Options(batch_size=32, tolerance=0.0, compare=False)
    return repair(forgotten.prefix, forgotten.folder / "fixed.ckpt", data=forgotten.data("train"), options=options)


def _ranges(prefix: str) -> dict[str, RecordedRange]:
    known = recognise(open_model(Path(prefix), graph=None, use_graph=True), Options()).fake_quant
    assert known is not None
    return {recorded.name: recorded for recorded in known.ranges}


def _stored(prefix: str) -> dict[str, Any]:
    raw = open_model(Path(prefix), graph=None, use_graph=False)
    return {key: raw.tensors[key].read() for key in raw.tensors}


def test_the_served_graph_is_as_good_as_train_mode(forgotten: Run, repaired: RepairReport) -> None:
    """Junk before, within 2 points of train mode after; the trial does not hold old ranges against new statistics."""
    assert forgotten.facts["served"] < 0.4
    assert (repaired.verdict, repaired.exit_code) == (RepairVerdict.PASS, 0)
    assert served_accuracy(forgotten, repaired.output) >= forgotten.facts["train_mode"] - POINTS


def test_statistics_alone_leave_it_junk_and_bn410_sees_it(
    forgotten: Run, repaired: RepairReport, tmp_path: Path
) -> None:
    """New statistics with the ranges of the old ones: what a repair without ranges writes."""
    old = _stored(forgotten.prefix)
    source = Path(repaired.output)
    ranges = {key: np.asarray(value) for key, value in old.items() if key.rpartition("/")[2] in ("min", "max")}
    write_checkpoint(
        Place(directory=source.parent, stem=source.name), Place(directory=tmp_path, stem="half.ckpt"), ranges, {}
    )
    half = str(tmp_path / "half.ckpt")
    report = inspect_checkpoint(half, graph=f"{forgotten.prefix}.meta")
    found = {finding.code: finding for finding in report.findings}
    assert len(found["BN410"].layers) >= 2
    assert found["BN410"].severity.value == "error"
    assert served_accuracy(forgotten, half) < forgotten.facts["train_mode"] - 0.1
    assert "BN410" not in {f.code for f in inspect_checkpoint(repaired.output).findings}


def test_only_statistics_and_ranges_change(forgotten: Run, repaired: RepairReport) -> None:
    """Weights, counters and slots stay bit for bit; the provenance names each range with both its ends."""
    old, new = _stored(forgotten.prefix), _stored(repaired.output)
    changed = {key for key in old if not np.array_equal(old[key], new[key])}
    assert {key.rpartition("/")[2] for key in changed} <= {"moving_mean", "moving_variance", "min", "max", "biased"}
    provenance = json.loads(Path(repaired.provenance).read_text())
    told = {recorded[end] for recorded in provenance["ranges"] for end in ("low", "high")}
    assert {key for key in changed if key.rpartition("/")[2] in ("min", "max")} <= told
    assert {recorded["rounds"] for recorded in provenance["ranges"]} == {"weights", "activations"}


def test_weights_get_the_range_that_training_would_record(repaired: RepairReport) -> None:
    """Rounding within the stored range costs what it costs within the weights' own."""
    folded = [recorded for recorded in _ranges(repaired.output).values() if recorded.layer is not None]
    assert len(folded) == 4
    for recorded in folded:
        assert recorded.noise == pytest.approx(recorded.least_noise, rel=1e-3)


def test_training_goes_on_from_the_new_ranges(repaired: RepairReport) -> None:
    """The biased average behind a range is the range times 1 - decay**n, as it was before."""
    stored = _stored(repaired.output)
    for recorded in _ranges(repaired.output).values():
        if recorded.high.companion:
            steps = float(stored[recorded.high.companion.replace("biased", "local_step")])
            assert recorded.high.values is not None
            share = float(stored[recorded.high.companion]) / float(recorded.high.values)
            assert share == pytest.approx(1 - 0.999**steps, rel=1e-4)


def test_the_first_steps_are_let_alone_and_debiasing_moves_ranges_of_weights(tmp_path: Path) -> None:
    """Ranges a step behind are healthy (BN410); without data those of weights follow from the statistics."""
    run = train(tmp_path / "run", "--steps", "8")
    assert "BN410" not in {finding.code for finding in inspect_checkpoint(run.prefix).findings}
    report = repair(run.prefix, tmp_path / "debiased.ckpt", debias=True)
    assert {recorded.rounds for recorded in report.ranges} == {"weights"}
    for recorded in _ranges(report.output).values():
        if recorded.layer is not None:
            assert recorded.noise == pytest.approx(recorded.least_noise, rel=1e-3)


def test_ranges_that_both_copies_share_hold_for_either() -> None:
    """The farther end of each; what one copy has for itself stays its own."""
    raw, averaged = (
        NewRanges(
            told=(RangeRepair(name="q", rounds="activations", low="min", high=high, before=None, after=None),),
            replaced={"min": np.array(low), high: np.array(2.0)},
        )
        for low, high in ((-1.0, "max"), (-3.0, "max/averaged"))
    )
    both = of_both_copies(raw, averaged)
    assert {key: float(value) for key, value in both.replaced.items()} == {"min": -3, "max": 2, "max/averaged": 2}
    assert [(one.high, one.after) for one in both.told] == [("max/averaged", (-3, 2)), ("max", (-3, 2))]


@pytest.mark.slow
@pytest.mark.parametrize("net", ["plain", "mobilenet_v2"])
@pytest.mark.parametrize("averaged", ["model", "all"])
def test_averages_and_raw_weights_in_one_checkpoint(net: str, averaged: str, tmp_path: Path) -> None:
    """Both copies are served as well as they train, whether they share their ranges ("model") or not."""
    folder = tmp_path / "run"
    run = train(folder, "--net", net, "--forgotten", "--averaged", averaged, "--steps", "300")
    assert max(run.facts["served"], run.facts["ema_served"]) < 0.4
    report = repair(run.prefix, folder / "fixed.ckpt", data=run.data("train"), options=Options(batch_size=32))
    assert report.verdict is RepairVerdict.PASS
    assert len(report.averaged) == len(report.repaired)
    own = {recorded.low for recorded in report.ranges if recorded.low.endswith("/ExponentialMovingAverage")}
    assert len(own) == (len(report.ranges) / 2 if averaged == "all" else 0)
    for weights, train_mode in (("raw", "train_mode"), ("ema", "ema_train_mode")):
        served = served_accuracy(run, report.output, "--net", net, "--weights", weights)
        assert served >= run.facts[train_mode] - POINTS


@pytest.mark.slow
def test_mobilenet_v2(tmp_path: Path) -> None:
    """52 folded batch norms: within 2 points of train mode in the served graph."""
    run = train(tmp_path / "run", "--net", "mobilenet_v2", "--forgotten", "--steps", "300")
    assert run.facts["served"] < 0.4
    report = repair(run.prefix, tmp_path / "fixed.ckpt", data=run.data("train"), options=Options(batch_size=32))
    assert len(report.ranges) == 115
    assert served_accuracy(run, report.output, "--net", "mobilenet_v2") >= run.facts["train_mode"] - POINTS
