"""Other kinds of batch norm are named, not run as plain ones, whatever file the model is in."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck import compare_float_vs_quantized, compare_train_vs_eval, inspect_model
from bncheck.compare.twins.plain import refuse_other_kinds
from bncheck.facts.errors import NotJudged
from bncheck.facts.findings import Verdict
from bncheck.facts.norm_kinds import NormKind
from bncheck.testing import batch_norm

OTHERS = {
    NormKind.RENORMALISED: {"renorm": True},
    NormKind.GHOST: {"virtual_batch_size": 8},
    NormKind.SEVERAL_AXES: {"axis": [1, 3]},
}
FORMS = ("h5", "keras", "saved", "exported", "frozen")


@pytest.mark.parametrize("kind", list(OTHERS))
def test_other_kinds_are_named(kind: NormKind) -> None:
    """With the layer, and what sets it apart."""
    with pytest.raises(NotJudged, match=f"bn {kind.value.split('(')[0].split('[')[0]}"):
        refuse_other_kinds([batch_norm("plain"), replace(batch_norm("bn"), kind=kind)])


def test_plain_ones_pass() -> None:
    """Nothing is said of what all do."""
    refuse_other_kinds([batch_norm("bn")])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[NormKind, str], Path]:
    """One small model of tf-keras a kind, in every form that it can be kept in, and the plain one."""
    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("tf_keras")
    folder, layers = tmp_path_factory.mktemp("kinds"), keras.layers
    random = np.random.default_rng(0)
    images = random.normal(size=(64, 8, 8, 3)).astype(np.float32)
    np.savez(folder / "d.npz", images=images)
    found = {}
    for kind, config in {NormKind.PLAIN: {"fused": False}, **OTHERS}.items():
        entry = layers.Input((8, 8, 3), batch_size=32 if kind is NormKind.GHOST else None)
        norm = layers.BatchNormalization(name="bn", momentum=0.5, **config)
        x = layers.Activation("relu")(norm(layers.Conv2D(6, 3, padding="same", use_bias=False)(entry)))
        model = keras.Model(entry, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
        model.set_weights([weight + random.uniform(0, 0.1, weight.shape) for weight in model.get_weights()])
        paths = {form: folder / f"{kind.name}_{form}" for form in FORMS}
        for form in ("h5", "keras"):
            paths[form] = paths[form].with_suffix(f".{form}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(paths["h5"])
            model.save(paths["keras"])
            model.save(paths["saved"], save_format="tf")
            model.export(paths["exported"])
        paths["frozen"] = _frozen(tf, model, folder / f"{kind.name}.pb")
        found |= {(kind, form): path for form, path in paths.items()}
    return found


def _frozen(tf: Any, model: Any, path: Path) -> Path:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    whole = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec(model.inputs[0].shape))
    path.write_bytes(convert_variables_to_constants_v2(whole).graph.as_graph_def().SerializeToString())
    return path


@pytest.mark.tensorflow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", list(OTHERS))
def test_every_file_of_a_model_gives_one_answer(
    saved: dict[tuple[NormKind, str], Path], kind: NormKind, form: str
) -> None:
    """One layer, its values read, and both modes not judged; a frozen graph holds nothing of batch renormalisation."""
    if (kind, form) == (NormKind.RENORMALISED, "frozen"):
        pytest.skip("in eval mode batch renormalisation is plain batch norm")
    path = saved[kind, form]
    report = inspect_model(path)
    assert [layer.kind for layer in report.layers] == [kind]
    assert report.layers[0].variance.values is not None
    assert not report.findings
    compared = compare_train_vs_eval(path, data=path.parent / "d.npz")
    assert compared.verdict is Verdict.INCONCLUSIVE
    assert compared.exit_code == 3
    assert f"bn {kind.value}" in compared.headline
    assert compared.comparison is None


@pytest.mark.tensorflow
def test_quantized_is_not_judged_either(saved: dict[tuple[NormKind, str], Path]) -> None:
    """The answer names both."""
    path = saved[NormKind.GHOST, "exported"]
    report = compare_float_vs_quantized(path, data=path.parent / "d.npz")
    assert report.exit_code == 3
    assert report.headline.startswith("train vs eval and float vs quantized were not judged: ")


@pytest.mark.tensorflow
@pytest.mark.parametrize("form", FORMS)
def test_plain_batch_norm_runs_in_every_file(saved: dict[tuple[NormKind, str], Path], form: str) -> None:
    """The same layer by the same ops, but for what sets the others apart."""
    path = saved[NormKind.PLAIN, form]
    report = compare_train_vs_eval(path, data=path.parent / "d.npz")
    assert report.comparison is not None
    assert report.layers[0].kind is NormKind.PLAIN


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:.*batch_normalization. is deprecated")
@pytest.mark.parametrize("mode", ["fed", "fixed"])
@pytest.mark.parametrize("kind", list(NormKind))
def test_kinds_in_training_graphs(kind: NormKind, mode: str, tmp_path: Path) -> None:
    """tf.layers in a TF1 graph, the mode fixed or fed: told by what the graph computes."""
    import tensorflow.compat.v1 as tf

    from bncheck.backbones.slim_compat import load_tf_layers

    layers, config = load_tf_layers(), OTHERS.get(kind, {"fused": False})
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, (None, 8, 8, 3), "images")
        training = tf.placeholder_with_default(np.False_, (), "training") if mode == "fed" else True
        kernel = tf.get_variable("kernel", (3, 3, 3, 6))
        x = tf.nn.conv2d(images, kernel, strides=1, padding="SAME")
        with tf.variable_scope("mine"):
            x = layers.batch_normalization(x, training=training, name="bn", **config)
        loss = tf.reduce_mean(tf.square(tf.nn.relu(x)))
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            tf.train.GradientDescentOptimizer(0.1).minimize(loss)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "m.ckpt"))
    report = inspect_model(tmp_path / "m.ckpt")
    assert [layer.kind for layer in report.layers] == [kind]
