"""One way of writing batch norm or its training step in several hands: small real graphs, what is true of each, trained
for some steps where only values tell it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import bncheck
from bncheck.backbones import slim_compat
from bncheck.facts.findings import Report

v1: Any = tf.compat.v1
slim: Any = slim_compat.load_slim()
layers: Any = slim_compat.load_tf_layers()
_BATCH = 16


@dataclass
class Script:
    """What a script leaves behind."""

    train: Any
    saver: Any = None
    fed: dict[Any, Any] = field(default_factory=dict)
    """Fed beside the images."""
    batch: int = _BATCH
    start: Callable[[Any], None] = lambda _: None


@dataclass(frozen=True)
class Variant:
    """One script and the codes of the root causes that are to be found, no more and no less."""

    name: str
    codes: str
    build: Callable[[], Script]
    steps: int = 0
    """Run for so many steps and saved; 0: the graph alone tells it."""
    resource: bool = False
    v2_control_flow: bool = False


def variants() -> Iterator[Variant]:
    """All, in the order of their kinds."""
    from other_hands_layers import layer_variants
    from other_hands_training import training_variants

    yield from itertools.chain(layer_variants(), training_variants())


def causes(variant: Variant, folder: Path) -> tuple[set[str], Report]:
    """(codes of errors and warnings that no other finding explains, the report)."""
    with kind_of_graph(resource=variant.resource, v2_control_flow=variant.v2_control_flow), tf.Graph().as_default():
        v1.set_random_seed(1)
        script = variant.build()
        if variant.steps:
            report = bncheck.inspect_checkpoint(train(script, folder / "model.ckpt", variant.steps))
        else:
            path = folder / "graph.meta"
            _ = script.saver or v1.train.Saver()
            v1.train.export_meta_graph(str(path))
            report = bncheck.inspect_model(path)
    return {f.code for f in report.findings if f.severity.value != "info" and not f.caused_by}, report


@contextmanager
def kind_of_graph(*, resource: bool, v2_control_flow: bool) -> Iterator[None]:
    """Reference or resource variables, conditions of either version; as it was afterwards."""
    before = (v1.resource_variables_enabled(), v1.control_flow_v2_enabled())
    _switch(resource, v2_control_flow)
    try:
        yield
    finally:
        _switch(*before)


def _switch(resource: bool, v2_control_flow: bool) -> None:  # noqa: FBT001 - states
    (v1.enable_resource_variables if resource else v1.disable_resource_variables)()
    (v1.enable_control_flow_v2 if v2_control_flow else v1.disable_control_flow_v2)()


def train(script: Script, prefix: Path, steps: int) -> str:
    """Runs the train op on noise of mean 3 and deviation 2; the prefix of what was saved."""
    random = np.random.RandomState(0)
    x = v1.get_default_graph().get_tensor_by_name("x:0")
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        script.start(session)
        for _ in range(steps):
            images = random.randn(script.batch, 6, 6, 3) * 2 + 3
            session.run(script.train, {x: images, **script.fed})
        saver = script.saver or v1.train.Saver()
        return str(saver.save(session, str(prefix), global_step=steps))


def images(batch: int | None = None) -> Any:
    """The placeholder x of 6x6 images."""
    return v1.placeholder(tf.float32, [batch, 6, 6, 3], "x")


def conv(x: Any, channels: int = 4, name: str = "c") -> Any:
    """A 3x3 convolution without bias."""
    kernel = v1.get_variable(f"{name}/w", [3, 3, int(x.shape[-1]), channels])
    return tf.nn.conv2d(x, kernel, 1, "SAME")


def affine(channels: int = 4, name: str = "bn") -> tuple[Any, Any]:
    """Gamma and beta."""
    gamma = v1.get_variable(f"{name}/g", [channels], initializer=v1.ones_initializer())
    return gamma, v1.get_variable(f"{name}/b", [channels], initializer=v1.zeros_initializer())


def statistics(*shape: int, names: tuple[str, str] = ("m", "v")) -> tuple[Any, Any]:
    """A moving mean of 0 and a moving variance of 1."""
    return tuple(
        v1.get_variable(f"bn/{name}", list(shape), initializer=start(), trainable=False)
        for name, start in zip(names, (v1.zeros_initializer, v1.ones_initializer), strict=True)
    )


def normalised(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any) -> Any:
    """By TensorFlow's formula."""
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)


def update_ops() -> list[Any]:
    """What lies in `UPDATE_OPS`."""
    return list(v1.get_collection(v1.GraphKeys.UPDATE_OPS))


def loss_of(y: Any) -> Any:
    """Any loss."""
    return tf.reduce_mean(tf.square(tf.nn.relu(y) - 1.0))


def trained(y: Any, updates: Any = (), **more: Any) -> Script:
    """Adam, whose step waits for the updates."""
    with tf.control_dependencies(list(updates)):
        step = v1.train.AdamOptimizer(0.01).minimize(loss_of(y), v1.train.get_or_create_global_step())
    return Script(step, **more)
