"""Small nets with batch norm in many forms, as inference graphs that `compare.convert` takes; weights are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bncheck.compare.litert.convert import EvalGraph
from bncheck.facts.layers import Layer, Linear
from bncheck.sources.graph import protos
from bncheck.testing import batch_norm

CHANNELS = 8
SHAPE = (None, 16, 16, 3)


class Maker:
    """Writes ops into a TensorFlow graph with weights from one seed."""

    def __init__(self, tf: Any, seed: int) -> None:
        self.tf = tf
        self.random = np.random.default_rng(seed)
        self.layers: list[Layer] = []
        """The batch norms, in forward order."""
        self._largest: Any = None
        """max |w| per output channel of the kernel before."""

    def draw(self, *shape: int, scale: float = 1.0) -> Any:
        """Normal values."""
        return self.random.normal(0, scale, shape).astype(np.float32)

    def conv(self, x: Any, channels: int = CHANNELS, size: int = 3, stride: int = 1) -> Any:
        """A convolution without bias."""
        kernel = self.draw(size, size, x.shape[-1], channels, scale=(size * size * x.shape[-1]) ** -0.5)
        self._largest = np.abs(kernel).max(axis=(0, 1, 2))
        return self.tf.nn.conv2d(x, kernel, stride, "SAME")

    def depthwise(self, x: Any) -> Any:
        """A depthwise one."""
        kernel = self.draw(3, 3, x.shape[-1], 1, scale=1 / 3)
        self._largest = np.abs(kernel).max(axis=(0, 1, 3))
        return self.tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")

    def dense(self, x: Any, units: int) -> Any:
        """A dense layer without bias."""
        kernel = self.draw(x.shape[-1], units, scale=x.shape[-1] ** -0.5)
        self._largest = np.abs(kernel).max(axis=0)
        return self.tf.matmul(x, kernel)

    def norm(self, x: Any, *, fused: bool = True, epsilon: float = 1e-3) -> Any:
        """Batch norm with stored statistics."""
        size = x.shape[-1]
        gamma, beta, mean = 1 + self.draw(size, scale=0.2), self.draw(size, scale=0.2), self.draw(size, scale=0.2)
        variance = self.random.uniform(0.5, 2, size).astype(np.float32)
        name = f"bn_{len(self.layers)}"
        linear = Linear(name="", op="", kernel="", channel_max=self._largest.astype(np.float64))
        vectors = {"mean": mean, "variance": variance, "gamma": gamma, "beta": beta}
        self.layers.append(batch_norm(name, channels=size, epsilon=epsilon, linear=linear, **vectors))
        if fused and len(x.shape) == 4:
            return self.tf.compat.v1.nn.fused_batch_norm(
                x, gamma, beta, mean, variance, epsilon, is_training=False, name=name
            )[0]
        return self.tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon, name=name)


def residual(m: Maker, x: Any) -> Any:
    """Inverted residuals: expand, depthwise, project, ADD; pooled to classes."""
    relu6 = m.tf.nn.relu6
    x = relu6(m.norm(m.conv(x)))
    for _ in range(2):
        y = relu6(m.norm(m.conv(x, 16, 1)))
        y = relu6(m.norm(m.depthwise(y)))
        x = x + m.norm(m.conv(y, CHANNELS, 1))
    return m.dense(m.tf.reduce_mean(x, [1, 2]), 5) + m.draw(5)


def unfused(m: Maker, x: Any) -> Any:
    """Batch norm in single ops."""
    for _ in range(2):
        x = m.tf.nn.relu(m.norm(m.conv(x), fused=False))
    return m.tf.reduce_mean(x, [1, 2])


def before_convolution(m: Maker, x: Any) -> Any:
    """Batch norm and RELU before the convolution, so that MUL and ADD stay."""
    x = m.conv(x)
    for _ in range(2):
        x = x + m.conv(m.tf.nn.relu(m.norm(x)))
    return m.tf.reduce_mean(m.tf.nn.relu(m.norm(x)), [1, 2])


def dense(m: Maker, x: Any) -> Any:
    """Dense layers of rank 2 with batch norm."""
    x = m.tf.reshape(x, [-1, 768])
    for units in (32, 16):
        x = m.tf.nn.relu(m.norm(m.dense(x, units)))
    return m.tf.nn.softmax(m.dense(x, 5) + m.draw(5))


def swish(m: Maker, x: Any) -> Any:
    """Swish, squeeze and excite, hard swish."""
    x = m.norm(m.conv(x))
    x = x * m.tf.sigmoid(x)
    weights = m.tf.sigmoid(m.conv(m.tf.reduce_mean(x, [1, 2], keepdims=True), CHANNELS, 1))
    x = m.norm(m.conv(x * weights))
    x = x * m.tf.nn.relu6(x + 3) / 6
    return m.tf.reduce_mean(x, [1, 2])


def prelu(m: Maker, x: Any) -> Any:
    """PReLU and leaky RELU."""
    x = m.norm(m.conv(x))
    alpha = m.draw(1, 1, CHANNELS, scale=0.3)
    x = m.tf.nn.relu(x) + alpha * (x - m.tf.abs(x)) * 0.5
    x = m.tf.nn.leaky_relu(m.norm(m.conv(x)), 0.1)
    return m.tf.reduce_mean(x, [1, 2])


def branches(m: Maker, x: Any) -> Any:
    """Two branches with pooling, joined; then upsampling, explicit padding and a strided convolution."""
    a, b = m.tf.nn.relu(m.norm(m.conv(x))), m.tf.nn.relu(m.norm(m.conv(x, 4, 1)))
    a = m.tf.nn.max_pool2d(a, 2, 2, "SAME")
    b = m.tf.nn.avg_pool2d(b, 2, 2, "SAME")
    x = m.tf.concat([a, b], -1)
    x = m.tf.compat.v1.image.resize_nearest_neighbor(x, [16, 16])
    x = m.tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    kernel = m.draw(3, 3, 12, 6, scale=0.1)
    x = m.tf.nn.relu(m.norm(m.tf.nn.conv2d(x, kernel, 2, "VALID")))
    return m.tf.nn.softmax(m.tf.reshape(x, [-1, 384]) @ m.draw(384, 5, scale=0.05))


def lengthened(m: Maker, x: Any) -> Any:
    """`residual` with an ELU and a FLOOR that it does not have."""
    relu6 = m.tf.nn.relu6
    x = relu6(m.norm(m.conv(x)))
    for number in range(2):
        y = relu6(m.norm(m.conv(x, 16, 1)))
        y = relu6(m.norm(m.depthwise(m.tf.floor(m.tf.nn.elu(y)) if number else y)))
        x = x + m.norm(m.conv(y, CHANNELS, 1))
    return m.dense(m.tf.reduce_mean(x, [1, 2]), 5) + m.draw(5)


def wide(m: Maker, x: Any) -> Any:
    """Inverted residuals of 512 channels on 4x4 places: constants of some megabytes."""
    relu6 = m.tf.nn.relu6
    x = relu6(m.norm(m.conv(x, 16, stride=2)))
    x = relu6(m.norm(m.conv(x, 512, stride=2)))
    for _ in range(2):
        y = relu6(m.norm(m.conv(x, 512, 1)))
        y = relu6(m.norm(m.depthwise(y)))
        x = x + m.norm(m.conv(y, 512, 1))
    return m.dense(m.tf.reduce_mean(x, [1, 2]), 5) + m.draw(5)


def across_samples(m: Maker, x: Any) -> Any:
    """Gives for a sample what depends on the rest of the batch."""
    x = m.tf.nn.relu(m.norm(m.conv(x)))
    return m.tf.cumsum(m.tf.reduce_mean(x, [1, 2]), 0)


NETS: dict[str, Callable[[Maker, Any], Any]] = {
    net.__name__: net
    for net in (
        residual,
        unfused,
        before_convolution,
        dense,
        swish,
        prelu,
        branches,
        lengthened,
        wide,
        across_samples,
    )
}


def build(tf: Any, name: str, seed: int = 0, batch: int | None = None) -> tuple[EvalGraph, Maker]:
    """A net's graph and what it was made of."""
    graph = tf.Graph()
    with graph.as_default():
        maker = Maker(tf, seed)
        x = tf.compat.v1.placeholder(tf.float32, (batch, *SHAPE[1:]), name="images")
        tf.identity(NETS[name](maker, x), name="scores")
    graph_def = protos.GraphDef.FromString(graph.as_graph_def().SerializeToString())
    return EvalGraph(graph_def=graph_def, inputs=("images",), outputs=("scores",)), maker


def images(count: int, seed: int = 1) -> Any:
    """Samples for them."""
    return np.random.default_rng(seed).normal(0, 1, (count, *SHAPE[1:])).astype(np.float32)
