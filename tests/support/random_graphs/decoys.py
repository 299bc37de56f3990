"""What standardises or averages and is no batch norm."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

v1 = tf.compat.v1


def _vector(name: str, size: int, value: float, *, trainable: bool = True) -> Any:
    return v1.get_variable(name, [size], initializer=v1.constant_initializer(value), trainable=trainable)


def _normalised(x: Any, axes: list[int], scope: str) -> Any:
    with v1.variable_scope(scope, reuse=v1.AUTO_REUSE):
        mean, variance = v1.nn.moments(x, axes, keep_dims=True)
        gamma, beta = _vector("gamma", int(x.shape[-1]), 1.0), _vector("beta", int(x.shape[-1]), 0.0)
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-5)


def instance(x: Any) -> Any:
    """Over the pixels of each image."""
    return _normalised(x, [1, 2], "instance") if len(x.shape) == 4 else layer(x)


def layer(x: Any) -> Any:
    """Over all features of each sample."""
    return _normalised(x, list(range(1, len(x.shape))), "layer_norm")


def group(x: Any) -> Any:
    """Over pixels and the channels of a group."""
    if len(x.shape) != 4:
        return layer(x)
    height, width, channels = (int(size) for size in x.shape[1:])
    grouped = tf.reshape(x, [-1, height, width, 2, channels // 2])
    mean, variance = v1.nn.moments(grouped, [1, 2, 4], keep_dims=True)
    y = tf.reshape((grouped - mean) / tf.sqrt(variance + 1e-5), [-1, height, width, channels])
    with v1.variable_scope("group", reuse=v1.AUTO_REUSE):
        return y * _vector("gamma", channels, 1.0) + _vector("beta", channels, 0.0)


def weight_standardised(x: Any) -> Any:
    """A convolution (or dense layer) whose kernel is standardised."""
    with v1.variable_scope("standardised", reuse=v1.AUTO_REUSE):
        shape = [3, 3, int(x.shape[-1]), 4] if len(x.shape) == 4 else [int(x.shape[-1]), 4]
        kernel = v1.get_variable("kernel", shape)
        mean, variance = v1.nn.moments(kernel, list(range(len(shape) - 1)), keep_dims=True)
        kernel = (kernel - mean) / tf.sqrt(variance + 1e-5)
        return tf.nn.conv2d(x, kernel, 1, "SAME") if len(x.shape) == 4 else tf.matmul(x, kernel)


def minibatch_deviation(x: Any) -> Any:
    """One number for the whole batch, as another channel (progressive GAN)."""
    deviation = tf.sqrt(tf.reduce_mean(tf.square(x - tf.reduce_mean(x, 0, keepdims=True)), 0) + 1e-8)
    return tf.concat([x, tf.zeros_like(x[..., :1]) + tf.reduce_mean(deviation)], -1)


def l2(x: Any) -> Any:
    """Each feature vector on the unit sphere."""
    return x * tf.math.rsqrt(tf.reduce_sum(tf.square(x), -1, keepdims=True) + 1e-6)


ON_ACTIVATIONS = {
    "instance": instance,
    "layer": layer,
    "group": group,
    "weight_standardised": weight_standardised,
    "minibatch_deviation": minibatch_deviation,
    "l2": l2,
}
"""Decoys that take activations [N, H, W, C] or [N, C] and give such."""


def stored_input(x: Any) -> Any:
    """Images brought to the mean and deviation of the data set."""
    with v1.variable_scope("data", reuse=v1.AUTO_REUSE):
        mean, variance = (_vector(name, 3, value, trainable=False) for name, value in (("mean", 0.1), ("var", 1.2)))
        return (x - mean) / tf.sqrt(variance + 1e-6)


def whitened_input(x: Any) -> Any:
    """tf.image.per_image_standardization, by hand."""
    mean, variance = v1.nn.moments(x, [1, 2, 3], keep_dims=True)
    return (x - mean) / tf.maximum(tf.sqrt(variance), 1.0 / 12.0)


ON_INPUTS = {"stored_input": stored_input, "whitened_input": whitened_input}


def running_return(loss_by_sample: Any) -> tuple[Any, list[Any]]:
    """The loss, scaled by a running mean and variance of itself (scalars); with the ops that keep these."""
    with v1.variable_scope("returns", reuse=v1.AUTO_REUSE):
        mean = v1.get_variable("mean", [], initializer=v1.zeros_initializer(), trainable=False)
        variance = v1.get_variable("var", [], initializer=v1.ones_initializer(), trainable=False)
        now, spread = tf.nn.moments(tf.stop_gradient(loss_by_sample), [0])
        ops = [v1.assign_sub(mean, 0.1 * (mean - now)), v1.assign_sub(variance, 0.1 * (variance - spread))]
        return tf.reduce_mean(loss_by_sample / tf.sqrt(variance + 1e-3)), ops
