"""Which sites are one layer: both forms of Keras on TF1, copies for other towers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
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


def both_forms(picked_by: str, *, frozen: bool, one_gamma: bool) -> None:
    """Keras on TF1: the train form is computed in any case, a condition on the learning phase picks one of the two."""
    v1 = tf.compat.v1
    x = styles.images()
    phase = v1.placeholder_with_default(tf.constant(value=False), [], name="keras_learning_phase")
    shared = (tf.constant(np.ones(4, np.float32)), tf.constant(np.zeros(4, np.float32))) if one_gamma else None

    def vector(name: str, value: float) -> Any:
        values = np.full(4, value, np.float32) + (np.arange(4) / 10 if "moving" in name else 0)
        values = values.astype(np.float32)
        return tf.constant(values, name=name) if frozen else v1.get_variable(name, initializer=values)

    for name in ("first", "second"):
        gamma, beta = shared or (vector(f"{name}/gamma", 1.0), vector(f"{name}/beta", 0.0))
        mean, variance = vector(f"{name}/moving_mean", 0.5), vector(f"{name}/moving_variance", 2.0)
        kernel = np.ones([3, 3, x.shape[-1], 4], np.float32)
        x = tf.nn.conv2d(
            x, tf.constant(kernel) if frozen else v1.get_variable(f"{name}/k", initializer=kernel), 1, "SAME"
        )
        trained = v1.nn.fused_batch_norm(x, gamma, beta, epsilon=1e-3, is_training=True)[0]

        def fused(x: Any = x, vectors: Any = (gamma, beta, mean, variance)) -> Any:
            return v1.nn.fused_batch_norm(x, *vectors, epsilon=1e-3, is_training=False)[0]

        def formula(x: Any = x, vectors: Any = (mean, variance, beta, gamma)) -> Any:
            return tf.nn.batch_normalization(x, *vectors, 1e-3)

        if picked_by == "select":
            x = tf.where(phase, trained, formula())
        else:
            train_form = trained
            x = v1.cond(phase, lambda value=train_form: value, fused if picked_by == "fused" else formula)
        x = tf.nn.relu(x)


@pytest.mark.parametrize("v2_control_flow", [False, True], ids=["merge", "if"])
@pytest.mark.parametrize("picked_by", ["fused", "formula", "select"])
@pytest.mark.parametrize("stored", ["frozen", "variables", "one gamma"])
def test_both_forms_of_keras_are_one_layer(
    stored: str,
    picked_by: str,
    v2_control_flow: bool,  # noqa: FBT001 - parametrised
    tmp_path: Path,
) -> None:
    """One layer with one switch, trained when the learning phase is true, which it is not by default."""
    facts = styles.facts_of(
        lambda: both_forms(picked_by, frozen=stored != "variables", one_gamma=stored == "one gamma"),
        tmp_path / "graph.meta",
        v2_control_flow=v2_control_flow,
    )
    assert len(facts.layers) == 2
    for layer in facts.layers:
        (site,) = layer.sites
        assert site.mode.value == "switched"
        assert (site.switch.predicate, site.switch.default, site.switch.train_when) == (
            "keras_learning_phase",
            False,
            True,
        )
        assert layer.mean.name.endswith("moving_mean")


@pytest.mark.parametrize("fused", [True, False])
def test_a_frozen_keras_graph(fused: bool, tmp_path: Path) -> None:  # noqa: FBT001 - parametrised
    """What Keras itself builds in a graph of TensorFlow 1, with its variables made constants: the usual `.pb`."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_from_session_graph
    from tf_keras import layers as keras
    from tf_keras.models import Sequential

    v1 = tf.compat.v1
    control = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            normalised = [keras.BatchNormalization(name=name, fused=fused) for name in ("first", "second")]
            kernels = [keras.Conv2D(4, 3, name=f"{name}_conv") for name in ("one", "two")]
            model = Sequential([kernels[0], normalised[0], keras.ReLU(), kernels[1], normalised[1]])
            output = model(v1.placeholder(tf.float32, [None, 8, 8, 3], name="images"))
            session.run(v1.global_variables_initializer())
            constant = convert_variables_to_constants_from_session_graph(
                session, session.graph.as_graph_def(), [output.op.name]
            )
    finally:
        if control:
            v1.enable_control_flow_v2()
    path = tmp_path / "frozen.pb"
    path.write_bytes(constant.SerializeToString())
    facts = styles.recognise(styles.read_graph(path), styles.Options())
    assert len(facts.layers) == 2
    for layer in facts.layers:
        assert [(s.mode.value, s.switch.predicate, s.switch.default) for s in layer.sites] == [
            ("switched", "keras_learning_phase", False)
        ]


def towers(number: int, kept: str) -> None:
    """Towers with variables of their own; UPDATE_OPS of the first alone; a Saver of what is `kept`."""
    v1 = tf.compat.v1
    losses = []
    for tower in range(number):
        with v1.variable_scope(f"v{tower}"):
            losses.append(styles.loss_of(styles.two_layers(styles.slim_norm(scale=True))))
        if tower == 0:
            updates = v1.get_collection(styles.UPDATE_OPS)
    with tf.control_dependencies(updates):
        styles.minimize(tf.add_n(losses))
    variables = v1.trainable_variables() if kept == "trainable" else v1.global_variables()
    scope = {"first tower": "v0/", "trainable": "v", "first layer": "v0/first"}[kept]
    v1.train.Saver([variable for variable in variables if variable.op.name.startswith(scope)])


@pytest.mark.parametrize("number", [2, 3])
def test_copies_of_other_towers(number: int, tmp_path: Path) -> None:
    """What no Saver keeps, and is made as what one keeps, is a copy for another tower."""
    facts = _facts(lambda: towers(number, "first tower"), tmp_path)
    assert [layer.name for layer in facts.layers] == ["v0/first/BatchNorm", "v0/second/BatchNorm"]
    assert any(f"{2 * number - 2} copies" in note for note in facts.notes)


@pytest.mark.parametrize("kept", ["trainable", "first layer"])
def test_savers_that_forget_are_no_proof_of_copies(kept: str, tmp_path: Path) -> None:
    """A Saver without statistics, or with one layer of two, leaves every layer to be judged."""
    facts = _facts(lambda: towers(1 if kept == "first layer" else 2, kept), tmp_path)
    assert len(facts.layers) == (2 if kept == "first layer" else 4)


def _facts(build: Any, folder: Path) -> Any:
    """As `facts_of`, with no Saver but the test's own."""
    from bncheck.recognise import recognise
    from bncheck.settings.options import Options
    from bncheck.sources.graph.graphs import read_graph

    with tf.Graph().as_default():
        build()
        tf.compat.v1.train.export_meta_graph(str(folder / "graph.meta"))
    return recognise(read_graph(folder / "graph.meta"), Options())
