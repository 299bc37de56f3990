"""The printed fix mends the script: it is pasted into it, the script trains anew, and the fault is gone."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from training_scripts import (
    CONV,
    KERAS,
    LOSS,
    SLIM,
    TF_LAYERS,
    WIRED,
    Case,
    Script,
    at_mode,
    at_start,
    at_step,
    at_train,
    code_of,
    finding,
    own,
    switched,
)

import bncheck

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore:`tf.layers")]

VARIABLE = 'phase = tf.get_variable("is_training", [], tf.bool, tf.constant_initializer(False), trainable=False)'
KEEP = 'keep = tf.placeholder(tf.float32, [], name="keep_prob")\nphase = tf.less(keep, 1.0)'
PHASE = 'phase = tf.placeholder_with_default(False, [], name="phase")'


CASES = {
    "TF-slim, minimize alone": Case(Script(SLIM), "BN201", "UPDATE_OPS holds 2", at_train),
    "tf.layers, minimize alone": Case(Script(TF_LAYERS), "BN201", "UPDATE_OPS holds 2", at_train),
    "Keras in a graph of TensorFlow 1": Case(Script(KERAS), "BN201", "in a TF1 graph, Keras layers", at_train),
    "own collection": Case(
        Script(own('[tf.add_to_collection("my_updates", op) for op in updates]')), "BN201", "`my_updates`", at_train
    ),
    "one of two in a collection of its own": Case(
        Script(
            TF_LAYERS.replace('name="bn")', 'name="first")').replace(LOSS, "")
            + own('[tf.add_to_collection("mine", op) for op in updates]').replace(CONV, ""),
            "ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS)\nwith tf.control_dependencies(ops):\n    " + WIRED,
        ),
        "BN202",
        "in the collection `mine`",
        at_train,
    ),
    "in no collection": Case(Script(own("")), "BN201", "No collection holds them", at_train),
    "a group nobody runs": Case(
        Script(own('tf.group(*updates, name="keep_averages")')), "BN201", "`keep_averages` waits", at_train
    ),
    "TF-slim in eval mode": Case(
        Script(SLIM.replace("is_training=True", "is_training=False")), "BN204", "in eval mode", at_mode
    ),
    "tf.layers in eval mode": Case(
        Script(TF_LAYERS.replace("training=True", "training=False")), "BN204", "in eval mode", at_mode
    ),
    "a variable that stayed False": Case(Script(switched(VARIABLE)), "BN206", "`is_training`, a variable", at_start),
    "keep_prob < 1": Case(
        Script(switched(KEEP), step='session.run(train_op, {images: batch, "keep_prob:0": 1.0})'),
        "BN206",
        "`keep_prob < 1`",
        at_step,
    ),
    "a placeholder never fed": Case(Script(switched(PHASE)), "BN206", "`phase` defaults to False", at_step),
}


@pytest.mark.parametrize("name", CASES)
def test_the_printed_fix_mends_the_script(name: str, tmp_path: Path) -> None:
    """Broken: the cause is told with this graph's names. With the fix pasted in: nothing is found."""
    case = CASES[name]
    folders = tmp_path / "broken", tmp_path / "mended"
    for folder in folders:
        folder.mkdir()
    with contextlib.redirect_stderr(io.StringIO()):
        found = finding(case.broken.run(folders[0]), case.code)
        assert found is not None
        assert case.says in found.message
        mended = case.mended(case.broken, code_of(found.fix)).run(folders[1])
    assert [f.code for f in bncheck.inspect_checkpoint(mended).findings] == []


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
    import tensorflow as tf

    v1 = tf.compat.v1
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
