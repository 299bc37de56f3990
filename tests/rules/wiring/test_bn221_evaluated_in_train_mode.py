"""BN221 evaluated-in-train-mode."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from one_evidence import only

from bncheck.facts.layers import Layer, Mode
from bncheck.rules.wiring.bn221_evaluated_in_train_mode import check
from bncheck.testing import batch_norm, site, wired, with_graph


def twice(mode: Mode = Mode.TRAIN, **second: Any) -> Layer:
    """A trained layer, applied once more."""
    layer = wired(batch_norm("bn"))
    known: dict[str, Any] = {"backpropagated": False, "inputs": ("x_val",)}
    return replace(layer, sites=(*layer.sites, site("val/bn", mode, **(known | second))))


def test_the_second_place_is_named_with_what_feeds_it() -> None:
    """So that it is found in the script."""
    evidence = only(check, with_graph(twice()))
    assert evidence.location == "val/bn"
    assert "`val/bn`, fed by `x_val`," in evidence.message


@pytest.mark.parametrize(
    "layer",
    [
        twice(Mode.EVAL),
        twice(Mode.SWITCHED),
        twice(train_ops=("Adam",)),
        twice(backpropagated=True),
        twice(backpropagated=None),
        replace(twice(), trained_by=()),
        replace(twice(), mean=batch_norm("bn", mean=None).mean, variance=batch_norm("bn", variance=None).variance),
    ],
    ids=["eval", "switched", "in the train op", "trained", "unknown", "not trained at all", "no statistics"],
)
def test_silent(layer: Layer) -> None:
    """On other modes, on what training depends on, and where nothing is stored that could be used instead."""
    assert not list(check.check(with_graph(layer)))


def test_silent_where_training_itself_is_in_eval_mode() -> None:
    """A frozen layer with a calibration tower: BN204 looks at the first."""
    layer = twice()
    frozen = replace(layer.sites[0], mode=Mode.EVAL)
    assert not list(check.check(with_graph(replace(layer, sites=(frozen, layer.sites[1])))))
