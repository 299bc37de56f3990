"""Variants of what a layer computes: moments, mode, averages, look-alikes, places that share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import tensorflow as tf
from other_hands import (
    Script,
    Variant,
    affine,
    conv,
    images,
    layers,
    normalised,
    slim,
    statistics,
    trained,
    update_ops,
    v1,
)

_AXES = [0, 1, 2]


def layer_variants() -> Iterator[Variant]:
    """All, by kind."""
    for form in _MOMENTS:
        yield Variant(f"moments {form}, updates run", "", partial(moments, form, run=True))
        yield Variant(f"moments {form}, never", "BN201", partial(moments, form, run=False), resource=form == "flat")
    yield Variant("mode: an integer variable that stays 0", "BN206", partial(moded, _integer), steps=3)
    yield Variant("mode: the same, If", "BN206", partial(moded, _integer), steps=3, resource=True, v2_control_flow=True)
    yield Variant("mode: a placeholder fed False", "BN206", partial(moded, _fed, fed=False), steps=60)
    yield Variant("mode: a placeholder fed True", "", partial(moded, _fed, fed=True), steps=60)
    yield Variant("mode: tf.layers' default", "BN204", lambda: trained(layers.batch_normalization(conv(images()))))
    yield Variant(
        "mode: TF-slim told False", "BN204", lambda: trained(slim.batch_norm(conv(images()), is_training=False))
    )
    for kind, resource in ((tf.int64, False), (tf.float32, True)):
        counted = partial(counting, kind)
        yield Variant(f"{kind.name} counter stuck", "BN224", partial(counted, run=False), steps=60, resource=resource)
        yield Variant(f"{kind.name} counter counts", "", partial(counted, run=True), steps=60, resource=resource)
    for name, build in _NONE.items():
        yield Variant(f"none: {name}", "BN001", build)
    yield Variant("validation by tf.layers in train mode", "BN221", partial(validated, _tf_layers, mode=True))
    yield Variant("validation by TF-slim in train mode", "BN221", partial(validated, _slim, mode=True), resource=True)
    yield Variant("validation by tf.layers in eval mode", "", partial(validated, _tf_layers, mode=False))
    yield Variant("one of three tf.layers always in train mode", "BN222", partial(mixed, _tf_layers))
    yield Variant("one of three of TF-slim always in train mode", "BN222", partial(mixed, _slim))
    yield Variant("the same, If", "BN222", partial(mixed, _tf_layers), resource=True, v2_control_flow=True)
    yield Variant("one of tf.layers at three depths", "BN223", partial(shared, _tf_layers, 3))
    yield Variant("one of TF-slim at two depths", "BN223", partial(shared, _slim, 2))
    yield Variant("one at one depth", "", partial(shared, _tf_layers, 1))
    for resource in (False, True):
        unrolled = "time steps unrolled" + " on resources" * resource
        yield Variant(f"{unrolled}, updates run", "", partial(in_rows, run=True), resource=resource)
        yield Variant(f"{unrolled}, forgotten", "BN201", partial(in_rows, run=False), resource=resource)
    yield Variant("time steps unrolled, one row for all", "BN223", partial(in_rows, run=True, row=lambda _: 0))
    yield Variant("time steps with a slice assigned", "", partial(in_rows, run=True, written=_sliced), resource=True)
    yield Variant("a layer without a living channel", "BN107", lambda: _fading(1e-9), steps=60)
    yield Variant("the same layer, living", "", lambda: _fading(1.0), steps=60)


def _by_inverse(h: Any) -> tuple[Any, Any]:
    size = tf.shape(h)
    share = 1.0 / tf.cast(size[0] * size[1] * size[2], tf.float32)
    mean = tf.reduce_sum(h, _AXES) * share
    return mean, tf.reduce_sum(tf.square(h - mean), _AXES) * share


def _by_squares(h: Any) -> tuple[Any, Any]:
    mean = tf.reduce_mean(h, _AXES)
    return mean, tf.reduce_mean(h * h, _AXES) - mean * mean


def _weighted(h: Any) -> tuple[Any, Any]:
    mean, variance = v1.nn.weighted_moments(h, _AXES, tf.ones_like(h))
    return tf.reshape(mean, [4]), tf.reshape(variance, [4])


def _flat(h: Any) -> tuple[Any, Any]:
    mean, variance = tf.nn.moments(tf.reshape(h, [-1, 4]), [0])
    return mean, variance


_MOMENTS = {"by inverse": _by_inverse, "by squares": _by_squares, "weighted": _weighted, "flat": _flat}


def moments(form: str, *, run: bool) -> Script:
    """Hand-written averages over moments of one form."""
    h = conv(images())
    (mean, variance), (gamma, beta) = statistics(4, names=("pop_mean", "pop_var")), affine()
    of_batch, spread = _MOMENTS[form](h)
    updates = [
        v1.assign_sub(mean, 0.1 * (mean - of_batch)),
        v1.assign(variance, variance * 0.9 + spread * 0.1),
    ]
    normalised(h, mean, variance, gamma, beta)
    return trained(normalised(h, of_batch, spread, gamma, beta), updates if run else ())


def _integer() -> Any:
    mode = v1.get_variable("mode", [], tf.int32, v1.zeros_initializer(), trainable=False)
    return tf.equal(mode, 1)


def _fed() -> Any:
    return v1.placeholder(tf.bool, [], "phase_train")


def moded(predicate: Callable[[], Any], *, fed: bool | None = None) -> Script:
    """Updates inside the branch that uses the batch."""
    h = conv(images())
    (mean, variance), (gamma, beta) = statistics(4), affine()
    on = predicate()

    def with_update() -> tuple[Any, Any]:
        of_batch, spread = tf.nn.moments(h, _AXES)
        updates = [v1.assign(mean, 0.9 * mean + 0.1 * of_batch), v1.assign(variance, 0.9 * variance + 0.1 * spread)]
        with tf.control_dependencies(updates):
            return tf.identity(of_batch), tf.identity(spread)

    used = v1.cond(on, with_update, lambda: (tf.identity(mean), tf.identity(variance)))
    return trained(normalised(h, *used, gamma, beta), fed={} if fed is None else {on: fed})


def counting(kind: Any, *, run: bool) -> Script:
    """An average whose decay rises with a count of updates."""
    h = conv(images())
    gamma, beta = affine()
    of_batch, spread = tf.nn.moments(h, _AXES)
    count = v1.get_variable("updates", [], kind, v1.zeros_initializer(), trainable=False)
    average = v1.train.ExponentialMovingAverage(0.9, num_updates=count)
    updates = [average.apply([of_batch, spread]), *([v1.assign_add(count, tf.ones([], kind))] if run else [])]
    normalised(h, average.average(of_batch), average.average(spread), gamma, beta)
    return trained(normalised(h, of_batch, spread, gamma, beta), updates)


def _over(axes: list[int]) -> Script:
    h = conv(images())
    gamma, beta = affine()
    mean, variance = tf.nn.moments(h, axes, keepdims=True)
    return trained(normalised(h, mean, variance, gamma, beta))


def _standardised_weights() -> Script:
    kernel = v1.get_variable("w", [3, 3, 3, 4])
    mean, variance = tf.nn.moments(kernel, _AXES, keepdims=True)
    return trained(tf.nn.conv2d(images(), (kernel - mean) / tf.sqrt(variance + 1e-5), 1, "SAME"))


_NONE: dict[str, Callable[[], Script]] = {
    "layer norm": partial(_over, [1, 2, 3]),
    "instance norm": partial(_over, [1, 2]),
    "standardised weights": _standardised_weights,
}


def _tf_layers(x: Any, mode: Any, **more: Any) -> Any:
    return layers.batch_normalization(x, momentum=0.9, training=mode, **more)


def _slim(x: Any, mode: Any, name: str | None = None, **more: Any) -> Any:
    return slim.batch_norm(x, decay=0.9, is_training=mode, scope=name, **more)


def validated(layer: Callable[..., Any], *, mode: bool) -> Script:
    """The layer a second time, on validation data."""
    kernel = v1.get_variable("w", [3, 3, 3, 4])
    h = layer(tf.nn.conv2d(images(), kernel, 1, "SAME"), True, name="bn")  # noqa: FBT003 - the mode
    script = trained(h, update_ops())
    other = v1.placeholder(tf.float32, [None, 6, 6, 3], "validation")
    tf.reduce_mean(layer(tf.nn.conv2d(other, kernel, 1, "SAME"), mode, name="bn", reuse=True))
    return script


def mixed(layer: Callable[..., Any]) -> Script:
    """Three layers, of which the second ignores the mode."""
    h, mode = images(), v1.placeholder_with_default(input=True, shape=[], name="is_train")
    for number in range(3):
        h = tf.nn.relu(layer(conv(h, name=f"c{number}"), True if number == 1 else mode))
    return trained(h, update_ops())


def shared(layer: Callable[..., Any], depths: int) -> Script:
    """One block, applied again and again."""
    h = conv(images(), name="first")
    for _ in range(depths):
        with v1.variable_scope("block", reuse=v1.AUTO_REUSE):
            h = conv(tf.nn.relu(layer(h, True, name="bn")))  # noqa: FBT003 - the mode
    return trained(h, update_ops())


def _scattered(table: Any, row: int, value: Any) -> Any:
    return v1.scatter_update(table, [row], [value])


def _sliced(table: Any, row: int, value: Any) -> Any:
    return table[row].assign(value)


def in_rows(
    *, run: bool, row: Callable[[int], int] = lambda step: step, written: Callable[..., Any] = _scattered
) -> Script:
    """A recurrent network unrolled in Python: the statistics of each time step are a row of one variable."""
    x = tf.transpose(tf.reshape(images(16), [16, 6, 18]), [1, 0, 2])
    inwards, onwards = v1.get_variable("W", [18, 8]), v1.get_variable("U", [8, 8])
    (mean, variance), (gamma, beta) = statistics(6, 8), affine(8)
    h: Any = tf.zeros([16, 8])
    updates = []
    for step in range(6):
        z = tf.matmul(x[step], inwards) + tf.matmul(h, onwards)
        of_batch, spread = tf.nn.moments(z, [0])
        at = row(step)
        updates.append(written(mean, at, mean[at] * 0.9 + of_batch * 0.1))
        updates.append(written(variance, at, variance[at] * 0.9 + spread * 0.1))
        h = tf.tanh(normalised(z, of_batch, spread, gamma, beta))
        normalised(z, mean[at], variance[at], gamma, beta)
    return trained(h, updates if run else ())


def _fading(scale: float) -> Script:
    h = layers.batch_normalization(conv(images() * scale, 8), momentum=0.5, training=True)
    return trained(h, update_ops())
