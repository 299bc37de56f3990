"""The printed fix of a layer's call, a hand-written update or an export mends the script that it is pasted into."""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_scripts import CONV, LOSS, OWN, RUN, STEPS, WIRED, Case, Script, at_train, code_of, finding, tf

import bncheck
from bncheck.backbones.slim_compat import load_slim
from bncheck.facts.findings import Report, Severity

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:`tf.layers", "ignore:`layer.apply`", "ignore:__array__"),
]

v1 = tf.compat.v1
READ = "update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS)\n"
UNDER = f"with tf.control_dependencies(update_ops):\n    {WIRED}"
CALL = 'net = slim.batch_norm(net, is_training=True, scope="second", reuse=True)'


def within_slim(*lines: str) -> str:
    """A model whose layers share decay and gamma, as an arg_scope has it."""
    body = textwrap.indent("\n".join(lines), "    ")
    return f"with slim.arg_scope([slim.batch_norm], decay=0.9, scale=True):\n{body}"


def at_call(line: str) -> Callable[[Script, str], Script]:
    """The fix takes the place of this line of the model."""

    def mended(broken: Script, fix: str) -> Script:
        margin = next(found[: -len(found.lstrip())] for found in broken.model.splitlines() if found.strip() == line)
        assert broken.model.count(margin + line) == 1
        model = broken.model.replace(margin + line, textwrap.indent(fix.rstrip(), margin))
        return Script(model, broken.train, broken.start, broken.step)

    return mended


TWO = within_slim(
    CONV,
    'net = slim.batch_norm(net, is_training=True, scope="second")',
    LOSS,
    'val_images = tf.placeholder(tf.float32, [None, 4, 4, 3], name="val_images")',
    'net = tf.nn.conv2d(val_images, w, 1, "SAME")',
    CALL,
    "val_loss = tf.reduce_mean(net)",
)
BOTH_FED = "session.run(train_op, {images: batch, val_images: batch + 1.0})"
MIXED = within_slim(
    'phase = tf.placeholder(tf.bool, [], name="phase")',
    CONV,
    'net = tf.nn.relu(slim.batch_norm(net, is_training=phase, scope="first"))',
    'net = tf.nn.conv2d(net, tf.get_variable("v", [1, 1, 4, 4]), 1, "SAME")',
    "net = slim.batch_norm(net, is_training=True)",
    LOSS,
)
DEPTHS = within_slim(
    CONV,
    'v = tf.get_variable("v", [1, 1, 4, 4])',
    "for i in range(3):",
    "    net = tf.nn.relu(net)",
    '    net = slim.batch_norm(net, is_training=True, scope="bn", reuse=i > 0)',
    '    net = tf.nn.conv2d(net, v, 1, "SAME")',
    LOSS,
)
COUNTED = f"""
{CONV}
gamma = tf.get_variable("gamma", [4], initializer=tf.ones_initializer())
beta = tf.get_variable("beta", [4], initializer=tf.zeros_initializer())
before = net
m, v = tf.nn.moments(net, [0, 1, 2])
average = tf.train.ExponentialMovingAverage(0.9, num_updates=global_step)
with tf.control_dependencies([average.apply([m, v])]):
    net = tf.nn.batch_normalization(net, tf.identity(m), tf.identity(v), beta, gamma, 1e-3)
test_net = tf.nn.batch_normalization(before, average.average(m), average.average(v), beta, gamma, 1e-3)
{LOSS}"""
UPDATES = OWN[OWN.index("updates = [") : OWN.index("{then}")]
EVAL = "test = tf.nn.batch_normalization(net, mean, variance, beta, gamma, 1e-3)"
NO_UPDATE = CONV + OWN.replace(UPDATES, "").format(then=EVAL) + LOSS
ONE = "updates = [tf.assign(mean, 0.9 * mean + 0.1 * m)]\n"
ONE_UPDATE = CONV + OWN.replace(UPDATES, ONE).format(then=EVAL) + LOSS

CASES = {
    "no update was written": Case(Script(NO_UPDATE), "BN203", "No op in the graph", at_train),
    "the mean's update alone was written": Case(
        Script(ONE_UPDATE, f"with tf.control_dependencies(updates):\n    {WIRED}"), "BN203", "moving variance", at_train
    ),
    "a validation tower updates too": Case(
        Script(TWO, READ + UNDER, step=BOTH_FED), "BN213", "`val_images`", at_call(CALL)
    ),
    "a validation tower in train mode": Case(
        Script(TWO, READ + 'update_ops = [op for op in update_ops if not op.name.startswith("second_1/")]\n' + UNDER),
        "BN221",
        "applied again",
        at_call(CALL),
    ),
    "a layer that ignores the switch": Case(
        Script(MIXED, READ + UNDER, step="session.run(train_op, {images: batch, phase: True})"),
        "BN222",
        "in train mode",
        at_call("net = slim.batch_norm(net, is_training=True)"),
    ),
    "one layer at three depths": Case(
        Script(DEPTHS, READ + UNDER),
        "BN223",
        "",
        at_call('net = slim.batch_norm(net, is_training=True, scope="bn", reuse=i > 0)'),
    ),
    "a counter that no one counts": Case(
        Script(COUNTED, "train_op = optimizer.minimize(loss)"), "BN224", "`global_step`", at_train
    ),
}


def wrong(report: Report) -> list[str]:
    """Codes of the errors and warnings."""
    return [f.code for f in report.findings if f.severity is not Severity.INFO]


@pytest.mark.parametrize("name", CASES)
def test_the_printed_fix_mends_the_script(name: str, tmp_path: Path) -> None:
    """Broken: the cause is told with this graph's names. With the fix pasted in: nothing is wrong."""
    case = CASES[name]
    folders = tmp_path / "broken", tmp_path / "mended"
    for folder in folders:
        folder.mkdir()
    with contextlib.redirect_stderr(io.StringIO()):
        found = finding(case.broken.run(folders[0]), case.code)
        assert found is not None
        assert case.says in found.message
        mended = case.mended(case.broken, code_of(found.fix)).run(folders[1])
    assert wrong(bncheck.inspect_checkpoint(mended)) == []


def test_both_updates_by_hand(tmp_path: Path) -> None:
    """BN104 of a checkpoint without a graph: the code that it prints writes both."""
    model = f"""
{CONV}
moving_mean = tf.get_variable("bn/moving_mean", [4], initializer=tf.zeros_initializer(), trainable=False)
moving_variance = tf.get_variable("bn/moving_variance", [4], initializer=tf.ones_initializer(), trainable=False)
beta = tf.get_variable("bn/beta", [4], initializer=tf.zeros_initializer())
mean, variance = tf.nn.moments(net, [0, 1, 2])
updates = [tf.assign(moving_mean, 0.9 * moving_mean + 0.1 * mean)]
net = tf.nn.batch_normalization(net, mean, variance, beta, None, 1e-3)
{LOSS}"""
    folders = tmp_path / "broken", tmp_path / "mended"
    for folder in folders:
        folder.mkdir()
    broken = Script(model, f"with tf.control_dependencies(updates[:1]):\n    {WIRED}")
    report = bncheck.inspect_checkpoint(broken.run(folders[0]), use_graph=False)
    found = next(f for f in report.findings if f.code == "BN104")
    assert "moving variance is exactly 1" in found.message
    mended = bncheck.inspect_checkpoint(at_train(broken, code_of(found.fix)).run(folders[1]), use_graph=False)
    assert "BN104" not in {f.code for f in mended.findings}


def test_an_export_in_train_mode(tmp_path: Path) -> None:
    """BN205 of TF-slim: the model is built once more within the printed scope, and exported."""
    slim: Any = load_slim()

    def model(images: Any) -> Any:
        net = slim.conv2d(images, 4, 3, normalizer_fn=slim.batch_norm, scope="conv", reuse=v1.AUTO_REUSE)
        return slim.fully_connected(slim.flatten(net), 3, activation_fn=None, scope="head", reuse=v1.AUTO_REUSE)

    def exported(folder: Path, code: str) -> str:
        with tf.Graph().as_default(), v1.Session() as session:
            images = v1.placeholder(tf.float32, [None, 4, 4, 3], name="images")
            names = {"slim": slim, "model": model, "images": images}
            exec(code, names)  # noqa: S102 - the very point
            session.run(v1.global_variables_initializer())
            v1.saved_model.simple_save(session, str(folder), {"images": images}, {"logits": names["logits"]})
        return str(folder)

    report = bncheck.inspect_model(exported(tmp_path / "broken", "logits = model(images)"))
    found = next(f for f in report.findings if f.code == "BN205")
    assert "`serving_default/logits` uses train mode" in found.message
    assert wrong(bncheck.inspect_model(exported(tmp_path / "mended", code_of(found.fix)))) == []


def test_a_loop_of_ones_own_in_keras_3(tmp_path: Path) -> None:
    """A tape around the model in eval mode moves no statistic; the printed lines do."""
    keras = pytest.importorskip("keras")

    def trained(path: Path, code: str) -> str:
        layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(momentum=0.9), keras.layers.Flatten()]
        model = keras.Sequential([keras.Input((4, 4, 3)), *layers, keras.layers.Dense(2)])
        optimizer = keras.optimizers.Adam(0.01)
        random = np.random.default_rng(3)
        names: dict[str, Any] = {
            "tf": tf,
            "model": model,
            "loss_fn": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        }
        for _ in range(STEPS):
            names["images"] = random.normal(3.0, 2.0, (16, 4, 4, 3)).astype("float32")
            names["labels"] = random.integers(0, 2, 16)
            exec(code, names)  # noqa: S102 - the very point
            weights = model.trainable_weights
            optimizer.apply(names["tape"].gradient(names["loss"], weights), weights)
        model.save(path)
        return str(path)

    broken = "with tf.GradientTape() as tape:\n    loss = loss_fn(labels, model(images, training=False))"
    report = bncheck.inspect_model(trained(tmp_path / "broken.keras", broken))
    found = next(f for f in report.findings if f.code == "BN101")
    assert wrong(bncheck.inspect_model(trained(tmp_path / "mended.keras", code_of(found.fix)))) == []


LOOP = """
_, net = tf.while_loop(
    lambda i, net: i < 2,
    lambda i, net: (i + 1, step(net)),
    [0, tf.nn.conv2d(images, tf.get_variable("conv/w", [1, 1, 3, 4]), 1, "SAME")],
)
"""
IN_LOOP = """
def step(net):
    {call}
    return tf.nn.relu(net)
with slim.arg_scope([slim.batch_norm], decay=0.9, scale=True), tf.variable_scope("loop", reuse=tf.AUTO_REUSE):
"""


def test_an_update_in_a_loop(tmp_path: Path) -> None:
    """BN215: the layer queues updates that the train op cannot wait for; the printed one updates in place."""
    folders = tmp_path / "broken", tmp_path / "mended"
    for folder in folders:
        folder.mkdir()
    call = "net = slim.batch_norm(net, is_training=True)"

    def model(line: str) -> str:
        return IN_LOOP.format(call=line) + textwrap.indent(LOOP, "    ") + LOSS

    control = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    try:
        found = finding(Script(model(call), WIRED, step=RUN).run(folders[0]), "BN215")
        assert found is not None
        assert "inside a loop" in found.message
        mended = Script(model(code_of(found.fix).strip())).run(folders[1])
    finally:
        if control:
            v1.enable_control_flow_v2()
    assert wrong(bncheck.inspect_checkpoint(mended)) == []


def test_an_update_in_a_condition(tmp_path: Path) -> None:
    """BN215 of a graph: the layer moves out of the condition, which becomes its mode."""
    call = """
phase = tf.placeholder(tf.bool, [], name="phase")
def normalised():
    return slim.batch_norm(net, is_training=True, scale=True, scope="bn")
net = tf.cond(phase, normalised, lambda: tf.identity(net))"""
    folders = tmp_path / "broken", tmp_path / "mended"
    for folder in folders:
        folder.mkdir()
    control = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    step = "session.run(train_op, {images: batch, phase: True})"
    try:
        broken = Script(CONV + call + LOSS, READ + UNDER, step=step).run(folders[0])
        found = next(f for f in bncheck.inspect_graph(f"{broken}.meta").findings if f.code == "BN215")
        assert "The condition is `phase`" in found.message
        lines = code_of(found.fix).splitlines()
        assert lines[0] == 'is_training = tf.get_default_graph().get_tensor_by_name("phase:0")'
        layer = lines[1].replace("is_training=is_training", "is_training=is_training, decay=0.9, scale=True")
        first = 'phase = tf.placeholder(tf.bool, [], name="phase")'
        model = f"{CONV}\n{first}\n{lines[0]}\n{layer}{LOSS}"
        mended = Script(model, "\n".join(lines[2:]), step=step).run(folders[1])
    finally:
        if control:
            v1.enable_control_flow_v2()
    assert wrong(bncheck.inspect_checkpoint(mended)) == []
