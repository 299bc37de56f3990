"""The twins against TensorFlow: the eval twin of a training graph is the inference graph its author would build."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.compare.prepared import prepare
from bncheck.compare.train_eval import measure
from bncheck.compare.twins.twins import open_twins
from bncheck.facts.errors import BncheckError, UsageError
from bncheck.facts.measurements import DataFacts
from bncheck.settings.options import Options
from bncheck.sources import open_model

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


class _Styles:
    """The module `graph_styles`, imported when the first test asks: collecting tests must not import TensorFlow."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("graph_styles"), name)


styles: Any = _Styles()
Net = Callable[[Any, Any], Any]
TRAINING, INFERENCE = True, False


def two_layers(normalise: Callable[[Any, str, Any], Any]) -> Net:
    """Two normalised convolutions, dropout, and a head without batch norm, in the given mode."""

    def net(x: Any, training: Any) -> Any:
        tf, v1 = styles.tf, styles.v1
        with v1.variable_scope("net", reuse=v1.AUTO_REUSE):
            for name in ("first", "second"):
                x = tf.nn.relu(normalise(styles.conv(x, 4, name), name, training))
            x = tf.reduce_mean(x, [1, 2])
            if training is not False:
                x = v1.nn.dropout(x, keep_prob=0.7)
            return tf.matmul(x, v1.get_variable("head", [4, 3]), name="logits")

    return net


def slim_norm(**keywords: Any) -> Callable[[Any, str, Any], Any]:
    """slim.batch_norm with gamma, in place updates so that any train op moves the statistics."""
    return lambda x, name, training: styles.slim.batch_norm(
        x, scope=name, is_training=training, scale=True, decay=0.8, **keywords
    )


def tf_layers(**keywords: Any) -> Callable[[Any, str, Any], Any]:
    """tf.layers.batch_normalization."""
    return lambda x, name, training: styles.slim_compat.load_tf_layers().batch_normalization(
        x, name=name, training=training, momentum=0.8, reuse=styles.v1.AUTO_REUSE, **keywords
    )


NETS: dict[str, Callable[[], tuple[Net, bool]]] = {
    "slim": lambda: (two_layers(slim_norm()), False),
    "slim unfused": lambda: (two_layers(slim_norm(fused=False)), False),
    "slim placeholder": lambda: (two_layers(slim_norm()), True),
    "tf.layers": lambda: (two_layers(tf_layers()), False),
    "tf.layers unfused placeholder": lambda: (two_layers(tf_layers(fused=False)), True),
    "assigned": lambda: (
        two_layers(lambda x, name, training: styles.assigned_population(x, name, training=training is not False)),
        False,
    ),
    "without gamma and beta": lambda: (two_layers(tf_layers(scale=False, center=False)), False),
}


