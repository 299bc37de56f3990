"""Models as people write them: whatever feeds them, drops out, branches or loops, the twins are theirs.

Each is trained for a few steps with its updates wired, and saved; from checkpoint and MetaGraph alone, the eval twin
must give what the author's own inference graph gives, at the outputs that were found without being named.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.compare.outputs import Kind
from bncheck.compare.prepared import Prepared, prepare
from bncheck.compare.train_eval import measure
from bncheck.compare.twins.twins import open_twins
from bncheck.facts.errors import BncheckError, UsageError
from bncheck.facts.measurements import Comparison, DataFacts
from bncheck.settings.options import Options
from bncheck.sources import open_model

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


class _Styles:
    """The module `graph_styles`, imported when the first test asks: collecting tests must not import TensorFlow."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("graph_styles"), name)


styles: Any = _Styles()
IMAGES = np.random.default_rng(0).normal(0.3, 1.2, (64, 8, 8, 3)).astype(np.float32)
LABELS = np.arange(64) % 4
CONDITION = np.random.default_rng(1).normal(2, 1, (64, 2)).astype(np.float32)
TRAINING, INFERENCE = True, False


@dataclass
class Built:
    """A training or inference graph: what is learned, what comes out, what to feed."""

    outputs: list[Any]
    loss: Any = None
    feeds: dict[Any, Any] = field(default_factory=dict)
    images: Any = None
    init: Any = None


Build = Callable[[Any], Built]


def norm(x: Any, training: Any, name: str, **keywords: Any) -> Any:
    """tf.layers.batch_normalization that forgets quickly."""
    layers = styles.slim_compat.load_tf_layers()
    return layers.batch_normalization(x, training=training, momentum=0.8, name=name, **keywords)


def body(x: Any, training: Any, channels: tuple[int, ...] = (4, 8)) -> Any:
    """Normalised, rectified convolutions."""
    for number, count in enumerate(channels):
        x = styles.tf.nn.relu(norm(styles.conv(x, count, f"conv{number}"), training, f"bn{number}"))
    return x


def dense(x: Any, name: str = "head", units: int = 4) -> Any:
    """A dense layer with a bias."""
    v1, tf = styles.v1, styles.tf
    kernel = v1.get_variable(f"{name}/kernel", [x.shape[-1], units])
    return tf.matmul(x, kernel) + v1.get_variable(f"{name}/bias", [units], initializer=v1.zeros_initializer())


def pooled(x: Any) -> Any:
    """The mean over height and width."""
    return styles.tf.reduce_mean(x, [1, 2])


def classified(x: Any, logits: Any, **feeds: Any) -> Built:
    """Softmax cross entropy on labels that are fed."""
    labels = styles.v1.placeholder(styles.tf.int64, [None], name="labels")
    return Built(
        outputs=[logits],
        loss=styles.v1.losses.sparse_softmax_cross_entropy(labels, logits),
        feeds={x: IMAGES, labels: LABELS, **feeds.get("also", {})},
        images=x,
    )


def keep_prob_and_phase(training: Any) -> Built:
    """Placeholders without a default, for dropout and for the mode."""
    tf, v1 = styles.tf, styles.v1
    x = styles.images()
    if not training:
        return Built(outputs=[dense(pooled(body(x, INFERENCE)))], images=x)
    keep, phase = v1.placeholder(tf.float32, name="keep_prob"), v1.placeholder(tf.bool, name="phase")
    logits = dense(pooled(v1.nn.dropout(body(x, phase), keep_prob=keep)))
    return classified(x, logits, also={keep: 0.8, phase: True})


def iterator(training: Any) -> Built:
    """tf.data within the graph."""
    v1, data = styles.v1, styles.tf.data
    if not training:
        x = styles.images()
        return Built(outputs=[dense(pooled(body(x, INFERENCE)))], images=x)
    made = v1.data.make_initializable_iterator(data.Dataset.from_tensor_slices((IMAGES, LABELS)).repeat().batch(32))
    x, labels = made.get_next()
    logits = dense(pooled(body(x, TRAINING)))
    loss = v1.losses.sparse_softmax_cross_entropy(labels, logits)
    return Built(outputs=[logits], loss=loss, images=x, init=made.initializer)


