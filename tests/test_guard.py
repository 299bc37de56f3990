"""The guard in real training runs: wrong wiring is stopped before or soon after the first step, right wiring never."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bncheck import guard
from bncheck.facts.errors import UsageError

pytestmark = pytest.mark.tensorflow

LAYERS = 2


@contextmanager
def slim_net(*, decay: float = 0.9, is_training: bool = True) -> Iterator[Any]:
    """A graph with two slim batch norms and a loss, open for a train op; gives (slim, v1, loss, step)."""
    import tensorflow as tf

    from bncheck.backbones.mobilenet_v2 import slim

    v1 = tf.compat.v1
    with tf.Graph().as_default(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        v1.set_random_seed(0)
        images = tf.random.normal([8, 6, 6, 3], mean=3.0)
        with slim.arg_scope([slim.batch_norm], is_training=is_training, decay=decay):
            net = slim.conv2d(images, 4, 3, normalizer_fn=slim.batch_norm, scope="one")
            net = slim.conv2d(net, 4, 3, normalizer_fn=slim.batch_norm, scope="two")
        loss = tf.reduce_mean(tf.square(tf.reduce_mean(net, [1, 2]) - 1.0))
        yield slim, v1, loss, v1.train.get_or_create_global_step()


def updates(v1: Any) -> list[Any]:
    """UPDATE_OPS of the graph."""
    found: list[Any] = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
    return found


def wired(v1: Any, loss: Any, step: Any, run: list[Any]) -> Any:
    """A train op that runs these updates."""
    with v1.control_dependencies(run):
        return v1.train.GradientDescentOptimizer(0.01).minimize(loss, step)


def run(v1: Any, train_op: Any, hook: Any, steps: int) -> int:
    """Trains under a MonitoredSession; gives the global step at the end."""
    step = v1.train.get_global_step()
    with v1.train.MonitoredTrainingSession(hooks=[hook], log_step_count_steps=None) as session:
        for _ in range(steps):
            session.run(train_op)
        return int(session.run(step))


def test_importing_the_guard_imports_no_framework() -> None:
    """A training script pays nothing for the import, and the guard takes the TensorFlow that the script loads."""
    code = (
        "import sys; from bncheck.guard import StatisticsMoveHook, StatisticsMoveCallback, assert_updates_wired; "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'tf_keras', 'tf_slim', 'rich', 'h5py')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_forgotten_updates_are_refused_before_the_first_step() -> None:
    """`minimize` without UPDATE_OPS: raised with every layer named and the code that cures it."""
    with slim_net() as (_, v1, loss, step):
        train_op = wired(v1, loss, step, [])
        with pytest.raises(guard.UpdatesNotWired) as caught:
            guard.assert_updates_wired(train_op)
    assert caught.value.layers == ("one/BatchNorm", "two/BatchNorm")
    assert "BN201" in str(caught.value)
    assert "one/BatchNorm" in str(caught.value)
    assert "tf.control_dependencies(update_ops)" in str(caught.value)


def test_some_forgotten_updates_are_named() -> None:
    """UPDATE_OPS read half way: only the layer that was built later is named."""
    with slim_net() as (_, v1, loss, step):
        train_op = wired(v1, loss, step, updates(v1)[:2])
        with pytest.raises(guard.UpdatesNotWired, match="BN202") as caught:
            guard.assert_updates_wired(train_op)
    assert caught.value.layers == ("two/BatchNorm",)


@pytest.mark.parametrize("how", ["control", "create_train_op", "group", "nest"])
def test_wired_updates_pass(how: str) -> None:
    """Four right ways to run the updates are none of the guard's business."""
    with slim_net() as (slim, v1, loss, step), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        train_op = {
            "control": lambda: wired(v1, loss, step, updates(v1)),
            "create_train_op": lambda: slim.learning.create_train_op(loss, v1.train.GradientDescentOptimizer(0.01)),
            "group": lambda: v1.group(wired(v1, loss, step, []), *updates(v1)),
            "nest": lambda: {"train": wired(v1, loss, step, []), "updates": updates(v1)},
        }[how]()
        guard.assert_updates_wired(train_op)