def trained(net: Net, folder: Path, *, placeholder: bool) -> tuple[Path, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Trains a few steps; (checkpoint, a batch, the output of the author's own inference graph on it)."""
    tf, v1 = styles.tf, styles.v1
    images = np.random.default_rng(0).normal(1, 2, (8, 8, 8, 3)).astype(np.float32)
    prefix = folder / "model.ckpt-5"
    with tf.Graph().as_default():
        v1.set_random_seed(1)
        x = styles.images()
        switch = v1.placeholder_with_default(np.array(0, bool), [], name="training") if placeholder else True
        labels = v1.placeholder(tf.int64, [None], name="labels")
        loss = v1.losses.sparse_softmax_cross_entropy(labels, net(x, switch))
        train_op = styles.wired(loss)
        saver = v1.train.Saver()
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            feeds = {x: images, labels: np.arange(8) % 3} | ({switch: True} if placeholder else {})
            for _ in range(5):
                session.run(train_op, feeds)
            saver.save(session, str(prefix))
    with tf.Graph().as_default():
        x = styles.images()
        logits = net(x, INFERENCE)
        with v1.Session() as session:
            v1.train.Saver().restore(session, str(prefix))
            return prefix, images, session.run(logits, {x: images})


@pytest.mark.parametrize("name", NETS)
def test_eval_twin_is_the_inference_graph(name: str, tmp_path: Path) -> None:
    """From training `.meta` and checkpoint alone, the eval twin gives what the author's inference graph gives."""
    net, placeholder = NETS[name]()
    prefix, images, expected = trained(net, tmp_path, placeholder=placeholder)
    prepared = prepare(open_model(prefix), Options())
    assert [site.layer for site in prepared.forward.sites] == ["net/first", "net/second"]
    with open_twins(prepared.forward) as twins:
        run = twins.run(images)
    np.testing.assert_allclose(run.eval_outputs[0], expected, rtol=2e-4, atol=2e-5)
    assert not np.allclose(run.train_outputs[0], expected, rtol=1e-2, atol=1e-3)


def test_batch_moments_are_those_of_the_input(tmp_path: Path) -> None:
    """What the train twin tells of the first layer's input is its biased mean and variance, computed independently."""
    net, _ = NETS["slim"]()
    prefix, images, _ = trained(net, tmp_path, placeholder=False)
    raw = open_model(prefix)
    prepared = prepare(raw, Options())
    with open_twins(prepared.forward) as twins:
        run = twins.run(images)
    kernel = raw.tensors["net/first/kernel"].read()
    x = styles.tf.nn.conv2d(images, kernel, 1, "SAME").numpy().astype(np.float64)
    np.testing.assert_allclose(run.moments.means[0], x.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.moments.variances[0], x.var((0, 1, 2)), rtol=1e-5)
    assert run.moments.samples == (512, 512)


def test_identical_statistics_differ_by_nothing_but_noise(tmp_path: Path) -> None:
    """A model whose stored statistics are those of the batch agrees with itself in both modes."""
    net, _ = NETS["slim"]()
    prefix, images, _ = trained(net, tmp_path, placeholder=False)
    prepared = prepare(open_model(prefix), Options())
    with open_twins(prepared.forward) as twins:
        first = measure(twins, prepared, [(images, None)], described)
    assert len(first.layers) == 2
    assert all(layer.cumulative_nmse > 0 for layer in first.layers)
    assert first.layers[0].local_nmse == pytest.approx(first.layers[0].cumulative_nmse, rel=1e-3)


def test_labels_give_accuracy_in_both_modes(tmp_path: Path) -> None:
    """Accuracy is counted against the labels for each twin, whatever the split into batches."""
    net, _ = NETS["slim"]()
    prefix, images, expected = trained(net, tmp_path, placeholder=False)
    prepared = prepare(open_model(prefix), Options())
    labels = expected.argmax(1)
    with open_twins(prepared.forward) as twins:
        whole = measure(twins, prepared, [(images, labels)], described)
        halves = measure(twins, prepared, [(images[:4], labels[:4]), (images[4:], labels[4:])], described)
    assert whole.accuracy.eval == halves.accuracy.eval == 1.0
    assert whole.accuracy.train is not None
    assert halves.data.batches == 2


def test_missing_statistics_are_named(tmp_path: Path) -> None:
    """A checkpoint without the moving statistics cannot be compared, and the error says which layer."""
    net, _ = NETS["slim"]()
    tf, v1 = styles.tf, styles.v1
    with tf.Graph().as_default():
        net(styles.images(), TRAINING)
        saver = v1.train.Saver(v1.trainable_variables())
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            saver.save(session, str(tmp_path / "model.ckpt"))
    with pytest.raises(BncheckError, match=r"net/(first|second) has no stored mean"):
        prepare(open_model(tmp_path / "model.ckpt"), Options())


def test_unknown_output_is_named(tmp_path: Path) -> None:
    """An output that the graph does not have is a usage error."""
    net, _ = NETS["slim"]()
    prefix, _, _ = trained(net, tmp_path, placeholder=False)
    with pytest.raises(UsageError, match="no tensor 'nowhere'"):
        prepare(open_model(prefix), Options(outputs=("nowhere",)))


def test_the_keys_of_a_signature_are_names_too() -> None:
    """What a SavedModel calls its inputs and outputs names their tensors."""
    raw = open_model(Path(__file__).parents[3] / "fixtures/tiny/healthy/keras_export/model")
    (signature,) = [each for graph in raw.graphs for each in graph.signatures if each.name == "serving_default"]
    ((input_key, _),) = signature.inputs.items()
    ((output_key, _),) = signature.outputs.items()
    named = prepare(raw, Options(inputs=input_key, outputs=(output_key,)))
    assert named.outputs == (output_key,)


def test_python_ops_are_refused_unless_trusted(tmp_path: Path) -> None:
    """A graph that runs Python, files or the network in its forward pass is refused by name."""

    def with_python(x: Any, training: Any) -> Any:
        net, _ = NETS["slim"]()
        return styles.v1.py_func(lambda v: v, [net(x, training)], styles.tf.float32, name="python")

    tf, v1 = styles.tf, styles.v1
    with tf.Graph().as_default():
        with_python(styles.images(), TRAINING)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    with pytest.raises(BncheckError, match=r"PyFunc.*--trust-model"):
        prepare(open_model(tmp_path / "model.ckpt"), Options(outputs=("python",)))


def described(samples: int, batch_size: int, batches: int) -> DataFacts:
    """Facts of test data."""
    return DataFacts(description="noise", samples=samples, batch_size=batch_size, batches=batches)
