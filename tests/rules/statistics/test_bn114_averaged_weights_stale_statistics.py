"""BN114 averaged-weights-stale-statistics."""

from __future__ import annotations

from one_evidence import severities

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Purpose
from bncheck.rules.statistics.bn114_averaged_weights_stale_statistics import check
from bncheck.testing import batch_norm, with_graph


def test_averages_in_training_are_normal() -> None:
    """Shadows beside the raw weights, all saved by a training graph, are a note."""
    layer = batch_norm("bn", averaged={"gamma": "bn/gamma/ExponentialMovingAverage"})
    model = with_graph(layer, purpose=Purpose.TRAINING)
    assert severities(check, model) == [Severity.INFO]
