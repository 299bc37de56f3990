"""Batch moments in the forms of many years and hands, and the formulas that normalise with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1
Pair = tuple[Any, Any]
Axes = Sequence[int]
EPSILON = 1e-3


def _by_hand(x: Any, axes: Axes) -> Pair:
    mean = tf.reduce_mean(x, axes, keepdims=True)
    return tf.reduce_mean(x, axes), tf.reduce_mean(tf.square(x - mean), axes)


def _squared_difference(x: Any, axes: Axes) -> Pair:
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, tf.stop_gradient(mean)), axes, keepdims=True)
    return tf.squeeze(mean, axes), tf.squeeze(variance, axes)


def _minus_square(x: Any, axes: Axes) -> Pair:
    mean = tf.reduce_mean(x, axes)
    return mean, tf.maximum(tf.reduce_mean(tf.square(x), axes) - tf.square(mean), 0.0)


def _product(x: Any, axes: Axes) -> Pair:
    mean = tf.reduce_mean(x, axes)
    return mean, tf.reduce_mean(x * x, axes) - mean * mean


def _sufficient(x: Any, axes: Axes) -> Pair:
    return tf.nn.normalize_moments(*tf.nn.sufficient_statistics(x, axes))


def _sufficient_shifted(x: Any, axes: Axes) -> Pair:
    """TensorFlow 1.0 to 1.2: data shifted by their own mean, a reciprocal count."""
    shift = tf.stop_gradient(tf.reduce_mean(x, axes, keepdims=True))
    count, mean_ss, variance_ss, _ = tf.nn.sufficient_statistics(x, axes, shift=shift)
    divisor = tf.math.reciprocal(count, name="divisor")
    shifted_mean = tf.multiply(mean_ss, divisor, name="shifted_mean")
    mean = tf.add(shifted_mean, tf.squeeze(shift, axes), name="mean")
    return mean, tf.subtract(tf.multiply(variance_ss, divisor), tf.square(shifted_mean), name="variance")


def _weighted(x: Any, axes: Axes) -> Pair:
    return tf.nn.weighted_moments(x, axes, frequency_weights=tf.ones_like(x))


def _towers(x: Any, axes: Axes) -> Pair:
    """Two towers, each with its mean and variance; what is between them is added."""
    found = [tf.nn.moments(half, axes) for half in tf.split(x, 2)]
    mean = tf.add_n([m for m, _ in found]) / 2.0
    within = tf.add_n([v for _, v in found]) / 2.0
    return mean, within + tf.add_n([tf.square(m - mean) for m, _ in found]) / 2.0


def _towers_squares(x: Any, axes: Axes) -> Pair:
    halves = tf.split(x, 2)
    mean = tf.add_n([tf.reduce_mean(half, axes) for half in halves]) * 0.5
    square = tf.add_n([tf.reduce_mean(tf.square(half), axes) for half in halves]) * 0.5
    return mean, square - tf.square(mean)


def _stacked(x: Any, axes: Axes) -> Pair:
    halves = tf.split(x, 2)
    mean = tf.reduce_mean(tf.stack([tf.reduce_mean(half, axes) for half in halves]), 0)
    square = tf.reduce_mean(tf.stack([tf.reduce_mean(tf.square(half), axes) for half in halves]), 0)
    return mean, square - tf.square(mean)


def _two_steps(x: Any, _: Axes) -> Pair:
    """First over the pixels of an image, then over the batch."""
    mean = tf.reduce_mean(tf.reduce_mean(x, [1, 2]), 0)
    return mean, tf.reduce_mean(tf.reduce_mean(tf.square(x - mean), [1, 2]), 0)


def _count(x: Any, axes: Axes) -> Any:
    shape = tf.shape(x)
    return tf.cast(tf.reduce_prod([shape[axis] for axis in axes]), tf.float32)


def _counted(x: Any, axes: Axes) -> Pair:
    count = _count(x, axes)
    mean = tf.reduce_sum(x, axes, keepdims=True) / count
    variance = tf.reduce_sum(tf.square(x - mean), axes) / count
    return tf.squeeze(mean, axes), variance


def _reciprocal_count(x: Any, axes: Axes) -> Pair:
    """TensorFlow 0.x: a count taken from the shape, its reciprocal, two sums."""
    divisor = tf.math.reciprocal(_count(x, axes))
    mean = tf.reduce_sum(x, axes) * divisor
    return mean, tf.reduce_sum(tf.square(x), axes) * divisor - tf.square(mean)


def _flat(x: Any) -> Any:
    return tf.reshape(x, [-1, x.shape[-1]])


def _matmul(x: Any, _: Axes) -> Pair:
    rows = _flat(x)
    ones = tf.ones([1, tf.shape(rows)[0]])
    count = tf.cast(tf.shape(rows)[0], tf.float32)
    mean = tf.squeeze(tf.matmul(ones, rows) / count, 0)
    return mean, tf.squeeze(tf.matmul(ones, tf.square(rows)) / count, 0) - tf.square(mean)


def _einsum(x: Any, _: Axes) -> Pair:
    rows = _flat(x)
    count = tf.cast(tf.shape(rows)[0], tf.float32)
    mean = tf.einsum("nc->c", rows) / count
    return mean, tf.einsum("nc->c", tf.square(rows - mean)) / count


def _half(x: Any, axes: Axes) -> Pair:
    """Activations of low precision, moments in float32."""
    return tf.nn.moments(tf.cast(tf.cast(x, tf.float16), tf.float32), axes)


def _stop_gradient_shift(x: Any, axes: Axes) -> Pair:
    """tf.nn.moments of TensorFlow 1.1."""
    shift = tf.stop_gradient(tf.reduce_mean(x, axes, keepdims=True))
    shifted = tf.reduce_mean(x - shift, axes, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, shift), axes, keepdims=True) - tf.square(shifted)
    return tf.squeeze(shifted + shift, axes), tf.squeeze(variance, axes)


def _pooled(x: Any, _: Axes) -> Pair:
    """The mean over pixels as a pooling, then over the batch."""
    size = [1, int(x.shape[1]), int(x.shape[2]), 1]
    mean, square = (
        tf.reduce_mean(tf.squeeze(v1.nn.avg_pool(of, size, size, "VALID"), [1, 2]), 0) for of in (x, tf.square(x))
    )
    return mean, square - tf.square(mean)


def _joined(x: Any, axes: Axes) -> Pair:
    """Both sums in one vector, as sums over replicas are sent."""
    both = tf.concat([tf.reduce_mean(x, axes), tf.reduce_mean(tf.square(x), axes)], 0)
    mean, square = tf.split(both, 2)
    return mean, square - tf.square(mean)


def _double(x: Any, axes: Axes) -> Pair:
    mean, variance = tf.nn.moments(tf.cast(x, tf.float64), axes)
    return tf.cast(mean, tf.float32), tf.cast(variance, tf.float32)


MOMENTS: dict[str, Callable[[Any, Axes], Pair]] = {
    "nn_moments": v1.nn.moments,
    "keep_dims": lambda x, axes: v1.nn.moments(x, axes, keep_dims=True),
    "by_hand": _by_hand,
    "squared_difference": _squared_difference,
    "minus_square": _minus_square,
    "product": _product,
    "sufficient": _sufficient,
    "sufficient_shifted": _sufficient_shifted,
    "stop_gradient_shift": _stop_gradient_shift,
    "weighted": _weighted,
    "towers": _towers,
    "towers_squares": _towers_squares,
    "stacked": _stacked,
    "two_steps": _two_steps,
    "counted": _counted,
    "reciprocal_count": _reciprocal_count,
    "matmul": _matmul,
    "einsum": _einsum,
    "double": _double,
    "pooled": _pooled,
    "joined": _joined,
    "flattened": lambda x, _: tf.nn.moments(_flat(x), [0]),
    "half": _half,
    "reduce_variance": lambda x, axes: (tf.reduce_mean(x, axes), tf.math.reduce_variance(x, axes)),
    "reduce_std": lambda x, axes: (tf.reduce_mean(x, axes), tf.square(tf.math.reduce_std(x, axes))),
}
"""(x, axes) -> mean and variance, by channel; all of them compute the same numbers."""


def _std_first(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any) -> Any:
    return tf.multiply((x - mean) / tf.sqrt(variance + EPSILON), gamma) + beta


def _scale_shift(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any) -> Any:
    scale = gamma / tf.sqrt(variance + EPSILON)
    return x * scale + (beta - mean * scale)


FORMULAS: dict[str, Callable[[Any, Any, Any, Any, Any], Any]] = {
    "nn": lambda x, m, v, g, b: tf.nn.batch_normalization(x, m, v, b, g, EPSILON),
    "divide": lambda x, m, v, g, b: g * (x - m) / tf.sqrt(v + EPSILON) + b,
    "rsqrt": lambda x, m, v, g, b: (x - m) * (tf.math.rsqrt(v + EPSILON) * g) + b,
    "scale_shift": _scale_shift,
    "power": lambda x, m, v, g, b: b + g * ((x - m) * tf.pow(v + EPSILON, -0.5)),
    "split_product": lambda x, m, v, g, b: (x - m) * tf.math.rsqrt(v + EPSILON) * g + b,
    "std_first": _std_first,
    "no_beta": lambda x, m, v, g, _: tf.nn.batch_normalization(x, m, v, None, g, EPSILON),
    "no_gamma": lambda x, m, v, _, b: tf.nn.batch_normalization(x, m, v, b, None, EPSILON),
    "largest_epsilon": lambda x, m, v, g, b: g * (x - m) / tf.sqrt(tf.maximum(v, EPSILON)) + b,
    "epsilon_outside": lambda x, m, v, g, b: g * (x - m) / (tf.sqrt(v) + EPSILON) + b,
    "gamma_plus_one": lambda x, m, v, g, b: (x - m) * tf.math.rsqrt(v + EPSILON) * (1.0 + (g - 1.0)) + b,
    "gamma_exponent": lambda x, m, v, g, b: tf.nn.batch_normalization(x, m, v, b, tf.exp(g - 1.0), EPSILON),
    "no_nan": lambda x, m, v, g, b: tf.math.divide_no_nan(x - m, tf.sqrt(v + EPSILON)) * g + b,
    "one_op": lambda x, m, v, g, b: v1.nn.batch_norm_with_global_normalization(
        x, m, v, b, g, EPSILON, scale_after_normalization=True
    ),
    "plain": lambda x, m, v, *_: (x - m) / tf.sqrt(v + EPSILON),
}
"""(x, mean, variance, gamma, beta) -> the normalised value."""
