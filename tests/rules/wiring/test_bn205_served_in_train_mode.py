"""BN205 served-in-train-mode."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only

from bncheck.facts.findings import Confidence, Severity
from bncheck.facts.layers import Mode, Origin
from bncheck.rules.wiring import (
    bn205_served_in_train_mode,
)
from bncheck.testing import (
    batch_norm,
    keras_file,
    served,
    serving,
    site,
    with_graph,
)

SERVED = bn205_served_in_train_mode.check


def test_served_train_mode_names_the_output() -> None:
    """The message says which output depends on the batch, and how many layers do it."""
    found = only(SERVED, serving(served(batch_norm("a"), Mode.TRAIN), served(batch_norm("b"))))
    assert found.message.startswith("Computing `serving_default/logits` uses train mode in 1 of 2 layers")
    assert found.severity is Severity.ERROR


def test_a_predict_graph_with_an_eval_twin_is_no_fault() -> None:
    """A MetaGraph that applies the layer in both modes serves whichever is fetched."""
    layer = served(batch_norm("bn"), Mode.TRAIN, outputs=())
    both = replace(layer, sites=(*layer.sites, site("eval/bn", Mode.EVAL)))
    assert only(SERVED, with_graph(layer)).severity is Severity.WARNING
    assert not list(SERVED.check(with_graph(both)))


def test_keras_hard_coded_training_is_a_warning() -> None:
    """`training=True` in a call wins in Keras 2 and not in Keras 3: a warning of medium confidence."""
    baked = replace(served(batch_norm("bn"), Mode.TRAIN, outputs=()), origin=Origin.CONFIG)
    frozen = replace(served(batch_norm("bn"), Mode.EVAL, outputs=()), origin=Origin.CONFIG)
    found = only(SERVED, keras_file(baked))
    assert (found.severity, found.confidence) == (Severity.WARNING, Confidence.MEDIUM)
    assert not list(SERVED.check(keras_file(frozen)))
