"""Which sites lie before which, and over how many values moments average: on graphs that TensorFlow writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bncheck.commands.target import read_target
from bncheck.facts.layers import Layer
from bncheck.settings.options import Options

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tensorflow
v1 = tf.compat.v1


def recognised(folder: Path, build: Callable[[], Any]) -> dict[str, Layer]:
    """The layers of what `build` builds."""
    with tf.Graph().as_default():
        build()
        v1.train.export_meta_graph(str(folder / "graph.meta"))
    return {layer.name: layer for layer in read_target(folder / "graph.meta", Options()).facts.layers}


def norm(x: Any, name: str, *, training: Any = True, gamma: Any = None) -> Any:
    """Batch norm on the fused op, with its averages."""
    with v1.variable_scope(name, reuse=v1.AUTO_REUSE):
        size = x.shape[-1]
        scale = v1.get_variable("gamma", [size], initializer=v1.ones_initializer()) if gamma is None else gamma
        beta = v1.get_variable("beta", [size], initializer=v1.zeros_initializer())
        mean = v1.get_variable("moving_mean", [size], initializer=v1.zeros_initializer(), trainable=False)
        variance = v1.get_variable("moving_variance", [size], initializer=v1.ones_initializer(), trainable=False)
    if training is not True:
        return v1.nn.fused_batch_norm(x, scale, beta, mean, variance, is_training=False)[0]
    y, m, v = v1.nn.fused_batch_norm(x, scale, beta, is_training=True)
    for average, moment in ((mean, m), (variance, v)):
        v1.assign_sub(average, 0.1 * (average - moment))
    return y


def kernel(name: str, size: int = 3) -> Any:
    """A 1x1 kernel from 3 channels to 3."""
    return v1.get_variable(name, [1, 1, size, size])


def images(batch: int | None = None) -> Any:
    """A placeholder of 4x4 images."""
    return v1.placeholder(tf.float32, [batch, 4, 4, 3])


def test_a_row_with_a_shortcut(tmp_path: Path) -> None:
    """Everything upstream is before, through additions, pooling and activations."""

    def build() -> None:
        x = norm(images(), "a")
        y = x + norm(tf.nn.relu(tf.nn.conv2d(x, kernel("w"), 1, "SAME")), "b")
        norm(tf.nn.max_pool2d(y, 2, 2, "SAME"), "c")
        norm(norm(images(), "d", training=False), "c")

    layers = recognised(tmp_path, build)
    first = layers["c"].sites[0]
    assert {name.partition("/")[0] for name in first.before} == {layers["a"].sites[0].name, layers["b"].sites[0].name}
    assert layers["c"].sites[1].before == (layers["d"].sites[0].name,)


def test_weights_are_no_activations(tmp_path: Path) -> None:
    """A step of gradient descent inside the graph (MAML) does not put the second application behind the first."""

    def build() -> None:
        w = kernel("w")
        first = norm(tf.nn.conv2d(images(), w, 1, "SAME"), "bn")
        (step,) = tf.gradients(tf.reduce_sum(tf.nn.relu(first) ** 2), [w])
        norm(tf.nn.conv2d(images(), w - 0.1 * step, 1, "SAME"), "bn")

    (layer,) = recognised(tmp_path, build).values()
    assert [site.before for site in layer.sites] == [(), ()]


@pytest.mark.parametrize(("batch", "sizes"), [(1, (1, 4, 4)), (None, (-1, 4, 4)), (8, (8, 4, 4))])
def test_sizes_that_moments_average_over(tmp_path: Path, batch: int | None, sizes: tuple[int, ...]) -> None:
    """All axes but the channels', as far as the graph knows them."""
    (layer,) = recognised(tmp_path, lambda: norm(images(batch), "bn")).values()
    assert layer.sites[0].reduced == sizes
