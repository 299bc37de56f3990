"""Who loses what: the square of statistics and arithmetic, and re-estimated statistics from a comparison."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bncheck.compare.attribution import (
    BATCH,
    FLOAT,
    QUANTIZED,
    REESTIMATED,
    STORED,
    UNDEPLOYABLE,
    attribute,
    reestimated,
)
from bncheck.facts.measurements import Attribution, Cell, CellStatistics, Measure, Precision
from bncheck.numerics import metrics, moments
from bncheck.testing import batch_norm, classes_compared, compared, difference, features_compared
from bncheck.testing.quantized import quantized_features

RANDOM = np.random.default_rng(0)
CLASSES = np.eye(10)[RANDOM.integers(0, 10, 64)] * 5
"""Logits (64, 10) whose top class is the sample's label."""
LABELS = CLASSES.argmax(axis=-1)
Batch = tuple[NDArray[Any], "NDArray[Any] | None"]


def batches(*, labelled: bool = True, size: int = 16) -> list[Batch]:
    """Samples are their own numbers, so that a model is a table of outputs."""
    numbers = np.arange(len(CLASSES))
    return [
        (numbers[start : start + size], LABELS[start : start + size] if labelled else None)
        for start in range(0, len(numbers), size)
    ]


def wrong(count: int) -> NDArray[Any]:
    """The logits with the first `count` samples moved to another class."""
    moved = CLASSES.copy()
    moved[:count] = np.roll(moved[:count], 1, axis=-1)
    return moved


def model(table: NDArray[Any]) -> Any:
    """A model that looks its outputs up."""
    return lambda numbers: table[numbers]


def cell(found: Attribution, statistics: CellStatistics, arithmetic: Precision) -> Cell:
    """One of the six."""
    return next(c for c in found.cells if c.place == (statistics, arithmetic))


def test_the_story() -> None:
    """51 of 64 lost by the statistics, one more by quantization, all but two won back by new statistics."""
    found = attribute(
        model(CLASSES),
        {
            (STORED, FLOAT): model(wrong(51)),
            (STORED, QUANTIZED): model(wrong(52)),
            (REESTIMATED, FLOAT): model(CLASSES),
            (REESTIMATED, QUANTIZED): model(wrong(2)),
        },
        batches(),
    )
    assert found.measure is Measure.ACCURACY
    assert found.statistics == pytest.approx(51 / 64)
    assert found.quantization == pytest.approx(1 / 64)
    assert found.statistics_share == pytest.approx(51 / 52)
    assert [(c.statistics, c.arithmetic, c.accuracy) for c in found.cells] == [
        (BATCH, FLOAT, 1.0),
        (BATCH, QUANTIZED, None),
        (STORED, FLOAT, 13 / 64),
        (STORED, QUANTIZED, 12 / 64),
        (REESTIMATED, FLOAT, 1.0),
        (REESTIMATED, QUANTIZED, 62 / 64),
    ]
    assert cell(found, BATCH, QUANTIZED).why == UNDEPLOYABLE


def test_any_batches_give_the_same() -> None:
    """Sums first, ratio last."""
    cells = {(STORED, FLOAT): model(wrong(5)), (STORED, QUANTIZED): model(wrong(9))}
    one, other = (attribute(model(CLASSES), cells, batches(size=size)) for size in (16, 64))
    assert [c.nmse for c in one.cells if c.nmse] == pytest.approx([c.nmse for c in other.cells if c.nmse])
    assert [(c.agreement, c.accuracy) for c in one.cells] == [(c.agreement, c.accuracy) for c in other.cells]


def test_without_labels_agreement_counts() -> None:
    """The share of samples that keep the class of batch statistics."""
    cells = {(STORED, FLOAT): model(CLASSES), (STORED, QUANTIZED): model(wrong(16))}
    found = attribute(model(CLASSES), cells, batches(labelled=False))
    assert (found.measure, found.statistics, found.quantization) == (Measure.AGREEMENT, 0.0, 0.25)
    assert found.statistics_share == 0.0
    assert cell(found, STORED, FLOAT).accuracy is None


def test_labels_of_another_numbering_do_not_count() -> None:
    """Batch statistics meet none of them, so agreement is asked."""
    shifted = [(numbers, None if labels is None else (labels + 3) % 10) for numbers, labels in batches()]
    cells = {(STORED, FLOAT): model(wrong(8)), (STORED, QUANTIZED): model(wrong(8))}
    found = attribute(model(CLASSES), cells, shifted)
    assert (found.measure, found.statistics) == (Measure.AGREEMENT, 0.125)


