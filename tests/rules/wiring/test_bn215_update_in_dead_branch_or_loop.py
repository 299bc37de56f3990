"""BN215 update-in-dead-branch-or-loop."""

from __future__ import annotations

import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.rules.wiring import (
    bn215_update_in_dead_branch_or_loop,
)
from bncheck.testing import (
    batch_norm,
    switch,
    unread,
    untouched,
    unwired,
    wired,
    with_graph,
)

DEAD = bn215_update_in_dead_branch_or_loop.check


@pytest.mark.parametrize(
    ("in_loop", "layer", "severity"),
    [
        (False, untouched("bn"), Severity.ERROR),
        (False, unread(batch_norm("bn")), Severity.WARNING),
        (False, batch_norm("bn"), Severity.INFO),
        (True, unread(batch_norm("bn")), Severity.ERROR),
        (True, batch_norm("bn"), Severity.WARNING),
    ],
)
def test_collected_inside_is_weighed_with_the_values(*, in_loop: bool, layer: object, severity: Severity) -> None:
    """A branch that is taken in training moves the statistics; a loop cannot be waited for at all."""
    inside = unwired(layer, in_loop=in_loop, collected_in_branch=True)
    assert only(DEAD, with_graph(inside)).severity is severity


def test_the_condition_is_named() -> None:
    """The predicate under which the update lives is what a reader looks for."""
    layer = wired(untouched("bn"), collected_in_branch=True, branch=switch("use_aux"))
    assert "The condition is `use_aux`." in only(DEAD, with_graph(layer)).message
