"""BN207 update-outside-its-branch."""

from __future__ import annotations

import pytest

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Mode
from bncheck.rules.wiring import (
    bn207_update_outside_its_branch,
)
from bncheck.testing import (
    batch_norm,
    wired,
    with_graph,
)

OUTSIDE = bn207_update_outside_its_branch.check


@pytest.mark.parametrize(
    ("runs_with_site", "in_collection", "severity"),
    [
        (True, True, Severity.WARNING),
        (True, False, Severity.WARNING),
        (None, False, Severity.INFO),
        (None, True, None),
        (False, False, None),
    ],
)
def test_an_unconditional_update_counts_where_evaluation_runs_it(
    *, runs_with_site: bool | None, in_collection: bool, severity: Severity | None
) -> None:
    """Sure where the site waits for it; a note where that is unknown; nothing where only the train op runs it."""
    layer = wired(
        batch_norm("bn"),
        mode=Mode.SWITCHED,
        decay_when_off=0.99,
        runs_with_site=runs_with_site,
        in_collection=in_collection,
    )
    assert [e.severity for e in OUTSIDE.check(with_graph(layer))] == ([severity] if severity else [])