def queue(training: Any) -> Built:
    """A queue, as input pipelines were once written; the training stops before it runs dry."""
    tf, v1 = styles.tf, styles.v1
    if not training:
        return iterator(INFERENCE)
    held = tf.queue.FIFOQueue(512, [tf.float32, tf.int64], shapes=[[8, 8, 3], []])
    x, labels = held.dequeue_many(32)
    logits = dense(pooled(body(x, TRAINING)))
    loss = v1.losses.sparse_softmax_cross_entropy(labels, logits)
    fill = held.enqueue_many([np.tile(IMAGES, (8, 1, 1, 1)), np.tile(LABELS, 8)])
    return Built(outputs=[logits], loss=loss, images=x, init=fill)


def detector(training: Any) -> Built:
    """Boxes by an L1 loss and classes by cross entropy."""
    tf, v1 = styles.tf, styles.v1
    x = styles.images()
    features = body(x, training)
    boxes, logits = styles.conv(features, 4, "boxes"), dense(pooled(features))
    if not training:
        return Built(outputs=[logits, boxes], images=x)
    wanted = v1.placeholder(tf.float32, [None, 8, 8, 4], name="wanted")
    built = classified(x, logits, also={wanted: np.zeros((64, 8, 8, 4), np.float32)})
    built.loss += tf.reduce_mean(tf.abs(boxes - wanted))
    return built


def autoencoder(training: Any) -> Built:
    """A loss without labels."""
    tf, v1 = styles.tf, styles.v1
    x = styles.images()
    kernel = v1.get_variable("decoder", [3, 3, 3, 8])
    decoded = tf.nn.conv2d_transpose(body(x, training), kernel, tf.shape(x), 1)
    return Built(outputs=[decoded], loss=tf.reduce_mean(tf.square(decoded - x)), feeds={x: IMAGES}, images=x)


def sigmoid_heads(training: Any) -> Built:
    """Sigmoid cross entropy, which is written in elementary ops."""
    tf, v1 = styles.tf, styles.v1
    x = styles.images()
    logits = dense(pooled(body(x, training)))
    if not training:
        return Built(outputs=[logits], images=x)
    labels = v1.placeholder(tf.float32, [None, 4], name="labels")
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))
    return Built(outputs=[logits], loss=loss, feeds={x: IMAGES, labels: np.eye(4)[LABELS]}, images=x)


def channels_first(training: Any) -> Built:
    """Batch norm on axis 1, unfused, with gamma and beta that are reshaped."""
    tf = styles.tf
    x = styles.images()
    y = norm(tf.transpose(x, [0, 3, 1, 2]), training, "first", axis=1, fused=False)
    logits = dense(pooled(body(tf.nn.relu(tf.transpose(y, [0, 2, 3, 1])), training)))
    return classified(x, logits) if training else Built(outputs=[logits], images=x)


def half(training: Any) -> Built:
    """float16 between float32 variables, batch norm written by hand in float16."""
    tf, v1 = styles.tf, styles.v1
    x = styles.images()
    y = tf.nn.conv2d(tf.cast(x, tf.float16), tf.cast(v1.get_variable("w", [3, 3, 3, 4]), tf.float16), 1, "SAME")
    mean, variance = (
        v1.get_variable(f"bn/moving_{name}", [4], trainable=False, initializer=v1.constant_initializer(start))
        for name, start in (("mean", 0.0), ("variance", 1.0))
    )
    beta = tf.cast(v1.get_variable("bn/beta", [4], initializer=v1.zeros_initializer()), tf.float16)
    now = tf.nn.moments(y, [0, 1, 2]) if training else (tf.cast(mean, tf.float16), tf.cast(variance, tf.float16))
    if training:
        for kept, seen in zip((mean, variance), now, strict=True):
            update = v1.assign(kept, 0.8 * kept + 0.2 * tf.cast(seen, tf.float32))
            v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
    y = tf.nn.batch_normalization(y, *now, beta, None, tf.constant(1e-3, tf.float16))
    logits = dense(pooled(tf.cast(tf.nn.relu(y), tf.float32)))
    return classified(x, logits) if training else Built(outputs=[logits], images=x)


