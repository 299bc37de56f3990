"""Recognition on real graphs: every way of writing batch norm and its training step that people use."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bncheck.facts.layers import Facts, Mode, Role

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


class _Styles:
    """The module `graph_styles`, imported when the first test asks: collecting tests must not import TensorFlow."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("graph_styles"), name)


styles: Any = _Styles()


def phase() -> Any:
    """The boolean placeholder that people call phase."""
    return styles.v1.placeholder(styles.tf.bool, [], name="phase")


def tf_layers(**keywords: Any) -> Callable[[Any, str], Any]:
    """tf.layers.batch_normalization in the scope of its layer."""
    layers = styles.slim_compat.load_tf_layers()
    return lambda x, name: layers.batch_normalization(x, name=name, **({"momentum": 0.95} | keywords))


def keras_in_v1(training: Any, *, run_updates: bool) -> None:
    """tf.keras layers in a TF1 graph, their updates run with the train op or forgotten."""
    from tf_keras.layers import BatchNormalization

    layers: list[Any] = []

    def normalise(x: Any, name: str) -> Any:
        layers.append(BatchNormalization(momentum=0.95, name=name))
        return layers[-1](x, training=training)

    loss = styles.loss_of(styles.two_layers(normalise))
    with styles.tf.control_dependencies([u for layer in layers for u in layer.updates] if run_updates else []):
        styles.minimize(loss)


def around_existing() -> None:
    """control_dependencies around a train op that exists already (A04)."""
    train_op = styles.minimize(styles.loss_of(styles.two_layers(styles.slim_norm())))
    with styles.tf.control_dependencies(styles.v1.get_collection(styles.UPDATE_OPS)):
        del train_op


def on_identity_of_loss() -> None:
    """The dependency hung on an identity of the loss (A05)."""
    loss = styles.loss_of(styles.two_layers(styles.slim_norm()))
    with styles.tf.control_dependencies(styles.v1.get_collection(styles.UPDATE_OPS)):
        loss = styles.tf.identity(loss, name="loss_with_updates")
    styles.minimize(loss)


def grouped() -> None:
    """tf.group(train_op, *updates)."""
    train_op = styles.minimize(styles.loss_of(styles.two_layers(styles.slim_norm())))
    styles.tf.group(train_op, *styles.v1.get_collection(styles.UPDATE_OPS))


def create_train_op() -> None:
    """slim.learning.create_train_op."""
    loss = styles.loss_of(styles.two_layers(styles.slim_norm()))
    styles.slim.learning.create_train_op(loss, styles.v1.train.GradientDescentOptimizer(0.1))


def wired(normalise: Callable[[Any, str], Any]) -> None:
    """Two layers with the textbook train op."""
    styles.wired(styles.loss_of(styles.two_layers(normalise)))


def bare(normalise: Callable[[Any, str], Any]) -> None:
    """Two layers with `minimize` and nothing else."""
    styles.minimize(styles.loss_of(styles.two_layers(normalise)))


def averaged(switch: Any) -> None:
    """Two layers that average their moments with an ExponentialMovingAverage object."""
    bare(lambda x, name: styles.moments_with_average(x, name, switch))


