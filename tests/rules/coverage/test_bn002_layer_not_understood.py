"""BN002 layer-not-understood."""

from __future__ import annotations

from bncheck.facts.gaps import Gap, GapKind
from bncheck.rules.coverage import (
    bn002_layer_not_understood,
)
from bncheck.testing import batch_norm, facts

UNCLEAR = bn002_layer_not_understood.check


def test_places_not_understood_are_one_finding_a_reason() -> None:
    """Two places for one reason and one for another make two findings; a known layer is listed as such."""
    same = [Gap(kind=GapKind.LAYER, where=f"norm_{n}", why="axes unknown") for n in (1, 2)]
    other = Gap(kind=GapKind.LAYER, where="bn", why="class FrozenNorm", how="give the .keras file")
    first, second = UNCLEAR.check(facts(batch_norm("bn"), gaps=(*same, other)))
    assert first.layers == ()
    assert "2 places may hold batch norm and were not judged: axes unknown" in first.message
    assert second.layers == ("bn",)
    assert second.fix == "give the .keras file"
