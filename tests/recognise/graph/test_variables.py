"""Partitioned variables: a layer whose vectors are cut into parts is one layer, with whole vectors."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


class _Late:
    """A module, imported when the first test asks: collecting tests must not import TensorFlow."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


styles: Any = _Late("graph_styles")
tf: Any = _Late("tensorflow")


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("kind", ["train", "switched"])
def test_parts_are_one_variable(parts: int, kind: str, resource: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """Parts of unequal length, each of which takes its share of the moments."""

    def build() -> None:
        v1 = tf.compat.v1
        x = styles.images()
        with v1.variable_scope("net", partitioner=v1.fixed_size_partitioner(parts)):
            kernel = tf.convert_to_tensor(v1.get_variable("kernel", [3, 3, 3, 7]))
            x = tf.nn.conv2d(x, kernel, 1, "SAME")
            beta, mean, variance = (
                v1.get_variable(name, [7], initializer=v1.zeros_initializer(), trainable=name == "beta")
                for name in ("beta", "mean", "variance")
            )
        moments = tf.nn.moments(x, [0, 1, 2])
        for whole, value in zip((mean, variance), moments, strict=True):
            sizes = [int(part.shape[0]) for part in whole]
            for part, share in zip(whole, tf.split(value, sizes), strict=True):
                v1.add_to_collection(styles.UPDATE_OPS, v1.assign_sub(part, (part - share) * 0.05))
        if kind == "switched":
            phase = v1.placeholder(tf.bool, [], name="phase")
            stored = [tf.convert_to_tensor(mean), tf.convert_to_tensor(variance)]
            batch = moments
            moments = v1.cond(phase, lambda: [tf.identity(v) for v in batch], lambda: [tf.identity(v) for v in stored])
        y = tf.nn.batch_normalization(x, *moments, tf.convert_to_tensor(beta), None, 1e-3)
        styles.wired(styles.loss_of(tf.nn.relu(y)))

    facts = styles.facts_of(build, tmp_path / "graph.meta", resource=resource)
    (layer,) = facts.layers
    assert layer.name == "net"
    assert [(v.name, v.shape) for v in (layer.mean, layer.variance, layer.beta)] == [
        ("net/mean", (7,)),
        ("net/variance", (7,)),
        ("net/beta", (7,)),
    ]
    assert len(layer.updates) == 2 * parts
    assert all(update.train_ops and update.decay == pytest.approx(0.95) for update in layer.updates)
    assert facts.graph.variables["net/mean"] == (7,)
    assert [site.mode.value for site in layer.sites] == [kind]
