"""BN115 checkpoint-graph-mismatch."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only, severities

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Purpose, RunFacts
from bncheck.rules.statistics.bn115_checkpoint_graph_mismatch import check
from bncheck.testing import batch_norm, with_graph


def test_inference_graph_may_leave_heads_out() -> None:
    """Statistics of an auxiliary head are a note in an inference graph and a warning in a training graph."""
    layer = batch_norm("bn")
    keys = frozenset({"bn/moving_mean", "bn/moving_variance", "aux/bn/moving_mean", "aux/bn/moving_variance"})
    run = RunFacts(values=True, keys=keys)
    for purpose, severity in ((Purpose.INFERENCE, Severity.INFO), (Purpose.TRAINING, Severity.WARNING)):
        model = replace(with_graph(layer, purpose=purpose), run=run)
        assert severities(check, model) == [severity]
        assert only(check, model).layers == ("aux/bn",)
