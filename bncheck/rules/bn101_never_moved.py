"""BN101 never-moved."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.finding import Evidence, Measurement, Severity
from bncheck.model import Facts
from bncheck.rules._rule import Needs, rule
from bncheck.testing import batch_norm, facts


@rule(
    "BN101",
    "never-moved",
    severity=Severity.ERROR,
    needs=Needs.VALUES,
    explained_by=("BN201", "BN203", "BN204", "BN206"),
)
def check(model: Facts) -> Iterator[Evidence]:
    """No moving mean or variance ever left its initial value, although the model was trained.

    PLACEHOLDER for the shape of a rule; the helper who owns the BN1 family writes it for real.
    """
    layers = [layer for layer in model.layers if layer.moved is False]
    if layers and len(layers) == len(model.layers):
        yield Evidence(
            layers=tuple(layer.name for layer in layers),
            message="every moving_mean is exactly 0 and every moving_variance exactly 1",
            measurements=(Measurement(name="layers never moved", value=len(layers), limit=0, unit="layers"),),
        )


def clean() -> tuple[Facts, ...]:
    """Models on which the rule must stay silent."""
    return (facts(batch_norm("bn", mean=0.3, variance=0.7)),)


def broken() -> tuple[Facts, ...]:
    """Models on which the rule must speak."""
    return (facts(batch_norm("bn", mean=0.0, variance=1.0)),)