def test_what_is_no_train_op_is_said_so() -> None:
    """None, an eager tensor, an op of another graph: UsageError; no optimizer or no batch norm: a warning."""
    import tensorflow as tf

    with pytest.raises(UsageError, match="None"):
        guard.assert_updates_wired(None)
    with pytest.raises(UsageError, match="eager"):
        guard.assert_updates_wired(tf.constant(1.0))
    with slim_net() as (_, _, loss, _), pytest.warns(UserWarning, match="no optimizer"):
        guard.assert_updates_wired(loss)
    with tf.Graph().as_default() as graph, pytest.warns(UserWarning, match="no batch norm"):
        guard.assert_updates_wired(tf.constant(1.0))
    with slim_net() as (_, v1, loss, step), pytest.raises(UsageError, match="not an op of the graph"):
        guard.assert_updates_wired(wired(v1, loss, step, []), graph=graph)


def test_hook_stops_a_run_whose_statistics_stand_still() -> None:
    """Nothing is wired: the run ends after the first steps, both layers named."""
    with slim_net() as (_, v1, loss, step):
        train_op = wired(v1, loss, step, [])
        with pytest.raises(guard.StatisticsNotMoving) as caught:
            run(v1, train_op, guard.StatisticsMoveHook(first_steps=3), 50)
    assert caught.value.layers == ("one/BatchNorm", "two/BatchNorm")
    assert 3 <= caught.value.steps <= 4
    assert "UPDATE_OPS" in str(caught.value)


def test_hook_names_the_one_layer_that_stands_still() -> None:
    """One of two layers is wired: the other one is named, alone."""
    with slim_net() as (_, v1, loss, step):
        train_op = wired(v1, loss, step, updates(v1)[:2])
        with pytest.raises(guard.StatisticsNotMoving) as caught:
            run(v1, train_op, guard.StatisticsMoveHook(first_steps=3), 50)
    assert caught.value.layers == ("two/BatchNorm",)


def test_hook_lets_a_right_run_end() -> None:
    """All is wired: all steps run, and the hook is a SessionRunHook of TensorFlow, which Estimator insists on."""
    with slim_net() as (_, v1, loss, step):
        hook = guard.StatisticsMoveHook(first_steps=3)
        assert isinstance(hook, v1.train.SessionRunHook)
        assert run(v1, wired(v1, loss, step, updates(v1)), hook, 8) == 8


def test_hook_lets_updates_by_hand_pass() -> None:
    """Updates that the script runs itself move the statistics, whatever the wiring says."""
    with slim_net() as (_, v1, loss, step):
        train_op = [wired(v1, loss, step, []), updates(v1)]
        assert run(v1, train_op, guard.StatisticsMoveHook(first_steps=3), 8) == 8


def test_hook_warns_where_the_decay_is_too_slow_for_the_run() -> None:
    """Decay 0.9997 needs 15,349 updates until less than 1 % of the start is left."""
    with slim_net(decay=0.9997) as (_, v1, loss, step):
        train_op = wired(v1, loss, step, updates(v1))
        with pytest.warns(UserWarning, match=r"15,349 updates.*has 300: 91\.4%"):
            run(v1, train_op, guard.StatisticsMoveHook(first_steps=1, total_steps=300), 2)


@pytest.mark.parametrize(
    ("share", "decay", "updates_needed"), [(0.01, 0.9, 44), (0.01, 0.99, 459), (0.01, 0.999, 4603), (0.01, 0.0, 1)]
)
def test_updates_until(share: float, decay: float, updates_needed: int) -> None:
    """Known numbers; one update fewer leaves too much."""
    assert guard.updates_until(share, decay) == updates_needed
    assert decay**updates_needed < share
    assert decay ** (updates_needed - 1) >= share


