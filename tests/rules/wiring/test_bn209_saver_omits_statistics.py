"""BN209 saver-omits-statistics."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Linear
from bncheck.rules.wiring import (
    bn209_saver_omits_statistics,
)
from bncheck.testing import (
    batch_norm,
    saver,
    unread,
    wired,
    with_graph,
)

SAVER = bn209_saver_omits_statistics.check


def test_a_checkpoint_that_holds_them_speaks_for_another_saver() -> None:
    """The graph's Saver omits the statistics and the checkpoint has them: a warning that says so."""
    layer = wired(batch_norm("bn"))
    savers = (saver(layer, without=("moving_mean", "moving_variance")),)
    found = only(SAVER, with_graph(layer, savers=savers))
    assert found.severity is Severity.WARNING
    assert "another Saver wrote it" in found.message
    assert only(SAVER, with_graph(unread(layer), savers=savers)).severity is Severity.ERROR


def test_two_savers_cover_together() -> None:
    """Weights in one Saver and statistics in another: nothing is lost."""
    layer = wired(batch_norm("bn"))
    weights = saver(layer, without=("moving_mean", "moving_variance"))
    statistics = saver(layer, without=("gamma", "beta"), name="save_1/SaveV2")
    assert not list(SAVER.check(with_graph(unread(layer), savers=(weights, statistics))))


def test_a_layer_without_gamma_and_beta_is_known_by_its_kernel() -> None:
    """With scale=False and center=False the kernel before it tells that the layer is meant to be kept."""
    linear = Linear(name="conv", op="Conv2D", kernel="conv/weights")
    layer = unread(replace(wired(batch_norm("bn", gamma=None, beta=None)), linear=linear))
    kernels = replace(saver(), keys=frozenset({"conv/weights"}), variables=frozenset({"conv/weights"}))
    assert only(SAVER, with_graph(layer, savers=(kernels,))).layers == ("bn",)
