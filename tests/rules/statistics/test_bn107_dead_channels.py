"""BN107 dead-channels."""

from __future__ import annotations

from one_evidence import only

from bncheck.rules.statistics.bn107_dead_channels import check
from bncheck.testing import batch_norm, facts


def test_dead_channels_are_counted() -> None:
    """Dead channels, channels, exact zeros and the decay that the floor tells stand in the finding as numbers."""
    layer = batch_norm("bn", variance=[0.0, 1.1664e-36, 1.0, 2.0])
    evidence = only(check, facts(layer, batch_norm("b")))
    values = {item.name: item.value for item in evidence.measurements}
    assert (values["dead channels"], values["channels"], values["variances of exactly 0"]) == (2, 8, 1)
    assert values["decay told by the floor"] == 0.99
