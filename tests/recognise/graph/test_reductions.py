"""Batch moments in the forms of all years: the layer, its mode, its updates and their decay are what is computed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bncheck.facts.layers import Mode, Role

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


class _Late:
    """A module, imported when the first test asks: collecting tests must not import TensorFlow."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


styles: Any = _Late("graph_styles")
tf: Any = _Late("tensorflow")

AXES = [0, 1, 2]
Moments = Callable[[Any, Any], tuple[Any, Any]]


def of_tensorflow_0(x: Any, _: Any) -> tuple[Any, Any]:
    """TF 0.5 to 0.8: sums times the inverse of a product of sliced shapes."""
    divisor = tf.constant(1.0)
    for axis in AXES:
        divisor *= tf.cast(tf.slice(tf.shape(x), [axis], [1])[0], tf.float32)
    inverse = tf.raw_ops.Inv(x=divisor)
    mean = tf.reduce_sum(x, AXES) * inverse
    return mean, tf.reduce_sum(tf.square(x - mean), AXES) * inverse


def of_tensorflow_1(x: Any, _: Any) -> tuple[Any, Any]:
    """TF 1.0 to 1.2: sums of data shifted by their mean, over a count, static where the batch is."""
    shift = tf.stop_gradient(tf.reduce_mean(x, AXES, keepdims=True))
    count, mean, variance, shift = tf.nn.sufficient_statistics(x, AXES, shift=shift, keepdims=True)
    found = tf.nn.normalize_moments(count, mean, variance, shift)
    return tf.squeeze(found[0], AXES), tf.squeeze(found[1], AXES)


def shifted_by_the_average(x: Any, moving_mean: Any) -> tuple[Any, Any]:
    """tf.contrib.layers of 2016: sums of data shifted by a copy of the moving mean."""
    count, mean, variance, shift = tf.nn.sufficient_statistics(x, AXES, shift=moving_mean + 0.0)
    found: tuple[Any, Any] = tf.nn.normalize_moments(count, mean, variance, shift)
    return found


def raw(x: Any, _: Any) -> tuple[Any, Any]:
    """By hand: E[x^2] - E[x]^2."""
    mean = tf.reduce_mean(x, AXES)
    return mean, tf.reduce_mean(x * x, AXES) - mean**2


def by_size(x: Any, _: Any) -> tuple[Any, Any]:
    """By hand: sums over the number of elements a channel."""
    count = tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float32)
    mean = tf.reduce_sum(x, AXES) / count
    return mean, tf.reduce_sum(tf.math.squared_difference(x, mean), AXES) / count


def weighted(x: Any, _: Any) -> tuple[Any, Any]:
    """Examples that weigh differently, as padded ones do."""
    weights = tf.reshape(tf.compat.v1.placeholder(tf.float32, [None]), [-1, 1, 1, 1])
    found: tuple[Any, Any] = tf.nn.weighted_moments(x, AXES, weights)
    return found


def of_towers(x: Any, _: Any) -> tuple[Any, Any]:
    """Two halves of a batch, whose moments are added and halved."""
    halves = tf.split(x, 2)
    mean = tf.add_n([tf.reduce_mean(half, AXES) for half in halves]) / 2.0
    second = tf.add_n([tf.reduce_mean(tf.square(half), AXES) for half in halves]) / 2.0
    return mean, second - tf.square(mean)


def of_replicas(x: Any, _: Any) -> tuple[Any, Any]:
    """Moments summed over replicas, and divided by their number."""
    group = tf.constant([[0, 1]])
    mean = tf.raw_ops.CrossReplicaSum(input=tf.reduce_mean(x, AXES), group_assignment=group) * 0.5
    second = tf.raw_ops.CrossReplicaSum(input=tf.reduce_mean(tf.square(x), AXES), group_assignment=group) * 0.5
    return mean, second - tf.square(mean)


