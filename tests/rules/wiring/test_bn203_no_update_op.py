"""BN203 no-update-op."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only

from bncheck.facts.findings import Confidence, Severity
from bncheck.facts.layers import Layer, Mode
from bncheck.rules.wiring import (
    bn203_no_update_op,
)
from bncheck.testing import (
    batch_norm,
    unread,
    untouched,
    unwired,
    with_graph,
)

NO_UPDATE = bn203_no_update_op.check


def bare(layer: Layer, mode: Mode = Mode.TRAIN) -> Layer:
    """The layer in a training graph that holds no update of it."""
    return replace(unwired(layer, mode=mode), updates=())


def test_no_update_is_weighed_with_the_values() -> None:
    """Never moved: error, sure; unread: error, less so; moved: a warning of low confidence."""
    never = only(NO_UPDATE, with_graph(bare(untouched("bn"))))
    unknown = only(NO_UPDATE, with_graph(unread(bare(batch_norm("bn")))))
    moved = only(NO_UPDATE, with_graph(bare(batch_norm("bn"))))
    assert (never.severity, never.confidence) == (Severity.ERROR, Confidence.HIGH)
    assert (unknown.severity, unknown.confidence) == (Severity.ERROR, Confidence.MEDIUM)
    assert (moved.severity, moved.confidence) == (Severity.WARNING, Confidence.LOW)


def test_statistics_that_an_optimizer_writes_lack_no_update() -> None:
    """They are written, wrongly: BN210 says so."""
    model = with_graph(bare(batch_norm("bn")), optimized={"bn/moving_mean": ("Adam/update",)})
    assert not list(NO_UPDATE.check(model))


def test_an_unknown_mode_is_no_reason_to_miss_an_update() -> None:
    """Only sites that surely use batch statistics ask for an update."""
    assert not list(NO_UPDATE.check(with_graph(bare(batch_norm("bn"), Mode.UNKNOWN))))
