"""BN211 decay-suspicious."""

from __future__ import annotations

import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.rules.wiring import (
    bn211_decay_suspicious,
)
from bncheck.rules.wiring.bn211_decay_suspicious import configured
from bncheck.testing import (
    batch_norm,
    keras_file,
    wired,
    with_graph,
)

DECAY = bn211_decay_suspicious.check


@pytest.mark.parametrize(
    ("decay", "severity"),
    [
        (-0.1, Severity.ERROR),
        (0.0, Severity.WARNING),
        (0.1, Severity.WARNING),
        (0.499, Severity.WARNING),
        (0.5, None),
        (0.9997, None),
        (0.9999, None),
        (0.99995, Severity.INFO),
        (1.0, Severity.WARNING),
        (1.01, Severity.ERROR),
    ],
)
def test_decays(decay: float, severity: Severity | None) -> None:
    """Boundaries, on a layer whose statistics moved; 1 is then a converter's mapping, not a fault of training."""
    found = list(DECAY.check(with_graph(wired(batch_norm("bn"), decay=decay))))
    assert [e.severity for e in found] == ([severity] if severity else [])


def test_a_decay_of_one_that_never_moved_is_an_error() -> None:
    """Nothing explains statistics at their initial values better than an update that keeps everything."""
    assert only(DECAY, keras_file(configured(1.0, mean=0.0, variance=1.0))).severity is Severity.ERROR
    assert only(DECAY, keras_file(configured(1.0))).severity is Severity.WARNING


def test_pytorchs_momentum_is_translated() -> None:
    """0.1 from PyTorch is 0.9 here; the message names Keras' word and where the number stands."""
    message = only(DECAY, keras_file(configured(0.1))).message
    assert message.startswith("The momentum of 1 layer is 0.1 (configuration)")
    assert "the decay is 0.9" in message


def test_a_float32_decay_is_not_suspicious() -> None:
    """0.9999 in a graph is 1 - 1.00016594e-4 or so."""
    assert not list(DECAY.check(with_graph(wired(batch_norm("bn"), decay=0.99990001))))