def joined_for_replicas(x: Any, _: Any) -> tuple[Any, Any]:
    """Both moments joined, summed over replicas in one go, divided and split again."""
    both = tf.concat([tf.reduce_mean(x, AXES), tf.reduce_mean(tf.square(x), AXES)], 0)
    summed = tf.raw_ops.CrossReplicaSum(input=both, group_assignment=tf.constant([[0, 1]]))
    mean, second = tf.split(summed / 2.0, 2)
    return mean, second - tf.square(mean)


def stacked_for_replicas(x: Any, _: Any) -> tuple[Any, Any]:
    """The same with a stack, of which the parts are taken by their number."""
    both = tf.stack([tf.reduce_mean(x, AXES), tf.reduce_mean(tf.square(x), AXES)])
    summed = 0.5 * tf.raw_ops.CrossReplicaSum(input=both, group_assignment=tf.constant([[0, 1]]))
    return summed[0], summed[1] - tf.square(summed[0])


def unstacked_for_replicas(x: Any, _: Any) -> tuple[Any, Any]:
    """The same, unstacked."""
    both = tf.stack([tf.reduce_mean(x, AXES), tf.reduce_mean(tf.square(x), AXES)])
    mean, second = tf.unstack(tf.raw_ops.CrossReplicaSum(input=both, group_assignment=tf.constant([[0, 1]])) * 0.5)
    return mean, second - tf.square(mean)


def by_product(x: Any, _: Any) -> tuple[Any, Any]:
    """A row of ones, multiplied with what is flattened to (elements, channels)."""
    flat = tf.reshape(x, [-1, x.shape[-1]])
    count = tf.cast(tf.shape(flat)[0], tf.float32)
    ones = tf.fill([1, tf.shape(flat)[0]], 1.0)
    mean = tf.squeeze(tf.matmul(ones, flat), 0) / count
    return mean, tf.squeeze(tf.matmul(ones, tf.square(flat - mean)), 0) / count


FORMS: tuple[Moments, ...] = (
    of_tensorflow_0,
    of_tensorflow_1,
    shifted_by_the_average,
    raw,
    by_size,
    weighted,
    of_towers,
    of_replicas,
    joined_for_replicas,
    stacked_for_replicas,
    unstacked_for_replicas,
    by_product,
)


def normalise(x: Any, name: str, moments: Moments, phase: Any | None) -> Any:
    """One layer with these moments: for training, or switched where there is a phase."""
    channels, v1 = x.shape[-1:], tf.compat.v1
    with v1.variable_scope(name):
        beta = v1.get_variable("beta", channels, initializer=v1.zeros_initializer())
        mean = v1.get_variable("mean", channels, initializer=v1.zeros_initializer(), trainable=False)
        variance = v1.get_variable("variance", channels, initializer=v1.ones_initializer(), trainable=False)
        batch_mean, batch_variance = moments(x, mean)
        for variable, value in ((mean, batch_mean), (variance, batch_variance)):
            v1.add_to_collection(styles.UPDATE_OPS, v1.assign(variable, variable * 0.9 + value * 0.1))
        if phase is not None:
            batch_mean, batch_variance = v1.cond(
                phase,
                lambda: (tf.identity(batch_mean), tf.identity(batch_variance)),
                lambda: (tf.identity(mean), tf.identity(variance)),
            )
        return tf.nn.batch_normalization(x, batch_mean, batch_variance, beta, None, 1e-3)


