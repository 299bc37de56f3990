"""BN003 mode-unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Facts, Mode
from bncheck.rules.coverage import (
    bn003_mode_unknown,
)
from bncheck.testing import batch_norm, served, serving, wired, with_graph

MODE = bn003_mode_unknown.check


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
    assert "mode of 1 site" in only(MODE, model).message
