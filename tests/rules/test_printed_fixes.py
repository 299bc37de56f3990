"""The printed fix mends the script: it is pasted into it, the script trains anew, and the fault is gone."""

from __future__ import annotations

import contextlib
import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken_scripts import MISAPPLIED, NOT_RUN, PHASE, READ, UNDER
from training_scripts import (
    CONV,
    LOSS,
    RUN,
    SLIM,
    STEPS,
    TF_LAYERS,
    WIRED,
    Case,
    Script,
    at_train,
    code_of,
    finding,
    own,
    switched,
    tf,
    v1,
    wrong,
)

import bncheck
from bncheck.backbones.slim_compat import load_slim, load_tf_layers

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:`tf.layers", "ignore:`layer.apply`", "ignore:__array__"),
]


CASES = NOT_RUN | MISAPPLIED


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name, marks=[pytest.mark.slow] * case.again) for name, case in CASES.items()],
)
def test_the_printed_fix_mends_the_script(case: Case, tmp_path: Path) -> None:
    """Broken: the cause is told with this graph's names. With the fix pasted in: nothing is wrong."""
    folders = tmp_path / "broken", tmp_path / "mended"
    for folder in folders:
        folder.mkdir()
    with contextlib.redirect_stderr(io.StringIO()):
        found = finding(case.broken.run(folders[0]), case.code, use_graph=case.use_graph)
        assert found is not None
        assert case.says in found.message
        mended = case.mended(case.broken, code_of(found.fix)).run(folders[1])
    assert wrong(bncheck.inspect_checkpoint(mended)) == []


def test_a_warm_start_with_its_statistics(tmp_path: Path) -> None:
    """Only trainable variables were restored; the fix restores the statistics too."""
    before, broken, after = (tmp_path / name for name in ("before", "broken", "after"))
    for folder in (before, broken, after):
        folder.mkdir()
    whole = "update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS)\nwith tf.control_dependencies(update_ops):\n    "
    pretrained = Script(SLIM.replace('"bn"', '"net/bn"').replace('"conv/', '"net/conv/'), whole + WIRED).run(before)
    frozen = CONV.replace('"conv/', '"net/conv/') + (
        'net = slim.batch_norm(net, scale=True, is_training=False, scope="net/bn")\n'
        'net = tf.nn.conv2d(net, tf.get_variable("head/w", [1, 1, 4, 4]), 1, "SAME")'
    )
    head = 'heads = [v for v in tf.trainable_variables() if v.op.name.startswith("head")]\n'
    train = f"{head}train_op = optimizer.minimize(loss, global_step, var_list=heads)"
    partial = (
        'trained = [v for v in tf.trainable_variables() if v.op.name.startswith("net/")]\nold = tf.train.Saver(trained)'
    )
    start = "old.restore(session, pretrained)"
    script_ = Script(frozen + LOSS, f"{train}\n{partial}", start)
    found = finding(script_.run(broken, pretrained=pretrained), "BN209")
    assert found is not None
    assert "gamma or beta of 1 layer" in found.message
    mended = Script(script_.model, train, code_of(found.fix)).run(after, pretrained=pretrained)
    assert [f.code for f in bncheck.inspect_checkpoint(mended).findings] == []


def test_weight_decay_without_the_statistics(tmp_path: Path) -> None:
    """A weight decay on all that is trainable pulls at trainable statistics; the fix names what it leaves out."""
    broken, after = tmp_path / "broken", tmp_path / "mended"
    for folder in (broken, after):
        folder.mkdir()
    waits = "with tf.control_dependencies(updates):\n    net = tf.identity(net)"
    model = own(waits).replace(", trainable=False", "")
    decay = "loss += 1e-2 * tf.add_n([tf.nn.l2_loss(v) for v in tf.trainable_variables()])\n"
    found = finding(Script(model, decay + WIRED).run(broken), "BN210")
    assert found is not None
    code = code_of(found.fix)
    assert '"bn/mean",' in code
    mended = bncheck.inspect_checkpoint(Script(model, code).run(after))
    assert [f.code for f in mended.findings if f.severity.value != "info"] == []


def test_an_export_with_a_constant_mode(tmp_path: Path) -> None:
    """A graph for prediction hangs on a placeholder; imported with a constant in its place it is settled."""
    with tf.Graph().as_default(), v1.Session() as session:
        names = {"tf": v1, "images": v1.placeholder(tf.float32, [None, 4, 4, 3], name="images")}
        exec(switched(PHASE.replace("False", "True")), names)  # noqa: S102 - the script
        session.run(v1.global_variables_initializer())
        prefix = v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    found = finding(prefix, "BN206")
    assert found is not None
    assert "defaults to True" in found.message
    code = code_of(found.fix)
    assert '"phase:0": tf.constant(False)' in code
    settled = str(tmp_path / "settled.meta")
    export = f'    tf.train.export_meta_graph("{settled}")'
    exec(f"{code}\n{export}", {"tf": v1, "checkpoint": prefix})  # noqa: S102 - what bncheck printed
    modes = {site.mode.value for layer in bncheck.inspect_model(settled).layers for site in layer.sites}
    assert modes == {"eval"}


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


def test_a_model_function(tmp_path: Path) -> None:
    """An Estimator's `model_fn`, in the session that it trains with: the fix makes its train op."""
    model_fn = """
def model_fn(features, labels, mode, params):
    images, optimizer, global_step = features["x"], params["optimizer"], tf.train.get_or_create_global_step()
{model}
{train}
    return loss, train_op
"""

    def trained(folder: Path, train: str) -> str:
        names: dict[str, Any] = {"tf": v1, "layers": load_tf_layers()}
        parts = {"model": textwrap.indent(TF_LAYERS, "    "), "train": textwrap.indent(train, "    ")}
        exec(model_fn.format(**parts), names)  # noqa: S102 - the script
        random = np.random.default_rng(3)
        with tf.Graph().as_default():
            images = v1.placeholder(tf.float32, [None, 4, 4, 3], name="images")
            params = {"optimizer": v1.train.AdamOptimizer(0.01)}
            _, train_op = names["model_fn"]({"x": images}, None, "train", params)
            hooks = [v1.train.CheckpointSaverHook(str(folder), save_steps=STEPS)]
            with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
                for _ in range(STEPS):
                    session.run(train_op, {images: random.normal(3.0, 2.0, (16, 4, 4, 3))})
        return str(folder)

    found = finding(trained(tmp_path / "broken", WIRED), "BN201")
    assert found is not None
    mended = trained(tmp_path / "mended", code_of(found.fix))
    assert wrong(bncheck.inspect_checkpoint(mended)) == []
