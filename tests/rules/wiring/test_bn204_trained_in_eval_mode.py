"""BN204 trained-in-eval-mode."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Confidence, Severity
from bncheck.facts.layers import Layer, Mode
from bncheck.rules.wiring import (
    bn204_trained_in_eval_mode,
)
from bncheck.testing import (
    batch_norm,
    site,
    unread,
    untouched,
    unwired,
    wired,
    with_graph,
)

EVAL = bn204_trained_in_eval_mode.check


def bare(layer: Layer, mode: Mode = Mode.TRAIN) -> Layer:
    """The layer in a training graph that holds no update of it."""
    return replace(unwired(layer, mode=mode), updates=())


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([bare(untouched("a"), Mode.EVAL)], [(Severity.ERROR, Confidence.HIGH)]),
        ([unread(bare(batch_norm("a"), Mode.EVAL))], [(Severity.ERROR, Confidence.MEDIUM)]),
        (
            [unread(bare(batch_norm("a"), Mode.EVAL)), unread(wired(batch_norm("b")))],
            [(Severity.WARNING, Confidence.MEDIUM)],
        ),
        ([bare(batch_norm("a"), Mode.EVAL)], [(Severity.INFO, Confidence.LOW)]),
        (
            [bare(batch_norm("backbone"), Mode.EVAL), bare(untouched("head"), Mode.EVAL)],
            [(Severity.ERROR, Confidence.HIGH), (Severity.INFO, Confidence.LOW)],
        ),
    ],
)
def test_trained_in_eval_mode_is_weighed(layers: list[Layer], expected: list[tuple[Severity, Confidence]]) -> None:
    """Never moved is an error; pretrained statistics are deliberate fine-tuning, beside which a new head is not."""
    found = list(EVAL.check(with_graph(*layers)))
    assert [(e.severity, e.confidence) for e in found] == expected


def test_a_tower_that_gradients_do_not_reach_does_not_count() -> None:
    """A train-mode validation tower hanging on the train op by its updates does not make the loss train on batches."""
    layer = bare(untouched("bn"), Mode.EVAL)
    aside = site("val/bn", Mode.TRAIN, train_ops=("Adam",), backpropagated=False)
    assert only(EVAL, with_graph(replace(layer, sites=(*layer.sites, aside)))).severity is Severity.ERROR


def test_training_in_eval_mode_does_not_offer_repair() -> None:
    """The weights fit the affine: new statistics would break such a model."""
    assert "bncheck repair" not in only(EVAL, with_graph(bare(untouched("bn"), Mode.EVAL))).fix
