"""Coverage: what was not found, not understood, not read, and when that is no finding."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Facts, Mode, Purpose, RunFacts
from bncheck.rules.coverage import (
    bn001_no_batch_norm_found,
    bn002_layer_not_understood,
    bn003_mode_unknown,
    bn004_statistics_unread,
    bn005_train_op_not_found,
)
from bncheck.rules.coverage.bn004_statistics_unread import index_only
from bncheck.testing import batch_norm, facts, graph_facts, lite, served, serving, unread, unwired, wired, with_graph

NOTHING = bn001_no_batch_norm_found.check
UNCLEAR = bn002_layer_not_understood.check
MODE = bn003_mode_unknown.check
UNREAD = bn004_statistics_unread.check
TRAIN_OP = bn005_train_op_not_found.check


def test_nothing_found_says_where_it_looked_and_what_it_did_not_understand() -> None:
    """The message counts the variables looked through and names the places that looked like batch norm."""
    gap = Gap(kind=GapKind.LAYER, where="norm/mul_1", why="normalises over axes that the graph computes")
    model = facts(run=RunFacts(values=True, keys=frozenset({"w", "b"})), gaps=(gap,))
    message = only(NOTHING, model).message
    assert "among 2 variables" in message
    assert "1 place looked like it and was not understood: `norm/mul_1`." in message


def test_a_lite_file_without_weights_holds_nothing() -> None:
    """A TFLite file is judged by its folded operators; without any there is nothing."""
    assert "0 operators" in only(NOTHING, lite()).message


def test_places_not_understood_are_one_finding_a_reason() -> None:
    """Two places for one reason and one for another make two findings; a known layer is listed as such."""
    same = [Gap(kind=GapKind.LAYER, where=f"norm_{n}", why="axes unknown") for n in (1, 2)]
    other = Gap(kind=GapKind.LAYER, where="bn", why="class FrozenNorm", how="give the .keras file")
    first, second = UNCLEAR.check(facts(batch_norm("bn"), gaps=(*same, other)))
    assert first.layers == ()
    assert "2 places may hold batch norm and were not judged: axes unknown" in first.message
    assert second.layers == ("bn",)
    assert second.fix == "give the .keras file"


@pytest.mark.parametrize(
    ("model", "severity"),
    [
        (serving(served(batch_norm("bn"), Mode.UNKNOWN)), Severity.WARNING),
        (with_graph(wired(batch_norm("bn"), mode=Mode.UNKNOWN)), Severity.INFO),
    ],
)
def test_an_unknown_mode_weighs_more_where_it_is_served(model: Facts, severity: Severity) -> None:
    """Whether served predictions depend on the batch is a warning, elsewhere a note."""
    assert only(MODE, model).severity is severity


def test_a_mode_reported_twice_is_counted_once() -> None:
    """Recognition names the same site in a gap and in the site itself."""
    layer = wired(batch_norm("bn"), mode=Mode.UNKNOWN)
    gap = Gap(kind=GapKind.MODE, where=layer.sites[0].name, why="mixes both")
    model = replace(with_graph(layer), gaps=(gap,))
    assert "mode of 1 site could" in only(MODE, model).message


def test_checksums_that_decide_make_it_a_note() -> None:
    """An index alone tells never-moved, so the unread values are a note that says what stays open."""
    layer = index_only(batch_norm("bn"))
    found = only(UNREAD, facts(layer, run=RunFacts(values=True, index_only=True)))
    assert found.severity is Severity.INFO
    assert "stay open" in found.message
    assert only(UNREAD, facts(unread(batch_norm("bn")))).severity is Severity.WARNING


def test_a_graph_alone_has_no_values_to_read() -> None:
    """Without a checkpoint unread statistics are no finding; the report says it under "not checked"."""
    layer = unread(wired(batch_norm("bn")))
    gap = Gap(kind=GapKind.STATISTICS, where=layer.mean.name, why="no checkpoint was given")
    assert not list(UNREAD.check(facts(layer, graph=graph_facts(layer), gaps=(gap,), run=RunFacts())))


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
