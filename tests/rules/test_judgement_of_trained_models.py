"""Judged by labels: networks trained in eval mode, loaded without batch norm, fed another range, or still moving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digit_nets import digits, net, saved, train

import bncheck
from bncheck.facts.findings import Finding, Report, Severity, Verdict

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def healthy() -> Any:
    """Four layers, 97 % in both modes."""
    return train(net(), steps=200)


def compared(folder: Path, model: Any, **arrays: Any) -> Report:
    """`compare train-vs-eval`."""
    path, data = saved(folder, model, **arrays)
    return bncheck.compare_train_vs_eval(path, data=data, labels="labels", batch_size=32)


def accuracy(report: Report) -> tuple[float, float]:
    """In train mode, in eval mode."""
    assert report.comparison is not None
    told = report.comparison.accuracy
    assert told.train is not None
    assert told.eval is not None
    return told.train, told.eval


def finding(report: Report, code: str) -> Finding:
    """The one of that code."""
    (found,) = [f for f in report.findings if f.code == code]
    return found


def said(report: Report) -> str:
    """All words of all findings."""
    return "\n".join(f"{f.message} {f.why} {f.fix}" for f in report.findings)


def codes(report: Report) -> set[str]:
    """Of all findings."""
    return {f.code for f in report.findings}


def test_trained_in_eval_mode(tmp_path: Path) -> None:
    """Eval mode is the better one, so nothing is junk, nothing is to be repaired, and why is told."""
    report = compared(tmp_path, train(net(), training=False, steps=300))
    in_train, in_eval = accuracy(report)
    assert in_eval > in_train + 0.1
    assert report.verdict is Verdict.PASS
    assert not {"BN301", "BN304"} & codes(report)
    assert "junk" not in said(report)
    assert "bncheck repair" not in said(report)
    assert "trained in eval mode" in finding(report, "BN101").message


def test_weights_loaded_without_their_batch_norm(tmp_path: Path, healthy: Any) -> None:
    """Train mode meets the labels, so the model is trained, and BN101 says what is missing."""
    import keras

    other = net(name="other")
    for layer, its in zip(other.layers, healthy.layers, strict=True):
        if not isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(its.get_weights())
    report = compared(tmp_path, other)
    in_train, in_eval = accuracy(report)
    assert in_train > 0.8
    assert in_eval < 0.6
    assert report.verdict is Verdict.FAIL
    assert "BN304" not in codes(report)
    never = finding(report, "BN101")
    assert never.severity is Severity.ERROR
    assert "loaded without those of batch norm" in never.message
    assert "load_weights" in never.fix


@pytest.mark.parametrize(("factor", "offset"), [(7.0, 0.0), (127.5, 127.5), (0.5, 0.5)])
def test_another_range(tmp_path: Path, healthy: Any, factor: float, offset: float) -> None:
    """However junk the output is, the data are named, by their factor; nothing is to be repaired."""
    report = compared(tmp_path, healthy, images=digits()[2] * factor + offset)
    assert accuracy(report)[0] > accuracy(report)[1] + 0.3
    assert codes(report) == {"BN304"}
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "The data are not in the range" in report.headline
    measured = finding(report, "BN304").evidence[0].value
    assert isinstance(measured, float)
    assert measured == pytest.approx(factor**2, rel=0.2)
    assert "bncheck repair" not in said(report)


def test_batches_that_share_nothing_with_training(tmp_path: Path, healthy: Any) -> None:
    """Three classes of ten have moments of their own; eval mode meets the labels, and nobody is alarmed."""
    _, _, images, labels = digits()
    chosen = np.isin(labels, (1, 4, 6))
    report = compared(tmp_path, healthy, images=images[chosen], labels=labels[chosen])
    in_train, in_eval = accuracy(report)
    assert in_eval > max(0.95, in_train - 0.02)
    assert codes(report) == {"BN302"}
    assert finding(report, "BN302").severity is Severity.INFO
    assert report.verdict is Verdict.PASS
    assert "wrong" not in said(report)
    assert "repair" not in said(report)


def test_averages_that_trail(tmp_path: Path) -> None:
    """Sixty steps at a large rate: eval mode is worse, and that weights moved fast is said to be why."""
    report = compared(tmp_path, train(net(blocks=6), steps=60, rate=3e-2))
    in_train, in_eval = accuracy(report)
    assert in_eval < in_train - 0.05
    told = finding(report, "BN302")
    assert "weights that were still changing fast" in told.message
    assert "diverge" not in told.message
    assert "learning_rate" in told.fix
