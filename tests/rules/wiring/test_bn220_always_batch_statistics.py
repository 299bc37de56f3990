"""BN220 always-batch-statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Facts, Layer, Linear, Mode
from bncheck.rules.wiring import (
    bn220_always_batch_statistics,
)
from bncheck.testing import (
    batch_norm,
    served,
    serving,
    unwired,
    wired,
    with_graph,
)

BATCH_ONLY = bn220_always_batch_statistics.check


def test_batch_statistics_only_are_a_fault_where_nothing_explains_them() -> None:
    """Trained or served a warning, unless no output depends on it."""
    bare = batch_norm("bn", mean=None, variance=None)
    assert only(BATCH_ONLY, with_graph(replace(unwired(bare), updates=()))).severity is Severity.WARNING
    assert only(BATCH_ONLY, serving(served(bare, Mode.TRAIN))).severity is Severity.WARNING
    assert not list(BATCH_ONLY.check(serving(served(bare, Mode.TRAIN, outputs=()))))


def trained(train_op: str = "Adam", **facts_of_site: Any) -> Layer:
    """A trained layer without statistics."""
    layer = replace(unwired(batch_norm("bn", mean=None, variance=None), train_op), updates=())
    return replace(layer, sites=(replace(layer.sites[0], **facts_of_site),))


@pytest.mark.parametrize(
    "model",
    [
        with_graph(trained(reduced=(1, 8, 8))),
        with_graph(trained(linear=Linear(name="conv", op="Conv2D", kernel="", reason="computed"))),
        with_graph(trained("g_adam"), wired(batch_norm("d"), "d_adam")),
        with_graph(trained(train_ops=())),
    ],
    ids=["pix2pix", "MAML", "GAN", "not trained"],
)
def test_what_is_so_by_design_is_a_note(model: Facts) -> None:
    """The graph itself tells: batches of one, stepped weights, two networks, or no training at all."""
    assert only(BATCH_ONLY, model).severity is Severity.INFO