@pytest.mark.parametrize("moments", FORMS)
@pytest.mark.parametrize("kind", ["wired", "switched", "forgotten", "static"])
def test_moments_of_all_years(moments: Moments, kind: str, tmp_path: Path) -> None:
    """Two layers, two updates each with decay 0.9, which the train op runs where it is told to."""

    def build() -> None:
        phase = tf.compat.v1.placeholder(tf.bool, [], name="phase") if kind == "switched" else None
        y = styles.images(16, 8, 8, 3) if kind == "static" else styles.images()
        for name in ("first", "second"):
            y = tf.nn.relu(normalise(styles.conv(y, 4, name), name, moments, phase))
        loss = styles.loss_of(y)
        if kind == "forgotten":
            styles.minimize(loss)
        else:
            styles.wired(loss)

    facts = styles.facts_of(build, tmp_path / "graph.meta")
    assert [layer.name for layer in facts.layers] == ["first", "second"]
    for layer in facts.layers:
        assert [site.mode for site in layer.sites] == [Mode.SWITCHED if kind == "switched" else Mode.TRAIN]
        assert sorted((update.role.value, update.variable) for update in layer.updates) == [
            (Role.MEAN.value, f"{layer.name}/mean"),
            (Role.VARIANCE.value, f"{layer.name}/variance"),
        ]
        assert [update.decay for update in layer.updates] == [pytest.approx(0.9)] * 2
        assert all(bool(update.train_ops) is (kind != "forgotten") for update in layer.updates)


@pytest.mark.parametrize("keep_dims", [True, False])
def test_weights_hold_no_batch(keep_dims: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """Standardised weights, scaled by a gain, are no batch norm."""

    def build() -> None:
        kernel = tf.compat.v1.get_variable("kernel", [3, 3, 3, 8])
        gain = tf.compat.v1.get_variable("gain", [8], initializer=tf.compat.v1.ones_initializer())
        mean, variance = tf.nn.moments(kernel, AXES, keepdims=keep_dims)
        kernel = (kernel - mean) / tf.sqrt(variance + 1e-5) * gain
        styles.minimize(styles.loss_of(tf.nn.relu(tf.nn.conv2d(styles.images(), kernel, 1, "SAME"))))

    assert styles.facts_of(build, tmp_path / "graph.meta").layers == ()


def test_standardised_embeddings_are_no_layer(tmp_path: Path) -> None:
    """What is standardised for a loss alone, and multiplied with itself, is no batch norm."""

    def build() -> None:
        embedded = tf.reduce_mean(tf.nn.relu(styles.conv(styles.images(), 4, "embed")), [1, 2])
        mean, variance = tf.nn.moments(embedded, [0])
        z = (embedded - mean) / tf.sqrt(variance + 1e-4)
        styles.minimize(styles.loss_of(tf.matmul(z, z, transpose_a=True) - tf.eye(4)))

    assert styles.facts_of(build, tmp_path / "graph.meta").layers == ()


@pytest.mark.parametrize("kept", ["sums", "averages", "constants"])
def test_standardised_inputs_are_no_layer(kept: str, tmp_path: Path) -> None:
    """A running mean and deviation of what is fed (sums and a count, averages, or measured once) are no batch norm."""

    def variable(name: str, value: float, *shape: int) -> Any:
        start = tf.compat.v1.constant_initializer(value)
        return tf.compat.v1.get_variable(name, shape, initializer=start, trainable=False)

    def build() -> None:
        v1 = tf.compat.v1
        x = v1.placeholder(tf.float32, [None, 6], name="observations")
        first, second = variable("first", 0.0, 6), variable("second", 1.0, 6)
        mean, variance = first, second
        if kept == "sums":
            count = variable("count", 1e-2)
            mean, variance = first / count, second / count - tf.square(first / count)
            sums = ((first, tf.reduce_sum(x, 0)), (second, tf.reduce_sum(tf.square(x), 0)))
            tf.group(
                v1.assign_add(count, tf.cast(tf.shape(x)[0], tf.float32)), *(v1.assign_add(*pair) for pair in sums)
            )
        if kept == "averages":
            moments = zip((first, second), tf.nn.moments(x, [0]), strict=True)
            tf.group(*(v1.assign_sub(average, (average - value) * 0.01) for average, value in moments))
        standardised = tf.clip_by_value((x - mean) / tf.sqrt(tf.maximum(variance, 1e-2)), -5.0, 5.0)
        dense = tf.matmul(standardised, v1.get_variable("kernel", [6, 4]))
        styles.minimize(styles.loss_of(tf.nn.relu(dense)))

    assert styles.facts_of(build, tmp_path / "graph.meta").layers == ()
