"""The count that a rising decay rises with: on graphs that TensorFlow writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bncheck.commands.target import read_target
from bncheck.facts.layers import Layer
from bncheck.settings.options import Options

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tensorflow
v1 = tf.compat.v1


def averaged(path: Path, *, minimize: bool, start: int = 0, given: Any = "step") -> Layer:
    """A layer whose averages count with the global step, saved after no step."""
    with tf.Graph().as_default():
        step = v1.get_variable("step", [], tf.int64, initializer=v1.constant_initializer(start), trainable=False)
        gamma = v1.get_variable("gamma", [3], initializer=v1.ones_initializer())
        beta = v1.get_variable("beta", [3], initializer=v1.zeros_initializer())
        x = v1.placeholder(tf.float32, [None, 3])
        mean, variance = tf.nn.moments(x, [0])
        ema = v1.train.ExponentialMovingAverage(0.999, step if given == "step" else given)
        apply = ema.apply([mean, variance])
        phase = v1.placeholder(tf.bool, [])
        mean, variance = v1.cond(phase, lambda: (mean, variance), lambda: (ema.average(mean), ema.average(variance)))
        loss = tf.reduce_sum(tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3) ** 2)
        with tf.control_dependencies([apply]):
            v1.train.GradientDescentOptimizer(0.1).minimize(loss, global_step=step if minimize else None)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(path / "model.ckpt"))
    (layer,) = read_target(path / "model.ckpt", Options()).facts.layers
    return layer


def test_a_count_that_nothing_writes(tmp_path: Path) -> None:
    """It stays 0, and the decay with it at 0.1."""
    layer = averaged(tmp_path, minimize=False)
    assert {update.stuck_counter for update in layer.updates} == {"step"}
    assert [update.decay for update in layer.updates] == [0.1, 0.1]
    assert not any(update.decay_rises for update in layer.updates)


def test_a_count_that_minimize_writes(tmp_path: Path) -> None:
    """The decay rises to what was asked for."""
    layer = averaged(tmp_path, minimize=True)
    assert {update.stuck_counter for update in layer.updates} == {""}
    assert all(update.decay_rises and update.decay == pytest.approx(0.999) for update in layer.updates)


def test_a_count_that_is_not_zero_was_written_by_someone(tmp_path: Path) -> None:
    """Restored from a long run, it does its work without being counted on."""
    assert {update.stuck_counter for update in averaged(tmp_path, minimize=False, start=5000).updates} == {""}


def test_no_count_at_all(tmp_path: Path) -> None:
    """A fixed decay has nothing to be stuck."""
    layer = averaged(tmp_path, minimize=False, given=None)
    assert {update.stuck_counter for update in layer.updates} == {""}
    assert {update.decay for update in layer.updates} == {0.999}