# name -> (build, mode, updates wired to the train op, decay, listed in UPDATE_OPS)
CASES: dict[str, tuple[Callable[[], Any], Mode, int, float | None, int]] = {
    "slim": (lambda: wired(styles.slim_norm()), Mode.TRAIN, 4, 0.95, 4),
    "slim forgotten": (lambda: bare(styles.slim_norm()), Mode.TRAIN, 0, 0.95, 4),
    "slim in place": (lambda: bare(styles.slim_norm(updates_collections=None)), Mode.TRAIN, 4, 0.95, 0),
    "slim unfused": (lambda: wired(styles.slim_norm(fused=False)), Mode.TRAIN, 4, 0.95, 4),
    "slim zero-debias": (lambda: wired(styles.slim_norm(zero_debias_moving_mean=True)), Mode.TRAIN, 4, 0.95, 4),
    "slim without gamma and beta": (lambda: wired(styles.slim_norm(scale=False, center=False)), Mode.TRAIN, 4, 0.95, 4),
    "slim placeholder": (
        lambda: wired(styles.slim_norm(is_training=phase())),
        Mode.SWITCHED,
        4,
        0.95,
        4,
    ),
    "slim negated placeholder": (
        lambda: wired(styles.slim_norm(is_training=styles.tf.logical_not(phase()))),
        Mode.SWITCHED,
        4,
        0.95,
        4,
    ),
    "tf.layers": (lambda: wired(tf_layers(training=True)), Mode.TRAIN, 4, 0.95, 4),
    "tf.layers left at False": (lambda: bare(tf_layers(training=False)), Mode.EVAL, 0, None, 0),
    "tf.layers placeholder": (lambda: wired(tf_layers(training=phase())), Mode.SWITCHED, 4, 0.95, 4),
    "tf.layers unfused": (lambda: wired(tf_layers(training=True, fused=False)), Mode.TRAIN, 4, 0.95, 4),
    "keras forgotten": (lambda: keras_in_v1(training=True, run_updates=False), Mode.TRAIN, 0, 0.95, 0),
    "keras updates run": (lambda: keras_in_v1(training=True, run_updates=True), Mode.TRAIN, 4, 0.95, 0),
    "keras placeholder": (lambda: keras_in_v1(phase(), run_updates=True), Mode.SWITCHED, 4, 0.95, 0),
    "average object": (
        lambda: averaged(phase()),
        Mode.SWITCHED,
        4,
        0.9,
        0,
    ),
    "assigned in place": (
        lambda: bare(lambda x, n: styles.assigned_population(x, n, training=True)),
        Mode.TRAIN,
        4,
        0.9,
        0,
    ),
    "by formula": (lambda: wired(lambda x, n: styles.by_formula(x, n, training=True)), Mode.TRAIN, 4, 0.9, 4),
    "around an existing op": (around_existing, Mode.TRAIN, 0, 0.95, 4),
    "on an identity of the loss": (on_identity_of_loss, Mode.TRAIN, 0, 0.95, 4),
    "grouped": (grouped, Mode.TRAIN, 4, 0.95, 4),
    "create_train_op": (create_train_op, Mode.TRAIN, 4, 0.95, 4),
}


