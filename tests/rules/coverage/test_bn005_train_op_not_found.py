"""BN005 train-op-not-found."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only

from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Purpose
from bncheck.rules.coverage import (
    bn005_train_op_not_found,
)
from bncheck.testing import batch_norm, facts, graph_facts, unwired

TRAIN_OP = bn005_train_op_not_found.check


def test_updates_without_an_optimizer_are_no_missing_train_op() -> None:
    """A predict graph that kept its updates trains nothing (spleeter): recognition's remark becomes no finding."""
    layer = replace(unwired(batch_norm("bn")), trained_by=(), sites=())
    gap = Gap(kind=GapKind.TRAIN_OP, where="model.meta", why="updates but no optimizer")
    assert not list(TRAIN_OP.check(facts(layer, graph=graph_facts(layer), gaps=(gap,))))


def test_an_optimizer_that_nothing_runs_is_heard() -> None:
    """The number of updates whose wiring stays open is in the message and among the numbers."""
    layer = unwired(batch_norm("bn"))
    graph = graph_facts(layer, train_ops=(), purpose=Purpose.TRAINING)
    found = only(TRAIN_OP, facts(layer, graph=graph))
    assert "the wiring of 2 update ops was not judged" in found.message
    assert [m.value for m in found.measurements] == [0, 2]
