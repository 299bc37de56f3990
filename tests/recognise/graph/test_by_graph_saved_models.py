"""Recognition in TF2 SavedModels: variables that share a name, training signatures, branches that were lowered."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.facts.layers import Facts, Mode
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources import open_model

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]

CHANNELS = 3


class _TensorFlow:
    """TensorFlow, imported when the first test asks: collecting tests must not import it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("tensorflow"), name)


tf: Any = _TensorFlow()


def norm() -> Any:
    """A batch norm written by hand; all its variables have TensorFlow's default name."""
    module = tf.Module()
    module.scale, module.offset = tf.Variable(tf.ones(CHANNELS)), tf.Variable(tf.zeros(CHANNELS))
    module.mean = tf.Variable(tf.random.normal([CHANNELS]), trainable=False)
    module.variance = tf.Variable(tf.random.uniform([CHANNELS]), trainable=False)
    return module


def apply(module: Any, x: Any, *, training: bool) -> Any:
    """Normalises; in training with the moments of the batch, which it averages."""
    if not training:
        return tf.nn.batch_normalization(x, module.mean, module.variance, module.offset, module.scale, 1e-3)
    mean, variance = tf.nn.moments(x, [0])
    module.mean.assign_sub(0.1 * (module.mean - mean))
    module.variance.assign_sub(0.1 * (module.variance - variance))
    return tf.nn.batch_normalization(x, mean, variance, module.offset, module.scale, 1e-3)


def network() -> Any:
    """Two batch norms in a row."""
    module = tf.Module()
    module.norms = [norm(), norm()]
    return module


def forward(module: Any, x: Any, *, training: bool) -> Any:
    """Both batch norms."""
    for one in module.norms:
        x = tf.nn.relu(apply(one, x, training=training))
    return x


def images() -> Any:
    """The specification of a batch."""
    return tf.TensorSpec([None, CHANNELS], tf.float32)


def facts_of(path: Path) -> Facts:
    """What is recognised there."""
    return recognise(open_model(path), Options())


@pytest.mark.parametrize("signed", [False, True])
def test_variables_that_share_a_name(signed: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """Layers keep their own values and flags, with a signature and where functions tell what they capture by object."""
    module = network()
    module.infer = tf.function(lambda x: forward(module, x, training=False))
    module.other = tf.function(lambda x: forward(module, -x, training=False))
    concrete = [module.infer.get_concrete_function(images()), module.other.get_concrete_function(images())]
    tf.saved_model.save(module, str(tmp_path), signatures=concrete[0] if signed else None)
    facts = facts_of(tmp_path)
    assert facts.graph is not None
    means = sorted(layer.mean.values.tolist() for layer in facts.layers if layer.mean.values is not None)
    assert means == sorted(one.mean.numpy().astype(np.float64).tolist() for one in module.norms)
    assert [layer.trainable for layer in facts.layers] == [True, True]
    assert facts.graph.trainable.isdisjoint(v.name for layer in facts.layers for v in layer.statistics)


def test_signature_that_trains_through_slots(tmp_path: Path) -> None:
    """A step whose optimizer writes from its slots, as Keras does, is a train op, and its signature serves nobody."""
    module = network()
    weights = [v for one in module.norms for v in (one.scale, one.offset)]
    module.slots = [tf.Variable(tf.zeros_like(v), trainable=False) for v in weights]

    @tf.function(input_signature=[images()])
    def fit(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(forward(module, x, training=True) ** 2)
        for slot, weight, gradient in zip(module.slots, weights, tape.gradient(loss, weights), strict=True):
            slot.assign(0.9 * slot + gradient)
            weight.assign_sub(0.01 * slot)
        return loss

    infer = tf.function(lambda x: forward(module, x, training=False), input_signature=[images()])
    module.fit, module.infer = fit, infer
    tf.saved_model.save(module, str(tmp_path), signatures={"fit": fit, "infer": infer})
    facts = facts_of(tmp_path)
    assert facts.graph is not None
    (train_op,) = facts.graph.train_ops
    assert len(train_op.variables) == len(weights)
    for layer in facts.layers:
        assert {(s.mode, s.outputs, s.train_ops) for s in layer.sites} == {
            (Mode.TRAIN, (), (train_op.name,)),
            (Mode.EVAL, ("infer/output_0",), ()),
        }
        assert [u.train_ops for u in layer.updates] == [(train_op.name,)] * 2


def test_lowered_switch_case(tmp_path: Path) -> None:
    """Batch norm in the branches of a frozen `tf.switch_case` is found behind the switch that its input passes."""
    freeze = importlib.import_module("tensorflow.python.framework.convert_to_constants")
    module = network()
    index = tf.TensorSpec([], tf.int32)

    @tf.function(input_signature=[images(), index])
    def infer(x: Any, branch: Any) -> Any:
        return tf.switch_case(branch, [lambda k=k: forward(module, x * k, training=False) for k in (1.0, 2.0, 3.0)])

    frozen = freeze.convert_variables_to_constants_v2(infer.get_concrete_function())
    path = tmp_path / "frozen.pb"
    path.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    sites = [site for layer in facts_of(path).layers for site in layer.sites]
    assert [site.mode for site in sites] == [Mode.EVAL] * 6


@pytest.mark.parametrize("applied", [False, True])
def test_averages_that_start_at_zero(applied: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """Statistics that are all 0 have never moved; a layer of zeros beside one that moved is a dead one."""
    module = network()
    for number, one in enumerate(module.norms):
        if number or not applied:
            one.mean.assign(tf.zeros(CHANNELS))
            one.variance.assign(tf.zeros(CHANNELS))
    infer = tf.function(lambda x: forward(module, x, training=False), input_signature=[images()])
    module.infer = infer
    tf.saved_model.save(module, str(tmp_path), signatures=infer)
    moved = [layer.variance.moved for layer in facts_of(tmp_path).layers]
    assert moved == [applied, applied]
