"""BN216 other-tower-not-wired."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Role
from bncheck.rules.wiring import (
    bn216_other_tower_not_wired,
)
from bncheck.rules.wiring.bn216_other_tower_not_wired import towered
from bncheck.testing import (
    batch_norm,
    site,
    update,
    wired,
    with_graph,
)

TOWERS = bn216_other_tower_not_wired.check


@pytest.mark.parametrize(
    ("wiring", "severity", "said"),
    [
        ("+-", Severity.INFO, "only the first has its updates wired"),
        ("---+", Severity.INFO, "only the last has its updates wired"),
        ("-+-", Severity.INFO, "only one in the middle"),
        ("++-", Severity.WARNING, "the updates of 2 are wired and those of 1 are not"),
    ],
)
def test_which_towers_are_wired(wiring: str, severity: Severity, said: str) -> None:
    """One tower may be on purpose, and its place tells; some but not all is meant by nobody."""
    found = only(TOWERS, with_graph(towered(wiring)))
    assert found.severity is severity
    assert said in found.message


def test_an_unwired_validation_tower_is_no_tower() -> None:
    """A second site on which no train op depends is left out, as the usual remedy for BN213 makes it."""
    layer = wired(batch_norm("bn"))
    aside = site("val/bn", train_ops=())
    own = tuple(update("bn", role, name=f"val/{role.value}", site=aside.name) for role in (Role.MEAN, Role.VARIANCE))
    layer = replace(layer, sites=(*layer.sites, aside), updates=layer.updates + own)
    assert not list(TOWERS.check(with_graph(layer)))
