"""The init share and what it does: known answers, and one answer for rules, reports and repair."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from report_example import example

from bncheck.facts.findings import Report
from bncheck.facts.layers import Debias, DecaySource, Layer, Mode, Origin, Role, RunFacts, Site, Update
from bncheck.facts.wording import percent
from bncheck.numerics.init_share import effects, init_share, init_shares, share_bound, shrink
from bncheck.repair.statistics import debiased
from bncheck.report.html.layers import layer_views
from bncheck.report.text import text
from bncheck.report.wire import json_v1
from bncheck.rules.statistics.bn103_init_share_too_high import check
from bncheck.testing import batch_norm, facts, unread, untouched, updates


@pytest.mark.parametrize(
    ("decay", "count", "share", "said"),
    [
        (0.9997, 300, 0.914, "91.4 %"),
        (0.99, 300, 0.049, "4.9 %"),
        (0.997, 10, 0.97, "97.0 %"),
        (0.997, 100, 0.74, "74.0 %"),
        (0.997, 1000, 0.05, "5.0 %"),
        (0.999, 1000, 0.368, "36.8 %"),
    ],
)
def test_known_shares(decay: float, count: int, share: float, said: str) -> None:
    """decay**n gives the published shares, printed with one decimal."""
    found = init_share(batch_norm("bn", decay=decay), count)
    assert found == pytest.approx(share, abs=6e-4)
    assert percent(found or 0.0) == said


def test_share_is_unknown_without_decay_or_count() -> None:
    """Unknown is None, not zero; a debiased variance keeps nothing."""
    assert init_share(batch_norm("bn"), 300) is None
    assert init_share(batch_norm("bn", decay=0.99), None) is None
    assert init_share(batch_norm("bn", decay=0.99, debias=Debias(mean=True, variance=True)), 3) == 0.0
    assert init_share(batch_norm("bn", decay=0.99, debias=Debias(mean=True, variance=False)), 1) == 0.99


def test_two_updates_a_step_count_twice() -> None:
    """A layer that one train op updates from two towers ages twice as fast; two train ops do not add up."""
    twice = (*updates("bn", train_ops=("Adam",)), *updates("bn", train_ops=("Adam",)))
    apart = (*updates("bn", train_ops=("d",)), *updates("bn", train_ops=("g",)))
    assert init_share(batch_norm("bn", decay=0.99, updates=twice), 150) == pytest.approx(0.99**300)
    assert init_share(batch_norm("bn", decay=0.99, updates=apart), 150) == pytest.approx(0.99**150)


def test_contribution_of_the_story() -> None:
    """With decay 0.99 after 300 updates a true 0.020 is stored as 0.067, of which 73 % is the initial 1."""
    share = 0.99**300
    stored = share + (1 - share) * 0.020
    assert stored == pytest.approx(0.067, abs=2e-3)
    found = init_shares([batch_norm("bn", variance=stored, decay=0.99)], 300)[0]
    assert found.share == pytest.approx(0.049, abs=1e-3)
    assert found.median == pytest.approx(0.73, abs=0.015)


def test_effects_are_the_same_at_once_and_alone() -> None:
    """Also where a variance is not a number, starts at 0 or was not read."""
    layers = [
        batch_norm("a", variance=[0.2, 0.5, 1.0], decay=0.99),
        batch_norm("b", variance=[0.5, np.nan, 0.3, 2.0], decay=0.99, epsilon=1e-5),
        unread(batch_norm("c", decay=0.99)),
        batch_norm("d", variance=[0.4, 0.1], decay=0.99),
    ]
    layers[3] = replace(layers[3], variance=replace(layers[3].variance, initial=0.0))
    known = init_shares(layers, 100)
    assert effects(known) == [seen.effect for seen in init_shares(list(map(replace, layers)), 100)]


def test_share_bound() -> None:
    """The smallest variance of all layers bounds the share; NaN and unread layers do not take part."""
    layers = [batch_norm("a", variance=[0.3, 2.0, float("nan"), 1.0]), unread(batch_norm("b", variance=1e-3))]
    assert share_bound(layers) == 0.3
    assert share_bound([unread(batch_norm("b"))]) is None
    assert share_bound([batch_norm("a", variance=-1.0)]) == 0.0


def test_shrink() -> None:
    """52 layers that each divide by 5 % too much variance shrink the signal 3.8-fold; none do nothing."""
    assert shrink([0.05] * 52) == pytest.approx(0.95**-26)
    assert shrink([]) == 1.0
    assert np.isfinite(shrink([1.0] * 52))


def reported(layer: Layer, steps: int) -> Report:
    """A report of one layer after so many steps."""
    report = example()
    return replace(report, layers=(layer,), target=replace(report.target, updates=steps))


def told(report: Report) -> tuple[str, float | None, float | None]:
    """The share as text, JSON and HTML tell it."""
    stream, document = io.StringIO(), io.StringIO()
    text.write(report, stream, verbose=True)
    json_v1.write(report, document)
    table = stream.getvalue().partition("share")[2]
    (view,) = layer_views(replace(report, comparison=None, quantized=None, fold=None))
    found = re.search(r"\d+\.\d%", table)
    return found[0] if found else "", json.loads(document.getvalue())["layers"][0]["init_share"], view.share


def test_a_debiased_variance_holds_nothing_of_its_start() -> None:
    """The rule is silent, and no report shows the 91.4 % of a layer without zero-debias."""
    layer = batch_norm("bn", decay=0.9997, debias=Debias(mean=True, variance=True))
    assert list(check.check(facts(layer, run=RunFacts(values=True, updates=300)))) == []
    assert told(reported(layer, 300)) == ("0.0%", 0.0, 0.0)
    plain = told(reported(replace(layer, debias=None), 300))
    assert plain == ("91.4%", pytest.approx(0.9997**300), pytest.approx(0.9997**300))


def test_two_places_of_a_keras_layer_count_everywhere() -> None:
    """After 100 steps with decay 0.99 at two places 0.134 is left: in the rule, text, JSON, HTML and repair."""
    sites = tuple(Site(name=f"bn_{n}", form="BatchNormalization", mode=Mode.SWITCHED) for n in range(2))
    share = 0.99**200
    stored = [share + (1 - share) * true for true in (0.02, 0.3, 0.9, 2.0)]
    layer = batch_norm("bn", variance=stored, decay=0.99, origin=Origin.CONFIG, sites=sites)
    (evidence,) = check.check(facts(layer, run=RunFacts(values=True, updates=100)))
    assert {m.name: m.value for m in evidence.measurements}["init share"] == pytest.approx(share)
    assert told(reported(layer, 100)) == ("13.4%", pytest.approx(share), pytest.approx(share))
    repaired = debiased(layer, steps=100)
    assert repaired is not None
    assert repaired.share == pytest.approx(share)


def test_values_that_rule_the_share_out_are_heeded_everywhere() -> None:
    """A variance below what the counters say was left of 1: more updates went in, and no report tells a share."""
    layer = batch_norm("bn", variance=[0.02, 0.03, 0.5, 1.2], decay=0.9997)
    assert told(reported(layer, 300)) == ("", None, None)


def test_the_page_tells_what_never_moved() -> None:
    """All of the variance is the initial value then, whatever was counted; by the counters it is decay**n."""
    (view,) = layer_views(reported(untouched("bn", decay=0.99), 300))
    assert view.share == 1.0
    assert view.contribution is not None
    assert view.contribution.tolist() == [1.0] * 4
    assert init_share(untouched("bn", decay=0.99), 300) == pytest.approx(0.99**300)


def test_each_statistic_has_the_decay_that_the_graph_gives_it() -> None:
    """Elsewhere the layer's, as a user tells it."""
    own = tuple(
        Update(name=role.value, op="AssignSub", role=role, variable=role.value, decay=decay)
        for role, decay in ((Role.MEAN, 0.9), (Role.VARIANCE, 0.99))
    )
    layer = batch_norm("bn", decay=0.9, decay_from=DecaySource.GRAPH, updates=own)
    assert init_share(layer, 10) == pytest.approx(0.99**10)
    assert init_share(layer, 10, Role.MEAN) == pytest.approx(0.9**10)
    assert init_share(replace(layer, decay=0.5, decay_from=DecaySource.OPTION), 10) == pytest.approx(0.5**10)