def recurrent(training: Any) -> Built:
    """A loop behind batch norm, with a variable in it, that reads its steps from an array as `dynamic_rnn` does."""
    tf, v1 = styles.tf, styles.v1
    x = styles.images()
    rows = tf.transpose(tf.reshape(body(x, training, (4,)), [-1, 8, 32]), [1, 0, 2])
    array = tf.TensorArray(tf.float32, 8).unstack(rows)
    kernel = v1.get_variable("cell", [36, 4], use_resource=True)

    def step(n: Any, state: Any) -> Any:
        return n + 1, tf.tanh(tf.matmul(tf.concat([array.read(n), state], 1), kernel))

    shapes = [tf.TensorShape([]), tf.TensorShape([None, 4])]
    _, state = v1.while_loop(lambda n, _: n < 8, step, [0, tf.zeros([tf.shape(x)[0], 4])], shapes)
    return classified(x, dense(state)) if training else Built(outputs=[dense(state)], images=x)


def keras_phase(training: Any) -> Built:
    """tf.keras layers in a TF1 graph, batch norm and dropout switched by a placeholder."""
    keras = importlib.import_module("tf_keras")
    v1, layers = styles.v1, keras.layers
    x = styles.images()
    model = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(momentum=0.8), layers.ReLU()])
    for layer in (layers.Dropout(0.3), layers.GlobalAveragePooling2D(), layers.Dense(4)):
        model.add(layer)
    if not training:
        return Built(outputs=[model(x, training=False)], images=x)
    phase = v1.placeholder_with_default(np.array(0, bool), [], "phase")
    logits = model(x, training=phase)
    for update in model.updates:
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
    return classified(x, logits, also={phase: True})


def other_norms(training: Any) -> Built:
    """Layer and group norm beside batch norm: they are the same in both modes."""
    tf = styles.tf
    x = styles.images()
    y = body(x, training)
    for shape, axes in (([-1, 8, 8, 8], [1, 2, 3]), ([-1, 8, 8, 4, 2], [1, 2, 4])):
        y = tf.reshape(y, shape)
        mean, variance = tf.nn.moments(y, axes, keepdims=True)
        y = (y - mean) * tf.math.rsqrt(variance + 1e-5)
    logits = dense(pooled(tf.reshape(y, [-1, 8, 8, 8])))
    return classified(x, logits) if training else Built(outputs=[logits], images=x)


def towers(training: Any) -> Built:
    """One batch dealt to two copies that share their layers: the first takes all of it."""
    tf, v1 = styles.tf, styles.v1
    x = styles.images()
    if not training:
        with v1.variable_scope("net"):
            return Built(outputs=[dense(pooled(body(x, INFERENCE)))], images=x)
    labels = v1.placeholder(tf.int64, [None], name="labels")
    losses = []
    for number, (part, wanted) in enumerate(zip(tf.split(x, 2), tf.split(labels, [32, 32]), strict=True)):
        with v1.variable_scope("net", reuse=number > 0), v1.name_scope(f"tower{number}"):
            logits = dense(pooled(body(part, TRAINING)))
            losses.append(v1.losses.sparse_softmax_cross_entropy(wanted, logits))
    return Built(outputs=[logits], loss=tf.add_n(losses), feeds={x: IMAGES, labels: LABELS}, images=x)


def segmenter(training: Any) -> Built:
    """A class for each pixel, which its loss makes rows."""
    tf, v1 = styles.tf, styles.v1
    x = styles.images()
    logits = styles.conv(body(x, training), 2, "pixels")
    if not training:
        return Built(outputs=[logits], images=x)
    loss = v1.losses.sparse_softmax_cross_entropy(tf.cast(x[..., 0] > 0, tf.int64), logits)
    return Built(outputs=[logits], loss=loss, feeds={x: IMAGES}, images=x)


