"""BN220 always-batch-statistics."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Mode
from bncheck.rules.wiring import (
    bn220_always_batch_statistics,
)
from bncheck.testing import (
    batch_norm,
    served,
    serving,
    unwired,
    with_graph,
)

BATCH_ONLY = bn220_always_batch_statistics.check


def test_batch_statistics_only_weigh_more_when_served() -> None:
    """Pix2pix trains that way by design: a note; served it is a warning, unless no output depends on it."""
    bare = batch_norm("bn", mean=None, variance=None)
    assert only(BATCH_ONLY, with_graph(replace(unwired(bare), updates=()))).severity is Severity.INFO
    assert only(BATCH_ONLY, serving(served(bare, Mode.TRAIN))).severity is Severity.WARNING
    assert not list(BATCH_ONLY.check(serving(served(bare, Mode.TRAIN, outputs=()))))
