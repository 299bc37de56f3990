"""Batch moments that are summed over replicas, by ops that TensorFlow has no kernel for here, or does not know."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bncheck.facts.layers import Facts, Mode
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources.graph import protos
from bncheck.sources.graph.graphs import read_graph

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]

SUM = "CrossReplicaSum"
"""What stands in for ops of libraries while the graph is built; it is renamed in the file."""


class _Late:
    """A module, imported when the first test asks: collecting tests must not import TensorFlow."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


styles: Any = _Late("graph_styles")
tf: Any = _Late("tensorflow")


def summed(value: Any) -> Any:
    """Over two replicas."""
    return tf.raw_ops.CrossReplicaSum(input=value, group_assignment=tf.constant([[0, 1]]))


def apart(x: Any) -> tuple[Any, Any]:
    """Each moment reduced by itself, the variance around the joint mean (TPU, tf.layers with virtual towers)."""
    mean = summed(tf.reduce_mean(x, [0, 1, 2])) / 2.0
    return mean, summed(tf.reduce_mean(tf.math.squared_difference(x, mean), [0, 1, 2])) / 2.0


def stacked(x: Any) -> tuple[Any, Any]:
    """Horovod's SyncBatchNormalization: mean and mean of squares in one go."""
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    group = summed(tf.stack([mean, variance + tf.square(mean)])) / 2.0
    group_mean, group_square = tf.unstack(group)
    return group_mean, group_square - tf.square(group_mean)


def sums(x: Any) -> tuple[Any, Any]:
    """Sums and the count itself are reduced."""
    count = summed(tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32))
    mean = summed(tf.reduce_sum(x, [0, 1, 2])) / count
    return mean, summed(tf.reduce_sum(tf.square(x), [0, 1, 2])) / count - tf.square(mean)


def train(x: Any, moments: Callable[[Any], tuple[Any, Any]], *, wired: bool) -> None:
    """One layer with averages by hand, and a step, of which the gradients are summed as well."""
    v1 = tf.compat.v1
    beta = v1.get_variable("bn/beta", [4], initializer=v1.zeros_initializer())
    stored = [
        v1.get_variable(f"bn/{name}", [4], initializer=initial, trainable=False)
        for name, initial in (("mean", v1.zeros_initializer()), ("variance", v1.ones_initializer()))
    ]
    h = styles.conv(x, 4, "conv")
    batch = moments(h)
    updates = [v1.assign_sub(s, 0.1 * (s - b)) for s, b in zip(stored, batch, strict=True)]
    loss = styles.loss_of(tf.nn.relu(tf.nn.batch_normalization(h, *batch, beta, None, 1e-3)))
    optimizer = v1.train.MomentumOptimizer(0.1, 0.9)
    variables = v1.trainable_variables()
    gradients = [summed(gradient) / 2.0 for gradient in tf.gradients(loss, variables)]
    with tf.control_dependencies(updates if wired else []):
        optimizer.apply_gradients(zip(gradients, variables, strict=True))


def read(path: Path, op: str) -> Facts:
    """The file with another library's op in place of the one that was built."""
    meta = protos.MetaGraphDef.FromString(path.read_bytes())
    for node in meta.graph_def.node:
        if node.op == SUM:
            node.op = op
            if op != SUM:
                del node.input[1:]
    path.write_bytes(meta.SerializeToString())
    return recognise(read_graph(path), Options())


@pytest.mark.parametrize("op", [SUM, "HorovodAllreduce", "NcclAllReduce", "CollectiveReduceV2"])
@pytest.mark.parametrize("moments", [apart, stacked, sums])
def test_all_reduced_moments(op: str, moments: Callable[[Any], tuple[Any, Any]], tmp_path: Path) -> None:
    """A layer in train mode with two updates of decay 0.9, wired and not; gradients go through the same op."""
    for wired in (True, False):
        path = tmp_path / f"{wired}.meta"
        styles.facts_of(lambda on=wired: train(styles.images(), moments, wired=on), path)
        (layer,) = read(path, op).layers
        assert (layer.mean.name, layer.variance.name) == ("bn/mean", "bn/variance")
        assert [site.mode for site in layer.sites] == [Mode.TRAIN]
        assert [update.decay for update in layer.updates] == [pytest.approx(0.9)] * 2
        assert [bool(update.train_ops) for update in layer.updates] == [wired, wired]


def test_moments_of_two_towers_by_nccl(tmp_path: Path) -> None:
    """Every tower has an all-reduce of its own, with a name that they share: TensorFlow registers it."""
    v1 = tf.compat.v1

    def joint(value: Any, name: str) -> Any:
        mean = tf.reduce_mean(value, [0, 1, 2])
        return tf.raw_ops.NcclAllReduce(input=mean, reduction="sum", num_devices=2, shared_name=name) / 2.0

    def build() -> None:
        x = styles.images(None, 8, 8, 3)
        beta = v1.get_variable("bn/beta", [4], initializer=v1.zeros_initializer())
        stored = [v1.get_variable(f"bn/{n}", [4], initializer=v1.ones_initializer(), trainable=False) for n in "mv"]
        losses, batches = [], []
        for tower in range(2):
            with tf.device(f"/gpu:{tower}"), v1.variable_scope(v1.get_variable_scope(), reuse=tower > 0):
                h = styles.conv(x * (1.0 + tower), 4, "conv")
                mean = joint(h, "mean")
                batches.append((mean, joint(tf.square(h), "square") - tf.square(mean)))
                y = tf.nn.batch_normalization(h, *batches[-1], beta, None, 1e-3)
                losses.append(tf.reduce_mean(tf.square(tf.nn.relu(y) - 1.0)))
        updates = [v1.assign_sub(s, 0.1 * (s - b)) for s, b in zip(stored, batches[0], strict=True)]
        variables = v1.trainable_variables()
        gradients = tf.gradients(tf.add_n(losses), variables)
        with tf.control_dependencies(updates):
            v1.train.GradientDescentOptimizer(0.1).apply_gradients(zip(gradients, variables, strict=True))

    (layer,) = styles.facts_of(build, tmp_path / "graph.meta").layers
    assert (layer.mean.name, layer.variance.name) == ("bn/m", "bn/v")
    assert [site.mode for site in layer.sites] == [Mode.TRAIN] * 2
    assert all(update.train_ops for update in layer.updates)