def updates(facts: Facts) -> list[Any]:
    """All updates of a model."""
    return [update for layer in facts.layers for update in layer.updates]


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
@pytest.mark.parametrize("case", CASES)
def test_style(case: str, resource: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """Two layers, their mode, decay and collection, and which updates the train op runs, whatever the style."""
    build, mode, wired_updates, decay, collected = CASES[case]
    facts = styles.facts_of(build, tmp_path / "model.meta", resource=resource)
    assert [layer.name.split("/")[0].removesuffix("_1") for layer in facts.layers] == ["first", "second"]
    assert [site.mode for layer in facts.layers for site in layer.sites] == [mode, mode]
    found = updates(facts)
    assert sum(bool(u.train_ops) for u in found) == wired_updates
    assert sum(u.in_collection for u in found) == collected
    assert {u.decay for u in found} == ({decay} if decay is not None else set())
    assert Counter(u.role for u in found) == (Counter({Role.MEAN: 2, Role.VARIANCE: 2}) if decay is not None else {})
    assert all(u.resource == (resource or case.startswith("keras")) for u in found)
    assert facts.graph is not None
    assert len(facts.graph.train_ops) == 1
    assert not [gap for gap in facts.gaps if gap.kind.value != "statistics unread"]


@pytest.mark.parametrize("case", ["slim placeholder", "tf.layers placeholder", "keras placeholder", "average object"])
def test_conditions_of_control_flow_v2(case: str, tmp_path: Path) -> None:
    """The same layers are found where conditions are If ops with function bodies."""
    build, mode, wired_updates, decay, _ = CASES[case]
    facts = styles.facts_of(build, tmp_path / "model.meta", resource=True, v2_control_flow=True)
    assert [site.mode for layer in facts.layers for site in layer.sites] == [mode, mode]
    assert sum(bool(u.train_ops) for u in updates(facts)) == wired_updates
    assert {u.decay for u in updates(facts)} == {decay}


def test_negated_switch_trains_when_the_placeholder_is_false(tmp_path: Path) -> None:
    """A site whose predicate is `not phase` uses batch statistics when phase is False."""
    facts = styles.facts_of(CASES["slim negated placeholder"][0], tmp_path / "model.meta")
    switches = [site.switch for layer in facts.layers for site in layer.sites]
    assert [(s.predicate, s.train_when) for s in switches] == [("phase", False)] * 2


def test_tf_layers_writes_decay_one_when_off(tmp_path: Path) -> None:
    """The update of tf.layers that runs outside its condition is harmless: its decay is then 1."""
    facts = styles.facts_of(CASES["tf.layers placeholder"][0], tmp_path / "model.meta")
    assert {(u.branch, u.decay_when_off) for u in updates(facts)} == {(None, 1.0)}


def test_update_under_a_condition_names_its_switch(tmp_path: Path) -> None:
    """An average object applied in the training branch is recognised as running only there."""
    facts = styles.facts_of(CASES["average object"][0], tmp_path / "model.meta")
    assert {(u.branch.predicate, u.branch.train_when) for u in updates(facts)} == {("phase", True)}
    assert {layer.variance.initial for layer in facts.layers} == {0.0}


def test_update_in_a_loop(tmp_path: Path) -> None:
    """Updates inside a while loop are marked as such."""

    def build() -> None:
        tf = styles.tf
        kernel = styles.v1.get_variable("kernel", [3, 3, 4, 4])

        def body(i: Any, y: Any) -> Any:
            return i + 1, styles.slim_norm()(tf.nn.conv2d(y, kernel, 1, "SAME"), "inside")

        _, y = styles.v1.while_loop(lambda i, _: i < 3, body, [0, styles.conv(styles.images(), 4, "before")])
        styles.minimize(styles.loss_of(y))

    facts = styles.facts_of(build, tmp_path / "model.meta")
    assert [(u.in_loop, u.train_ops) for u in updates(facts)] == [(True, ())] * 2


def test_towers_share_a_layer(tmp_path: Path) -> None:
    """Two towers are two sites of one layer; the updates of the second are not wired."""

    def build() -> None:
        losses = []
        for tower in range(2):
            with styles.v1.name_scope(f"tower_{tower}"), styles.v1.variable_scope("net", reuse=tower > 0):
                x = styles.v1.placeholder(styles.tf.float32, [None, 8, 8, 3], name="x")
                losses.append(styles.loss_of(styles.slim_norm()(styles.conv(x, 4, "first"), "first")))
        with styles.tf.control_dependencies(styles.v1.get_collection(styles.UPDATE_OPS)[:2]):
            styles.minimize(styles.tf.add_n(losses))

    facts = styles.facts_of(build, tmp_path / "model.meta")
    assert len(facts.layers) == 1
    assert len(facts.layers[0].sites) == 2
    assert [bool(u.train_ops) for u in updates(facts)] == [True, True, False, False]
    assert [u.inputs for u in updates(facts)] == [("tower_0/net/x",)] * 2 + [("tower_1/net/x",)] * 2


def test_train_and_evaluation_graph_are_two_sites(tmp_path: Path) -> None:
    """A training graph and an evaluation graph that share variables: one train and one eval site a layer."""

    def build() -> None:
        def net(x: Any, *, training: bool) -> Any:
            for name in ("first", "second"):
                x = styles.assigned_population(styles.conv(x, 4, name), name, training=training)
            return x

        with styles.v1.variable_scope("net"):
            styles.minimize(styles.loss_of(net(styles.images(), training=True)))
        with styles.v1.variable_scope("net", reuse=True):
            net(styles.v1.placeholder(styles.tf.float32, [None, 8, 8, 3]), training=False)

    facts = styles.facts_of(build, tmp_path / "model.meta")
    assert [[site.mode for site in layer.sites] for layer in facts.layers] == [[Mode.TRAIN, Mode.EVAL]] * 2


def test_two_train_ops_of_a_gan(tmp_path: Path) -> None:
    """Generator and discriminator have a train op each, and each layer is trained by its own."""

    def build() -> None:
        v1, tf = styles.v1, styles.tf

        def net(x: Any, scope: str, *, reuse: bool) -> Any:
            with v1.variable_scope(scope, reuse=reuse):
                return styles.slim_norm()(styles.conv(x, 4, "first"), "first")

        fake = net(styles.images(), "generator", reuse=False)
        real = net(v1.placeholder(tf.float32, [None, 8, 8, 4]), "discriminator", reuse=False)
        losses = {
            "discriminator": styles.loss_of(real),
            "generator": styles.loss_of(net(fake, "discriminator", reuse=True)),
        }
        for scope, loss in losses.items():
            with tf.control_dependencies(v1.get_collection(styles.UPDATE_OPS, scope)):
                styles.minimize(loss, var_list=v1.trainable_variables(scope), name=f"train_{scope}")

    facts = styles.facts_of(build, tmp_path / "model.meta")
    assert facts.graph is not None
    assert {op.name for op in facts.graph.train_ops} == {"train_discriminator", "train_generator"}
    assert {layer.name.split("/")[0]: layer.trained_by for layer in facts.layers} == {
        "generator": ("train_generator",),
        "discriminator": ("train_discriminator",),
    }


@pytest.mark.parametrize(
    ("shape", "keywords", "axis", "rank"),
    [
        ((None, 16), {"fused": False}, -1, 2),
        ((None, 8, 8, 3), {"data_format": "NHWC"}, -1, 4),
        ((None, 3, 8, 8), {"data_format": "NCHW"}, 1, 4),
    ],
)
def test_rank_and_axis_of_slim(
    shape: tuple[int | None, ...], keywords: Any, axis: int, rank: int, tmp_path: Path
) -> None:
    """Rank and channel axis are read off the graph."""
    facts = styles.facts_of(
        lambda: styles.wired(styles.loss_of(styles.slim.batch_norm(styles.images(*shape), scope="bn", **keywords))),
        tmp_path / "model.meta",
    )
    assert [(s.axis, s.rank) for layer in facts.layers for s in layer.sites] == [(axis, rank)]


@pytest.mark.parametrize(("transposed", "axis"), [(True, 1), (False, -1)])
def test_channels_of_the_convolution_through_a_transposition(
    transposed: bool,  # noqa: FBT001 - parametrised
    axis: int,
    tmp_path: Path,
) -> None:
    """Where its channels are is told in the site's own axes: Keras 3 convolves channels first by transposing twice."""

    def build() -> None:
        x = styles.slim.conv2d(styles.images(None, 8, 8, 3), 4, 3, normalizer_fn=None, activation_fn=None)
        if transposed:
            x = styles.tf.transpose(x, [0, 3, 1, 2])
        layout = "NCHW" if transposed else "NHWC"
        styles.wired(styles.loss_of(styles.slim.batch_norm(x, scope="bn", data_format=layout)))

    facts = styles.facts_of(build, tmp_path / "model.meta")
    assert [(s.axis, s.linear_axis) for layer in facts.layers for s in layer.sites] == [(axis, axis)]


@pytest.mark.parametrize("shape", [(None, 16, 4), (None, 4, 4, 4, 3)])
def test_ranks_three_and_five(shape: tuple[int | None, ...], tmp_path: Path) -> None:
    """Batch norm on sequences and volumes is found with both updates."""
    facts = styles.facts_of(
        lambda: styles.wired(styles.loss_of(tf_layers(training=True)(styles.images(*shape), "bn"))),
        tmp_path / "model.meta",
    )
    assert [len(layer.updates) for layer in facts.layers] == [2]


def test_other_normalisations_are_not_batch_norm(tmp_path: Path) -> None:
    """Layer, instance and group norm, L2 normalisation, whitening by a scalar and RMSProp are left alone."""

    def build() -> None:
        from tf_keras.layers import GroupNormalization, LayerNormalization

        tf, slim = styles.tf, styles.slim
        y = slim.layer_norm(styles.conv(styles.images(), 4, "a"))
        y = slim.instance_norm(styles.conv(y, 4, "b"))
        y = slim.group_norm(styles.conv(y, 4, "c"), groups=2)
        y = GroupNormalization(groups=2)(LayerNormalization()(tf.nn.l2_normalize(y, -1)))
        y = tf.image.per_image_standardization(y[0])
        y = (y - tf.reduce_mean(y)) / tf.sqrt(tf.math.reduce_variance(y) + 1e-8)
        styles.v1.train.RMSPropOptimizer(0.1).minimize(styles.loss_of(y))

    assert styles.facts_of(build, tmp_path / "model.meta").layers == ()


@pytest.mark.parametrize("affine", [True, False])
def test_always_batch_statistics(affine: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """Batch norm on moments alone is a layer without statistics, with gamma and beta or without."""

    def normalise(x: Any, name: str) -> Any:
        tf, v1 = styles.tf, styles.v1
        own = [v1.get_variable(f"{name}/{part}", [4]) for part in ("beta", "gamma")] if affine else [None, None]
        return tf.nn.batch_normalization(x, *tf.nn.moments(x, [0, 1, 2]), *own, 1e-5)

    facts = styles.facts_of(lambda: bare(normalise), tmp_path / "model.meta")
    assert [(layer.mean.presence.value, layer.sites[0].mode) for layer in facts.layers] == [("absent", Mode.TRAIN)] * 2


def test_what_the_saver_writes(tmp_path: Path) -> None:
    """A Saver over the trainable variables lists no statistics."""

    def build() -> None:
        wired(styles.slim_norm())
        styles.v1.train.Saver(styles.v1.trainable_variables())

    facts = styles.facts_of(build, tmp_path / "model.meta")
    assert facts.graph is not None
    assert {any("moving" in key for key in saver.keys) for saver in facts.graph.savers} == {True, False}
