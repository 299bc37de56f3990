"""Ways in which people write batch norm and its training step, as real TensorFlow graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from bncheck.backbones import slim_compat
from bncheck.facts.layers import Facts
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources.graph.graphs import read_graph

slim: Any = slim_compat.load_slim()
v1 = tf.compat.v1
UPDATE_OPS = v1.GraphKeys.UPDATE_OPS

Build = Callable[[], None]


def facts_of(build: Build, path: Path, *, resource: bool = False, v2_control_flow: bool = False) -> Facts:
    """Builds a graph, exports it as `.meta`, and gives what bncheck recognises in it."""
    previous_resource = v1.resource_variables_enabled()
    previous_control = v1.control_flow_v2_enabled()
    (v1.enable_resource_variables if resource else v1.disable_resource_variables)()
    (v1.enable_control_flow_v2 if v2_control_flow else v1.disable_control_flow_v2)()
    try:
        with tf.Graph().as_default():
            build()
            if v1.global_variables():
                v1.train.Saver()
            v1.train.export_meta_graph(str(path))
    finally:
        (v1.enable_resource_variables if previous_resource else v1.disable_resource_variables)()
        (v1.enable_control_flow_v2 if previous_control else v1.disable_control_flow_v2)()
    return recognise(read_graph(path), Options())


def images(*shape: int | None) -> Any:
    """A placeholder named x of the given shape, 8x8 RGB images unless told otherwise."""
    return v1.placeholder(tf.float32, shape or (None, 8, 8, 3), name="x")


def conv(x: Any, channels: int, name: str) -> Any:
    """A 3x3 convolution without bias."""
    kernel = v1.get_variable(f"{name}/kernel", [3, 3, x.shape[-1], channels])
    return tf.nn.conv2d(x, kernel, 1, "SAME", name=name)


def loss_of(y: Any) -> Any:
    """Any scalar that depends on y."""
    return tf.reduce_mean(tf.square(y), name="loss")


def minimize(loss: Any, **keywords: Any) -> Any:
    """Momentum's train op."""
    return v1.train.MomentumOptimizer(0.1, 0.9).minimize(
        loss, global_step=v1.train.get_or_create_global_step(), **keywords
    )


def wired(loss: Any) -> Any:
    """The textbook form: control dependencies on UPDATE_OPS around `minimize`."""
    with tf.control_dependencies(v1.get_collection(UPDATE_OPS)):
        return minimize(loss)


def two_layers(normalise: Callable[[Any, str], Any]) -> Any:
    """Two convolutions, each normalised and rectified."""
    y = images()
    for name in ("first", "second"):
        y = tf.nn.relu(normalise(conv(y, 4, name), name))
    return y


def slim_norm(**keywords: Any) -> Callable[[Any, str], Any]:
    """slim.batch_norm in the scope of its layer."""
    return lambda x, name: slim.batch_norm(x, scope=f"{name}/BatchNorm", **({"decay": 0.95} | keywords))


def moments_with_average(x: Any, name: str, phase: Any, decay: float = 0.9) -> Any:
    """The most copied hand-rolled form: an ExponentialMovingAverage object under a condition."""
    with v1.variable_scope(name):
        beta = v1.get_variable("beta", x.shape[-1:], initializer=v1.zeros_initializer())
        gamma = v1.get_variable("gamma", x.shape[-1:], initializer=v1.ones_initializer())
        batch_mean, batch_var = tf.nn.moments(x, list(range(len(x.shape) - 1)), name="moments")
        average = v1.train.ExponentialMovingAverage(decay=decay)

        def with_update() -> Any:
            with tf.control_dependencies([average.apply([batch_mean, batch_var])]):
                return tf.identity(batch_mean), tf.identity(batch_var)

        mean, var = v1.cond(phase, with_update, lambda: (average.average(batch_mean), average.average(batch_var)))
        return tf.nn.batch_normalization(x, mean, var, beta, gamma, 1e-3)


def assigned_population(x: Any, name: str, *, training: bool, decay: float = 0.9) -> Any:
    """Hand-rolled with `tf.assign` in place: the blog post form."""
    with v1.variable_scope(name, reuse=v1.AUTO_REUSE):
        scale = v1.get_variable("scale", x.shape[-1:], initializer=v1.ones_initializer())
        offset = v1.get_variable("offset", x.shape[-1:], initializer=v1.zeros_initializer())
        pop_mean = v1.get_variable("pop_mean", x.shape[-1:], initializer=v1.zeros_initializer(), trainable=False)
        pop_var = v1.get_variable("pop_var", x.shape[-1:], initializer=v1.ones_initializer(), trainable=False)
        if not training:
            return tf.nn.batch_normalization(x, pop_mean, pop_var, offset, scale, 1e-3)
        batch_mean, batch_var = tf.nn.moments(x, list(range(len(x.shape) - 1)))
        train_mean = v1.assign(pop_mean, pop_mean * decay + batch_mean * (1 - decay))
        train_var = v1.assign(pop_var, pop_var * decay + batch_var * (1 - decay))
        with tf.control_dependencies([train_mean, train_var]):
            return tf.nn.batch_normalization(x, batch_mean, batch_var, offset, scale, 1e-3)


def by_formula(x: Any, name: str, *, training: bool) -> Any:
    """Gives gamma * (x - mean) / sqrt(var + eps) + beta, written out."""
    with v1.variable_scope(name):
        gamma = v1.get_variable("g", x.shape[-1:], initializer=v1.ones_initializer())
        beta = v1.get_variable("b", x.shape[-1:], initializer=v1.zeros_initializer())
        running_mean = v1.get_variable("m", x.shape[-1:], initializer=v1.zeros_initializer(), trainable=False)
        running_var = v1.get_variable("v", x.shape[-1:], initializer=v1.ones_initializer(), trainable=False)
        if not training:
            return gamma * (x - running_mean) / tf.sqrt(running_var + 1e-4) + beta
        mean = tf.reduce_mean(x, [0, 1, 2])
        var = tf.reduce_mean(tf.square(x - mean), [0, 1, 2])
        for variable, value in ((running_mean, mean), (running_var, var)):
            v1.add_to_collection(UPDATE_OPS, v1.assign_sub(variable, 0.1 * (variable - value)))
        return gamma * (x - mean) / tf.sqrt(var + 1e-4) + beta
