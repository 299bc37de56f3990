"""BN223 shared-at-several-depths."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only

from bncheck.facts.layers import Facts, Site
from bncheck.rules.wiring.bn223_shared_at_several_depths import check
from bncheck.testing import batch_norm, site, wired, with_graph


def applied(*sites: Site) -> Facts:
    """A layer with these sites."""
    return with_graph(replace(wired(batch_norm("bn")), sites=sites))


def place(name: str, *before: str) -> Site:
    """A trained site behind these."""
    return site(name, train_ops=("Adam",), before=before)


def test_towers_of_a_shared_row_count_once_each() -> None:
    """Two depths in each of two towers are four places; a tower with one is not among them."""
    evidence = only(check, applied(place("a"), place("b", "a"), place("c"), place("d", "c"), place("alone")))
    assert "bn at 4 places" in evidence.message
    assert "alone" not in evidence.message


def test_a_site_in_a_loop_is_behind_itself() -> None:
    """That is one place: BN215 looks at loops."""
    assert not list(check.check(applied(place("a", "a"))))