def contrastive(training: Any) -> Built:
    """A loss on the samples' likeness to each other: what is told is the embedding."""
    tf = styles.tf
    x = styles.images()
    embedded = dense(pooled(body(x, training)))
    if not training:
        return Built(outputs=[embedded], images=x)
    alike = tf.matmul(embedded, embedded, transpose_b=True) / 0.1
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.range(64), logits=alike)
    return Built(outputs=[embedded], loss=tf.reduce_mean(loss), feeds={x: IMAGES}, images=x)


def embedded_class(training: Any) -> Built:
    """A second input that weights follow, and labels that join behind them, in one training graph."""
    tf, v1 = styles.tf, styles.v1
    x, condition = styles.images(), v1.placeholder(tf.float32, [None, 2], name="condition")
    told = tf.nn.relu(norm(dense(condition, "told", 3), training, "bn_told"))
    logits = dense(tf.concat([pooled(body(x, training)), told], 1))
    if not training:
        return Built(outputs=[logits], images=x, feeds={condition: CONDITION})
    return classified(x, logits, also={condition: CONDITION})


MODELS: dict[str, Build] = {
    build.__name__: build
    for build in (
        keep_prob_and_phase,
        iterator,
        queue,
        detector,
        autoencoder,
        sigmoid_heads,
        channels_first,
        half,
        recurrent,
        keras_phase,
        other_norms,
        towers,
        segmenter,
        contrastive,
        embedded_class,
    )
}
LOOPS_OF_OLD = "recurrent, control flow v1"


def prefix_and_outputs(build: Build, folder: Path) -> tuple[Path, list[Any]]:
    """Trains for four steps and saves; gives the checkpoint and what the author's inference graph puts out."""
    tf, v1 = styles.tf, styles.v1
    prefix = folder / "model.ckpt"
    with tf.Graph().as_default():
        v1.set_random_seed(1)
        built = build(TRAINING)
        with tf.control_dependencies(v1.get_collection(styles.UPDATE_OPS)):
            train_op = v1.train.AdamOptimizer(1e-3).minimize(built.loss)
        saver = v1.train.Saver()
        with v1.Session() as session:
            session.run([v1.global_variables_initializer(), *([] if built.init is None else [built.init])])
            for _ in range(4):
                session.run(train_op, built.feeds)
            saver.save(session, str(prefix))
    with tf.Graph().as_default():
        built = build(INFERENCE)
        with v1.Session() as session:
            v1.train.Saver().restore(session, str(prefix))
            return prefix, session.run(built.outputs, {built.images: IMAGES} | built.feeds)


