"""BN004 statistics-unread."""

from __future__ import annotations

from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import RunFacts
from bncheck.rules.coverage import (
    bn004_statistics_unread,
)
from bncheck.rules.coverage.bn004_statistics_unread import index_only
from bncheck.testing import batch_norm, facts, graph_facts, unread, wired

UNREAD = bn004_statistics_unread.check


def test_checksums_that_decide_make_it_a_note() -> None:
    """An index alone tells never-moved, so the unread values are a note that says what stays open."""
    layer = index_only(batch_norm("bn"))
    found = only(UNREAD, facts(layer, run=RunFacts(values=True, index_only=True)))
    assert found.severity is Severity.INFO
    assert "but not sizes" in found.message
    assert only(UNREAD, facts(unread(batch_norm("bn")))).severity is Severity.WARNING


def test_a_graph_alone_has_no_values_to_read() -> None:
    """Without a checkpoint unread statistics are no finding; the report says it under "not checked"."""
    layer = unread(wired(batch_norm("bn")))
    gap = Gap(kind=GapKind.STATISTICS, where=layer.mean.name, why="no checkpoint was given")
    assert not list(UNREAD.check(facts(layer, graph=graph_facts(layer), gaps=(gap,), run=RunFacts())))