def test_arguments_out_of_range_are_refused() -> None:
    """A share of 0 is never reached, and a check after no step checks nothing."""
    with pytest.raises(UsageError):
        guard.updates_until(0.0, 0.9)
    with pytest.raises(UsageError):
        guard.updates_until(0.01, 1.0)
    with pytest.raises(UsageError):
        guard.StatisticsMoveHook(first_steps=0)
    with pytest.raises(UsageError):
        guard.StatisticsMoveCallback(first_steps=0)


KERAS = ["keras", "tf_keras"]


def keras_fit(name: str, head: Callable[[Any, Any], Any], callback: Any, *, epochs: int = 2) -> Any:
    """Fits a tiny model of one of the two Keras; `head(layers, x)` is what stands between input and output."""
    keras = pytest.importorskip(name)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    outputs = keras.layers.Dense(1)(head(keras.layers, keras.layers.Dense(4)(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    features = random.normal(2.0, 1.0, (64, 5)).astype(np.float32)
    return model.fit(
        features, features.sum(1, keepdims=True), batch_size=8, epochs=epochs, verbose=0, callbacks=[callback]
    )


def evaluated(layers: Any, x: Any, name: str = "dead") -> Any:
    """A batch norm that its holder always calls in eval mode, as hand-written blocks do."""

    class Block(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.norm = layers.BatchNormalization(name=name, momentum=0.5)

        def call(self, values: Any) -> Any:
            return self.norm(values, training=False)

    return Block()(x)


@pytest.mark.parametrize("name", KERAS)
def test_callback_stops_a_run_whose_statistics_stand_still(name: str) -> None:
    """Called with `training=False`: gamma and beta learn, statistics never move."""
    with pytest.raises(guard.StatisticsNotMoving) as caught:
        keras_fit(
            name,
            lambda layers, x: evaluated(layers, layers.BatchNormalization(name="alive", momentum=0.5)(x)),
            guard.StatisticsMoveCallback(first_steps=3),
        )
    assert caught.value.layers == ("dead",)
    assert caught.value.steps == 3
    assert "trainable = False" in str(caught.value)


@pytest.mark.parametrize("name", KERAS)
def test_callback_counts_over_epochs(name: str) -> None:
    """8 steps an epoch, checked at step 12: in the second epoch."""
    with pytest.raises(guard.StatisticsNotMoving) as caught:
        keras_fit(
            name,
            evaluated,
            guard.StatisticsMoveCallback(first_steps=12),
        )
    assert caught.value.steps == 12


@pytest.mark.parametrize("name", KERAS)
def test_callback_lets_right_and_frozen_layers_pass(name: str) -> None:
    """A layer in training mode moves; one with trainable=False is frozen on purpose."""
    history = keras_fit(
        name,
        lambda layers, x: layers.BatchNormalization(momentum=0.5, trainable=False)(
            layers.BatchNormalization(momentum=0.5)(x)
        ),
        guard.StatisticsMoveCallback(first_steps=3),
    )
    assert len(history.history["loss"]) == 2


@pytest.mark.parametrize("name", KERAS)
def test_callback_finds_layers_of_nested_models(name: str) -> None:
    """A batch norm inside a model inside the model is watched too."""

    def nested(layers: Any, x: Any) -> Any:
        keras = pytest.importorskip(name)
        inner = keras.Input((4,))
        return keras.Model(inner, evaluated(layers, inner, "inside"), name="block")(x)

    with pytest.raises(guard.StatisticsNotMoving) as caught:
        keras_fit(name, nested, guard.StatisticsMoveCallback(first_steps=2))
    assert caught.value.layers == ("inside",)


@pytest.mark.parametrize("name", KERAS)
def test_callback_warns_where_the_momentum_is_too_slow_for_the_run(name: str) -> None:
    """Keras's default momentum 0.99 needs 459 updates, the run has 16: 85 % of the start is left."""
    with pytest.warns(UserWarning, match=r"decay 0\.99 .* 459 updates .* has 16: 85"):
        keras_fit(name, lambda layers, x: layers.BatchNormalization()(x), guard.StatisticsMoveCallback(first_steps=3))


@pytest.mark.parametrize("runs_updates", [True, False])
def test_graph_built_while_tensorflow_runs_eagerly(runs_updates: bool) -> None:  # noqa: FBT001 - parametrised
    """A graph of TensorFlow 2, judged outside of its `with`: the op's own graph counts."""
    with slim_net() as (_, v1, loss, step):
        train_op = wired(v1, loss, step, updates(v1) if runs_updates else [])
    assert v1.executing_eagerly()
    if runs_updates:
        guard.assert_updates_wired(train_op)
    else:
        with pytest.raises(guard.UpdatesNotWired):
            guard.assert_updates_wired(train_op)


def by_hand(v1: Any, x: Any, name: str) -> tuple[Any, Any]:
    """(output, update) of a layer with an average of its moments."""
    with v1.variable_scope(name):
        beta = v1.get_variable("beta", [4], initializer=v1.zeros_initializer())
        moments = v1.nn.moments(x, [0, 1, 2])
        update = v1.train.ExponentialMovingAverage(0.9).apply(list(moments))
        return v1.nn.relu(v1.nn.batch_normalization(x, *moments, beta, None, 1e-3)), update


def by_keras(_: Any, x: Any, name: str) -> tuple[Any, Any]:
    """The same of a layer of Keras, which lists its updates nowhere."""
    # before TensorFlow 2.15 its own Keras is the one with `updates`
    layers = importlib.import_module("keras.layers" if find_spec("tf_keras") is None else "tf_keras.layers")
    layer = layers.BatchNormalization(name=name)
    return layer(x, training=True), layer.updates


def by_slim(v1: Any, x: Any, name: str) -> tuple[Any, Any]:
    """The same of TF-slim."""
    from bncheck.backbones.mobilenet_v2 import slim

    return slim.batch_norm(x, scope=name, decay=0.9), updates(v1)[-2:]


@pytest.mark.parametrize("layer", [by_hand, by_keras, by_slim])
@pytest.mark.parametrize("trained", ["all", "all under a condition", "head", "none run", "one run"])
def test_forms_and_frozen_layers(layer: Any, trained: str) -> None:
    """Layers of any making, judged while TensorFlow runs eagerly; those that no optimizer trains need no update."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = v1.placeholder(tf.float32, [None, 4, 4, 3])
        found = []
        for name in ("backbone", "head"):
            y = tf.nn.conv2d(y, v1.get_variable(f"{name}/w", [1, 1, y.shape[-1], 4]), 1, "SAME")
            y, update = layer(v1, y, name)
            found.append(update)
        run_too = {"head": found[1:], "none run": [], "one run": found[:1]}.get(trained, found)
        variables = [v for v in v1.trainable_variables() if trained != "head" or v.op.name.startswith("head")]
        optimizer, loss = v1.train.AdamOptimizer(0.1), tf.reduce_mean(tf.square(y))
        pairs = optimizer.compute_gradients(loss, variables)
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g, _ in pairs])
        with tf.control_dependencies(tf.nest.flatten(run_too)):
            if trained == "all under a condition":
                train_op = v1.cond(finite, lambda: optimizer.apply_gradients(pairs), tf.no_op)
            else:
                train_op = optimizer.apply_gradients(pairs)
    assert v1.executing_eagerly()
    if not trained.endswith("run"):
        guard.assert_updates_wired(train_op)
        return
    with pytest.raises(guard.UpdatesNotWired) as caught:
        guard.assert_updates_wired(train_op)
    assert len(caught.value.layers) == (2 if trained == "none run" else 1)
