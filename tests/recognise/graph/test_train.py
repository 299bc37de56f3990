"""Training steps that are not one `minimize`: gathered gradients, replicas, decays that rise, phases in arithmetic."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from bncheck.facts.layers import Mode, Role

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


class _Styles:
    """The module `graph_styles`, imported when the first test asks: collecting tests must not import TensorFlow."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("graph_styles"), name)


styles: Any = _Styles()


def updates(facts: Any) -> list[Any]:
    """All updates of a model."""
    return [update for layer in facts.layers for update in layer.updates]


def gathered(*, wired: bool, grouped: bool) -> None:
    """Micro-batches: gradients are added to variables in one run and applied in another."""
    tf, v1 = styles.tf, styles.v1
    loss = styles.loss_of(styles.two_layers(styles.slim_norm()))
    optimizer = v1.train.AdamOptimizer(0.01)
    gradients = optimizer.compute_gradients(loss, v1.trainable_variables())
    stores = [v1.Variable(tf.zeros(v.shape), trainable=False, name="gathered") for _, v in gradients]
    with tf.control_dependencies(v1.get_collection(styles.UPDATE_OPS) if wired else []):
        gather = [store.assign_add(g) for store, (g, _) in zip(stores, gradients, strict=True)]
    if grouped:
        tf.group(*gather)
    optimizer.apply_gradients([(store / 4.0, v) for store, (_, v) in zip(stores, gradients, strict=True)])


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("wired", [False, True])
def test_gathered_gradients(wired: bool, grouped: bool, resource: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """A step that gathers gradients in variables consists of the runs that gather and the run that applies."""
    facts = styles.facts_of(lambda: gathered(wired=wired, grouped=grouped), tmp_path / "m.meta", resource=resource)
    assert facts.graph is not None
    assert [op.name for op in facts.graph.train_ops] == ["Adam"]
    assert [bool(u.train_ops) for u in updates(facts)] == [wired] * 4
    assert all(site.backpropagated for layer in facts.layers for site in layer.sites)


def test_averages_in_gradients_gather_none(tmp_path: Path) -> None:
    """The gradient of gamma reads the average that evaluation uses: that makes no train op of what writes it."""

    def normalise(x: Any, name: str) -> Any:
        tf, v1 = styles.tf, styles.v1
        with v1.variable_scope(name):
            beta, gamma = (v1.get_variable(n, [4]) for n in ("beta", "gamma"))
            mean, variance = tf.nn.moments(x, [0, 1, 2])
            average = v1.train.ExponentialMovingAverage(0.9)
            average.apply([mean, variance])
            chosen = [v1.cond(phase, lambda m=m: m, lambda m=m: average.average(m)) for m in (mean, variance)]
            return tf.nn.batch_normalization(x, *chosen, beta, gamma, 1e-3)

    def build() -> None:
        nonlocal phase
        phase = styles.v1.placeholder(styles.tf.bool, [], name="phase")
        styles.minimize(styles.loss_of(styles.two_layers(normalise)))

    phase: Any = None
    facts = styles.facts_of(build, tmp_path / "m.meta")
    assert [u.train_ops for u in updates(facts)] == [()] * 4


@pytest.mark.parametrize("by_slim", [False, True], ids=["minimize", "create_train_op"])
def test_replicas_that_synchronise(by_slim: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """SyncReplicasOptimizer applies gradients in a queue runner's op and runs updates in the workers' train op."""

    def build() -> None:
        v1 = styles.v1
        loss = styles.loss_of(styles.two_layers(styles.slim_norm()))
        optimizer = v1.train.SyncReplicasOptimizer(v1.train.GradientDescentOptimizer(0.1), 2, 2)
        step = v1.train.get_or_create_global_step()
        if by_slim:
            styles.slim.learning.create_train_op(loss, optimizer, global_step=step)
            return
        with styles.tf.control_dependencies(v1.get_collection(styles.UPDATE_OPS)):
            optimizer.minimize(loss, step)

    facts = styles.facts_of(build, tmp_path / "m.meta")
    assert updates(facts)
    assert all(u.train_ops for u in updates(facts))
    assert all(layer.trained_by for layer in facts.layers)


def test_reads_after_resource_writes_are_no_train_ops(tmp_path: Path) -> None:
    """Adam reads its beta powers back after writing them; nobody runs these reads, so they are no train ops."""

    def build() -> None:
        v1 = styles.v1
        train = v1.train.AdamOptimizer(0.01).minimize(styles.loss_of(styles.two_layers(styles.slim_norm())))
        styles.tf.group(train, *v1.get_collection(styles.UPDATE_OPS), name="step")

    facts = styles.facts_of(build, tmp_path / "m.meta", resource=True)
    assert facts.graph is not None
    assert [op.name for op in facts.graph.train_ops] == ["step"]


@pytest.mark.parametrize(("num_updates", "rises"), [(True, True), (False, False)])
def test_decay_that_rises(num_updates: bool, rises: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """`ExponentialMovingAverage(decay, num_updates)` starts with a lower decay: told apart from a constant one."""

    def build() -> None:
        tf, v1 = styles.tf, styles.v1
        x = styles.conv(styles.images(), 4, "c")
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        step = v1.train.get_or_create_global_step() if num_updates else None
        average = v1.train.ExponentialMovingAverage(0.99, step)
        with tf.control_dependencies([average.apply([mean, variance])]):
            y = tf.nn.batch_normalization(x, mean, variance, v1.get_variable("beta", [4]), None, 1e-3)
        styles.minimize(styles.loss_of(y))

    facts = styles.facts_of(build, tmp_path / "m.meta")
    assert [(u.decay, u.decay_rises) for u in updates(facts)] == [(0.99, rises)] * 2


@pytest.mark.parametrize("kind", ["float", "bool"])
def test_phase_in_arithmetic(kind: str, tmp_path: Path) -> None:
    """A layer that weighs batch and stored statistics by a phase of 0 or 1 is switched by it, its updates too."""

    def normalise(x: Any, name: str) -> Any:
        tf, v1 = styles.tf, styles.v1
        with v1.variable_scope(name):
            beta = v1.get_variable("beta", [4])
            mm, vv = (
                v1.get_variable(n, [4], initializer=v1.constant_initializer(start), trainable=False)
                for n, start in (("m", 0.0), ("v", 1.0))
            )
            mean, variance = tf.nn.moments(x, [0, 1, 2])
            for variable, batch in ((mm, mean), (vv, variance)):
                update = v1.assign(variable, variable * (1 - phase * 0.1) + batch * (phase * 0.1))
                v1.add_to_collection(styles.UPDATE_OPS, update)
            mixed = [phase * batch + (1 - phase) * stored for batch, stored in ((mean, mm), (variance, vv))]
            return tf.nn.batch_normalization(x, *mixed, beta, None, 1e-3)

    def build() -> None:
        nonlocal phase
        tf, v1 = styles.tf, styles.v1
        phase = v1.placeholder(tf.float32 if kind == "float" else tf.bool, [], name="phase")
        phase = tf.cast(phase, tf.float32)
        styles.wired(styles.loss_of(styles.two_layers(normalise)))

    phase: Any = None
    facts = styles.facts_of(build, tmp_path / "m.meta")
    sites = [site for layer in facts.layers for site in layer.sites]
    assert [(s.mode, s.switch.predicate, s.switch.train_when) for s in sites] == [(Mode.SWITCHED, "phase", True)] * 2
    assert {(u.decay, u.decay_when_off, bool(u.train_ops)) for u in updates(facts)} == {(0.9, 1.0, True)}
    assert {u.role for u in updates(facts)} == {Role.MEAN, Role.VARIANCE}


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
@pytest.mark.parametrize("switched", [False, True])
def test_batch_renorm(switched: bool, resource: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """Batch renorm averages a deviation and stores its square: the layer's variance is the square, its gamma gamma."""

    def build() -> None:
        layers = styles.slim_compat.load_tf_layers()
        training = styles.v1.placeholder(styles.tf.bool, [], name="phase") if switched else True
        x = styles.conv(styles.images(), 4, "c")
        y = layers.batch_normalization(x, training=training, renorm=True, renorm_momentum=0.9, momentum=0.9, name="bn")
        styles.wired(styles.loss_of(y))

    facts = styles.facts_of(build, tmp_path / "m.meta", resource=resource)
    (layer,) = facts.layers
    vectors = (layer.mean, layer.variance, layer.gamma, layer.beta)
    assert [v.name for v in vectors] == ["bn/moving_mean", "bn/moving_variance", "bn/gamma", "bn/beta"]
    assert {(u.role, u.decay, bool(u.train_ops), u.in_collection) for u in layer.updates} == {
        (Role.MEAN, 0.9, True, True),
        (Role.VARIANCE, 0.9, True, True),
    }


def test_gamma_and_beta_of_a_class(tmp_path: Path) -> None:
    """Conditional batch norm gathers gamma and beta by class; adaptive instance norm, written alike, is none."""

    def build() -> None:
        tf, v1 = styles.tf, styles.v1
        label = v1.placeholder(tf.int32, [None], name="label")
        x = styles.conv(styles.images(), 4, "c")
        for number, axes in enumerate(([0, 1, 2], [1, 2])):
            gamma, beta = (
                tf.gather(v1.get_variable(f"{name}{number}", [10, 4]), label)[:, None, None, :] for name in "gb"
            )
            mean, variance = tf.nn.moments(x, axes, keepdims=True)
            x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)
            if number == 0:
                for name, batch in (("m", mean), ("v", variance)):
                    stored = v1.get_variable(name, [1, 1, 1, 4], trainable=False)
                    v1.add_to_collection(styles.UPDATE_OPS, v1.assign_sub(stored, 0.1 * (stored - batch)))
        styles.wired(styles.loss_of(x))

    facts = styles.facts_of(build, tmp_path / "m.meta")
    assert [(layer.mean.name, layer.variance.name) for layer in facts.layers] == [("m", "v")]
    assert [(u.decay, bool(u.train_ops)) for u in updates(facts)] == [(0.9, True)] * 2
