"""SavedModels with a MetaGraph for training beside the one that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tf_slim")

import bncheck  # noqa: E402
from bncheck.backbones.slim_compat import load_slim  # noqa: E402

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore:`layer.apply`")]
v1 = tf.compat.v1
STEPS = 60


def exported(folder: Path, *, wired: bool, train_op: bool) -> str:
    """A SavedModel with tags `train` and `serve`, trained for some steps in the first, as Estimator exports it."""
    slim: Any = load_slim()

    def net(*, training: bool) -> tuple[Any, Any]:
        images = v1.placeholder(tf.float32, [None, 4, 4, 3], name="images")
        with slim.arg_scope([slim.batch_norm], is_training=training, decay=0.9):
            return images, slim.conv2d(images, 4, 3, normalizer_fn=slim.batch_norm, scope="conv")

    builder = v1.saved_model.Builder(str(folder))
    with tf.Graph().as_default(), v1.Session() as session:
        images, out = net(training=True)
        step, loss = v1.train.get_or_create_global_step(), tf.reduce_mean((out - 1.0) ** 2)
        if train_op:
            with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS) if wired else []):
                train = v1.train.AdamOptimizer(0.01).minimize(loss, step)
        session.run(v1.global_variables_initializer())
        if train_op:
            for _ in range(STEPS):
                session.run(train, {images: tf.random.stateless_normal([8, 4, 4, 3], [1, 2]).eval(session=session)})
        builder.add_meta_graph_and_variables(session, ["train"])
    with tf.Graph().as_default():
        images, out = net(training=False)
        signature = v1.saved_model.predict_signature_def({"images": images}, {"out": out})
        builder.add_meta_graph(["serve"], {"serving_default": signature})
    builder.save()
    return str(folder)


def test_forgotten_updates_are_seen_in_the_training_graph(tmp_path: Path) -> None:
    """The graph that serves is right; the one beside it tells why the statistics never moved."""
    report = bncheck.inspect_model(exported(tmp_path / "m", wired=False, train_op=True))
    causes = {finding.code: finding.caused_by for finding in report.findings}
    assert causes["BN101"] == "BN201"
    assert [layer.name for layer in report.layers] == ["conv/BatchNorm"]
    assert {site.mode.value for site in report.layers[0].sites} == {"train", "eval"}


@pytest.mark.parametrize("train_op", [False, True])
def test_nothing_is_found_where_all_is_right(tmp_path: Path, *, train_op: bool) -> None:
    """Updates wired; or a module whose training graph has no train op, as TF-Hub's have none, and is not trained."""
    report = bncheck.inspect_model(exported(tmp_path / "m", wired=True, train_op=train_op))
    assert [finding.code for finding in report.findings if finding.severity.value != "info"] == []
    assert any("`train` was read too" in note for note in report.target.notes)