def together(*arrays: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A batch for several inputs."""
    rows = np.empty(len(arrays[0]), [(str(n), array.dtype, array.shape[1:]) for n, array in enumerate(arrays)])
    for number, array in enumerate(arrays):
        rows[str(number)] = array
    return rows


@pytest.mark.parametrize("name", [*MODELS, LOOPS_OF_OLD])
def test_eval_twin_is_the_authors_inference_graph(name: str, tmp_path: Path) -> None:
    """Found without being named: input, outputs, layers; and both twins run."""
    v1 = styles.v1
    before = v1.control_flow_v2_enabled()
    (v1.disable_control_flow_v2 if name == LOOPS_OF_OLD else v1.enable_control_flow_v2)()
    try:
        prefix, expected = prefix_and_outputs(MODELS[name.partition(",")[0]], tmp_path)
    finally:
        (v1.enable_control_flow_v2 if before else v1.disable_control_flow_v2)()
    prepared = prepare(open_model(prefix), Options())
    assert len(prepared.outputs) == len(expected)
    with open_twins(prepared.forward) as twins:
        entry, *others = twins.inputs
        assert entry.shape is not None
        assert entry.shape[1:] == (8, 8, 3)
        run = twins.run(together(IMAGES, CONDITION) if others else IMAGES)
    for ours, theirs in zip(run.eval_outputs, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3 if name == "half" else 2e-4)
    assert not np.allclose(run.train_outputs[0], expected[0], rtol=1e-2, atol=1e-3)


def comparison(prepared: Prepared, batches: list[Any]) -> Comparison:
    """What comparing measures."""

    def described(samples: int, batch_size: int, count: int) -> DataFacts:
        return DataFacts(description="noise", samples=samples, batch_size=batch_size, batches=count)

    with open_twins(prepared.forward) as twins:
        return measure(twins, prepared, batches, described)


def test_heads_are_told_apart(tmp_path: Path) -> None:
    """Of a detector, labels are held against the scores and never against the boxes."""
    prefix, _ = prefix_and_outputs(detector, tmp_path)
    prepared = prepare(open_model(prefix), Options())
    assert prepared.kinds == (Kind.SCORES, Kind.NUMBERS)
    found = comparison(prepared, [(IMAGES[:32], LABELS[:32]), (IMAGES[32:], LABELS[32:])])
    assert [output.classes for output in found.outputs] == [4, None]
    assert found.accuracy.train is not None
    assert all(output.floor is not None for output in found.outputs)


def test_batch_norm_in_a_loop_is_refused(tmp_path: Path) -> None:
    """One sentence that names the loop, where batch norm stands in it."""
    tf, v1 = styles.tf, styles.v1

    def looped(training: Any) -> Built:
        x = styles.images()
        rows = tf.reshape(x, [-1, 8, 24])
        kernel = v1.get_variable("cell", [28, 4], use_resource=True)

        def step(n: Any, state: Any) -> Any:
            return n + 1, tf.tanh(norm(tf.matmul(tf.concat([rows[:, n], state], 1), kernel), training, "bn"))

        shapes = [tf.TensorShape([]), tf.TensorShape([None, 4])]
        _, state = v1.while_loop(lambda n, _: n < 8, step, [0, tf.zeros([tf.shape(x)[0], 4])], shapes)
        return classified(x, dense(state))

    with tf.Graph().as_default():
        v1.train.AdamOptimizer().minimize(looped(TRAINING).loss)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    with pytest.raises(BncheckError, match=r"while is a loop with batch norm in it"):
        prepare(open_model(tmp_path / "model.ckpt"), Options())


def test_towers_with_inputs_of_their_own(tmp_path: Path) -> None:
    """Of towers that share their layers the first stands for all; inputs of different networks have to be chosen."""
    tf, v1 = styles.tf, styles.v1

    def two(shared: Any) -> None:
        for number in range(2):
            x = v1.placeholder(tf.float32, [None, 8, 8, 3], name=f"x{number}")
            with v1.variable_scope("net" if shared else f"net{number}", reuse=v1.AUTO_REUSE):
                dense(pooled(body(x, TRAINING)))

    for shared in (True, False):
        with tf.Graph().as_default():
            two(shared)
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                v1.train.Saver().save(session, str(tmp_path / f"{shared}.ckpt"))
    assert prepare(open_model(tmp_path / "True.ckpt"), Options()).input == "x0"
    with pytest.raises(UsageError, match=r"several inputs feed batch norm \(x0:0, x1:0\): choose one with --inputs"):
        prepare(open_model(tmp_path / "False.ckpt"), Options())


@pytest.mark.parametrize("lowered", [True, False])
def test_recurrent_keras_model(tmp_path: Path, *, lowered: bool) -> None:
    """An LSTM behind batch norm: from Keras's own file, and from a frozen graph with its loop lowered and not."""
    keras, tf = importlib.import_module("tf_keras"), styles.tf
    layers = keras.layers
    model = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()])
    for layer in (layers.Reshape((6, 24)), layers.LSTM(4), layers.Dense(2)):
        model.add(layer)
    expected = model(IMAGES, training=False).numpy()
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec([None, 8, 8, 3]))
    freeze = importlib.import_module("tensorflow.python.framework.convert_to_constants")
    frozen = freeze.convert_variables_to_constants_v2(function, lower_control_flow=lowered).graph.as_graph_def()
    (tmp_path / "frozen.pb").write_bytes(frozen.SerializeToString())
    model.save(tmp_path / "model.keras")
    for name in ("frozen.pb", "model.keras"):
        with open_twins(prepare(open_model(tmp_path / name), Options()).forward) as twins:
            run = twins.run(IMAGES)
        np.testing.assert_allclose(run.eval_outputs[0], expected, rtol=2e-3, atol=2e-4)
        assert not np.allclose(run.train_outputs[0], expected, rtol=1e-2, atol=1e-3)
