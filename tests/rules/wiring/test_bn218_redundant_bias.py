"""BN218 redundant-bias."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only

from bncheck.facts.layers import Mode
from bncheck.rules.wiring import (
    bn218_redundant_bias,
)
from bncheck.testing import (
    batch_norm,
    site,
    wired,
    with_graph,
)

BIAS = bn218_redundant_bias.check


def test_one_bias_before_two_sites_is_one() -> None:
    """Training and evaluation site share the variable."""
    layer = wired(batch_norm("bn"))
    sites = tuple(replace(s, bias="conv/biases") for s in (*layer.sites, site("eval/bn", Mode.EVAL)))
    found = only(BIAS, with_graph(replace(layer, sites=sites)))
    assert found.measurements[0].value == 1