def test_features_count_as_energy() -> None:
    """Feature maps have no classes: errors are parts of the reference's energy."""
    maps = RANDOM.normal(size=(64, 4, 4, 8))
    cells = {(STORED, FLOAT): model(maps * 0.5), (STORED, QUANTIZED): model(maps * 0.4)}
    found = attribute(model(maps), cells, batches(labelled=False))
    assert found.measure is Measure.NMSE
    assert found.statistics == pytest.approx(0.25)
    assert found.quantization == pytest.approx(0.11)


def test_nothing_lost_has_no_share() -> None:
    """A step that gains takes no part of a loss that is not there; the other cells say why they are empty."""
    cells = {(STORED, FLOAT): model(CLASSES), (STORED, QUANTIZED): model(CLASSES)}
    reasons = {(REESTIMATED, FLOAT): "not needed"}
    found = attribute(model(CLASSES), cells, batches(), reasons=reasons)
    assert found.statistics_share is None
    assert cell(found, REESTIMATED, FLOAT).why == "not needed"


def test_not_a_number_is_told() -> None:
    """A model that gives NaN has chosen no class; its error is NaN, never 0."""
    cells = {(STORED, FLOAT): model(CLASSES * np.nan), (STORED, QUANTIZED): model(CLASSES)}
    found = attribute(model(CLASSES), cells, batches())
    assert cell(found, STORED, FLOAT).accuracy == 0.0
    assert math.isnan(cell(found, STORED, FLOAT).nmse or 0.0)
    assert found.statistics == 1.0


def test_statistics_come_back_from_shift_and_ratio() -> None:
    """What a comparison holds relative to the stored statistics gives the moments of the data again, dead ones too."""
    layer = batch_norm("bn", mean=[0.0, 5.0, -2.0, 0.1], variance=[1.0, 1e-6, 40.0, 0.5])
    data = moments.of(RANDOM.normal(size=(500, 4)) * [0.1, 2.0, 0.0, 1.0] + [3.0, -1.0, 2.0, 0.0])
    assert layer.mean.values is not None
    assert layer.variance.values is not None
    measured = difference(
        "bn",
        mean_shift=metrics.mean_shift(data.mean, layer.mean.values, layer.variance.values, 1e-3),
        log_variance_ratio=metrics.log_variance_ratio(data.variance, layer.variance.values, 1e-3),
    )
    comparison = compared(measured).comparison
    assert comparison is not None
    found = reestimated(comparison, [layer])
    assert found is not None
    mean, variance = found["bn"]
    np.testing.assert_allclose(mean, data.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(variance, data.variance, rtol=1e-6, atol=1e-12)
    assert np.all(variance >= 0)


def test_two_sites_of_a_layer_are_pooled() -> None:
    """As `repair` pools them: the spread between their means counts as well."""
    layer = batch_norm("bn", mean=0.0, variance=1.0)
    shifts = [np.full(4, 1.0), np.full(4, -1.0)]
    root = math.sqrt(1.0 + 1e-3)
    sites = [difference("bn", mean_shift=shift / root, log_variance_ratio=np.zeros(4)) for shift in shifts]
    comparison = compared(*sites, layers=[layer]).comparison
    assert comparison is not None
    found = reestimated(comparison, [layer])
    assert found is not None
    np.testing.assert_allclose(found["bn"], ([0.0] * 4, [2.0] * 4), atol=1e-9)


def test_statistics_that_are_no_numbers_give_none() -> None:
    """A ratio to NaN tells nothing of the data."""
    comparison = compared(difference("bn", log_variance_ratio=np.full(4, np.nan))).comparison
    assert comparison is not None
    assert reestimated(comparison, [batch_norm("bn", variance=float("nan"))]) is None


def test_batch_noise_is_no_loss() -> None:
    """Train mode agrees with itself for 90 % only: stored statistics that reach 92 % lose nothing."""
    cells = {(STORED, FLOAT): model(wrong(5)), (STORED, QUANTIZED): model(wrong(7))}
    noise = classes_compared(59 / 64, agreement_floor=0.9)
    found = attribute(model(CLASSES), cells, batches(labelled=False), modes=noise)
    assert found.statistics == pytest.approx(0.9 - 59 / 64)
    assert found.quantization == pytest.approx(2 / 64)
    assert found.statistics_share == 0.0


def test_errors_of_features_are_each_their_own() -> None:
    """A quantized model that collapsed may lie no further from train mode than float does: its own error tells."""
    maps = RANDOM.normal(size=(64, 4, 4, 8))
    cells = {(STORED, FLOAT): model(-maps * 0.1), (STORED, QUANTIZED): model(maps * 0)}
    found = attribute(
        model(maps),
        cells,
        batches(labelled=False),
        modes=features_compared(1.21, floor=0.2),
        rounding=quantized_features(0.97),
    )
    assert found.statistics == pytest.approx(1.01)
    assert found.quantization == 0.97
