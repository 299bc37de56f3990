"""Where an update stands: in the frame of the step that waits for it, or where nothing can wait for it."""

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


def steps_in_a_loop(*, wired: bool) -> None:
    """Several steps a run: a loop whose body computes moments, updates averages and applies gradients."""
    v1 = tf.compat.v1
    data = v1.placeholder(tf.float32, [5, 16, 6], name="x")
    kernel = v1.get_variable("dense/kernel", [6, 4])
    beta = v1.get_variable("bn/beta", [4], initializer=v1.zeros_initializer())
    mean = v1.get_variable("bn/mean", [4], initializer=v1.zeros_initializer(), trainable=False)
    variance = v1.get_variable("bn/variance", [4], initializer=v1.ones_initializer(), trainable=False)
    optimizer = v1.train.GradientDescentOptimizer(0.1)

    def body(step: Any, _: Any) -> Any:
        x = tf.matmul(tf.gather(data, step), kernel)
        batch_mean, batch_variance = tf.nn.moments(x, [0])
        updates = [
            v1.assign_sub(variable, (variable - value) * 0.1)
            for variable, value in ((mean, batch_mean), (variance, batch_variance))
        ]
        for update in updates:
            v1.add_to_collection(styles.UPDATE_OPS, update)
        loss = tf.reduce_mean(tf.nn.relu(tf.nn.batch_normalization(x, batch_mean, batch_variance, beta, None, 1e-3)))
        with tf.control_dependencies(updates if wired else []):
            step_op = optimizer.minimize(loss)
        with tf.control_dependencies([step_op]):
            return step + 1, tf.identity(loss)

    _, loss = v1.while_loop(lambda step, _: step < 5, body, [0, 0.0], parallel_iterations=1)
    tf.identity(loss, name="train")


@pytest.mark.parametrize("wired", [True, False])
def test_step_in_a_loop(wired: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """In a loop whose body is the step, what counts is whether the parameters wait for the update there."""
    facts = styles.facts_of(lambda: steps_in_a_loop(wired=wired), tmp_path / "graph.meta")
    updates = [update for layer in facts.layers for update in layer.updates]
    assert [bool(update.train_ops) for update in updates] == [wired, wired]
    assert not any(update.in_loop or update.collected_in_branch for update in updates)
    assert [op.name for op in facts.graph.train_ops] == ["while/Exit", "train"]


@pytest.mark.parametrize("run", [True, False])
def test_average_of_a_variable_that_holds_moments(run: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """Moments are assigned to variables, and an average object averages these: its averages are the statistics."""

    def build() -> None:
        v1 = tf.compat.v1
        x = styles.conv(styles.images(), 4, "conv")
        beta = v1.get_variable("bn/beta", [4], initializer=v1.zeros_initializer())
        held = [v1.get_variable(f"bn/{n}", [4], initializer=v1.zeros_initializer(), trainable=False) for n in "mv"]
        average = v1.train.ExponentialMovingAverage(0.99)
        moments = tf.nn.moments(x, [0, 1, 2])
        assigned = [v1.assign(variable, value) for variable, value in zip(held, moments, strict=True)]
        with tf.control_dependencies(assigned):
            averaged = average.apply(held)
        loss = styles.loss_of(tf.nn.relu(tf.nn.batch_normalization(x, *moments, beta, None, 1e-3)))
        with tf.control_dependencies([averaged] if run else []):
            styles.minimize(loss)

    facts = styles.facts_of(build, tmp_path / "graph.meta")
    (layer,) = facts.layers
    names = ["bn/m/ExponentialMovingAverage", "bn/v/ExponentialMovingAverage"]
    assert [layer.mean.name, layer.variance.name] == names
    assert sorted(update.variable for update in layer.updates) == names
    assert [update.decay for update in layer.updates] == [pytest.approx(0.99)] * 2
    assert [bool(update.train_ops) for update in layer.updates] == [run, run]


@pytest.mark.parametrize("write", ["scatter_update", "scatter_sub", "slice"])
def test_statistics_of_each_time_step(write: str, tmp_path: Path) -> None:
    """One variable holds the statistics of all time steps, a row each, which the step's moments are written to."""

    def build() -> None:
        v1 = tf.compat.v1
        steps = 4
        data = v1.placeholder(tf.float32, [steps, 16, 6], name="x")
        kernel = v1.get_variable("dense/kernel", [6, 5])
        beta = v1.get_variable("bn/beta", [5], initializer=v1.zeros_initializer())
        shape = [steps, 5]
        mean = v1.get_variable("bn/mean", shape, initializer=v1.zeros_initializer(), trainable=False)
        variance = v1.get_variable("bn/variance", shape, initializer=v1.ones_initializer(), trainable=False)

        def written(variable: Any, step: Any, value: Any) -> Any:
            old = tf.gather(variable, step)
            if write == "scatter_sub":
                return v1.scatter_sub(variable, step, (old - value) * 0.1)
            if write == "slice":
                return variable[step].assign(old * 0.9 + value * 0.1)
            return v1.scatter_update(variable, step, old * 0.9 + value * 0.1)

        def body(step: Any, total: Any) -> Any:
            x = tf.matmul(tf.gather(data, step), kernel)
            moments = tf.nn.moments(x, [0])
            pairs = zip((mean, variance), moments, strict=True)
            with tf.control_dependencies([written(variable, step, value) for variable, value in pairs]):
                moments = [tf.identity(value) for value in moments]
            y = tf.nn.relu(tf.nn.batch_normalization(x, *moments, beta, None, 1e-3))
            return step + 1, total + tf.reduce_sum(y)

        _, total = v1.while_loop(lambda step, _: step < steps, body, [0, 0.0])
        styles.minimize(total)

    facts = styles.facts_of(build, tmp_path / "graph.meta")
    (layer,) = facts.layers
    assert [layer.mean.name, layer.variance.name] == ["bn/mean", "bn/variance"]
    assert [update.decay for update in layer.updates] == [pytest.approx(0.9)] * 2
    assert all(update.train_ops for update in layer.updates)


@pytest.mark.parametrize("made", ["listed", "read", "group"])
def test_what_waits_for_updates_outside_the_train_op(made: str, tmp_path: Path) -> None:
    """A group does; a copy of what was written, or a condition that a collection lists as the update, does not."""

    def build() -> None:
        v1 = tf.compat.v1
        x = styles.conv(styles.images(), 4, "conv")
        beta = v1.get_variable("bn/beta", [4], initializer=v1.zeros_initializer())
        mean = v1.get_variable("one", [4], initializer=v1.zeros_initializer(), trainable=False)
        variance = v1.get_variable("two", [4], initializer=v1.ones_initializer(), trainable=False)
        moments = tf.nn.moments(x, [0, 1, 2])

        def update() -> list[Any]:
            pairs = zip((mean, variance), moments, strict=True)
            return [v1.assign_sub(variable, 0.1 * (variable - value)) for variable, value in pairs]

        if made == "listed":
            done = v1.cond(v1.placeholder(tf.bool, [], "phase"), lambda: tf.group(*update()), tf.no_op)
            v1.add_to_collection("mine", done)
        elif made == "read":
            for written in update():
                tf.identity(written, name="kept")
        else:
            tf.group(*update(), name="keep_averages")
        styles.minimize(styles.loss_of(tf.nn.batch_normalization(x, *moments, beta, None, 1e-3)))

    facts = styles.facts_of(build, tmp_path / "graph.meta")
    (layer,) = facts.layers
    expected = ("keep_averages",) if made == "group" else ()
    assert {update.waited_for_by for update in layer.updates} == {expected}
