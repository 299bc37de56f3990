"""BN208 too-many-updates-per-step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.rules.wiring import (
    bn208_too_many_updates_per_step,
)
from bncheck.rules.wiring.bn208_too_many_updates_per_step import applied
from bncheck.testing import (
    batch_norm,
    update,
    wired,
    with_graph,
)

MANY = bn208_too_many_updates_per_step.check


@pytest.mark.parametrize(
    ("times", "decay", "resource", "severity"),
    [
        (20, 0.9, True, Severity.ERROR),
        (19, 0.9, True, Severity.WARNING),
        (10, 0.9, True, Severity.WARNING),
        (9, 0.9, True, None),
        (250, 0.99, True, Severity.ERROR),
        (30, 0.9, False, Severity.WARNING),
        (2, 0.999, True, None),
        (10, None, True, Severity.WARNING),
        (9, None, True, None),
    ],
)
def test_n_times_one_minus_decay(times: int, decay: float | None, *, resource: bool, severity: Severity | None) -> None:
    """From 1 on a warning, from 2 on an error on resource variables (P8); reference variables race."""
    found = list(MANY.check(with_graph(applied(times, decay=decay, resource=resource))))
    assert [e.severity for e in found] == ([severity] if severity else [])


def test_the_load_is_a_number() -> None:
    """30 updates at 0.9: N (1 - decay) is 3, the limit 2."""
    found = only(MANY, with_graph(applied(30, decay=0.9)))
    load = found.measurements[1]
    assert load.value == pytest.approx(3.0)
    assert load.limit == 2.0


def test_two_train_ops_are_two_steps() -> None:
    """Updates that different train ops run do not add up."""
    layer = replace(
        wired(batch_norm("bn")),
        updates=tuple(
            update("bn", name=f"u{n}", decay=0.5, train_ops=(op,)) for n, op in enumerate(("g_adam", "d_adam"))
        ),
    )
    assert not list(MANY.check(with_graph(layer)))
