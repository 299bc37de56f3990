"""Training scripts that a printed fix is pasted into, run on real TensorFlow, and what bncheck finds of them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bncheck
from bncheck.facts.findings import Finding, Report, Severity

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tf_slim")
pytest.importorskip("tf_keras")

v1 = tf.compat.v1
STEPS = 60
"""With decay 0.9 they leave 0.2 % of the initial statistics."""
WIRED = "train_op = optimizer.minimize(loss, global_step)"
RUN = "session.run(train_op, {images: batch})"


@dataclass(frozen=True)
class Script:
    """A training script in three parts, of which the printed fix replaces one."""

    model: str
    """Builds `loss` from `images`."""
    train: str = WIRED
    """Makes `train_op`."""
    start: str = ""
    """Runs once in the session."""
    step: str = RUN
    """Runs every step."""

    def run(self, folder: Path, **known: Any) -> str:
        """Trains, and gives the checkpoint's prefix."""
        with tf.Graph().as_default():
            v1.set_random_seed(1)
            names: dict[str, Any] = {"tf": v1, "np": np, "slim": _slim(), "layers": _layers(), **known}
            names["contrib"] = SimpleNamespace(layers=names["slim"])  # tf.contrib.layers is what TF-slim was
            names["images"] = v1.placeholder(tf.float32, [None, 4, 4, 3], name="images")
            names["global_step"] = v1.train.get_or_create_global_step()
            names["optimizer"] = v1.train.AdamOptimizer(0.01)
            exec(self.model, names)  # noqa: S102 - the very point
            exec(self.train, names)  # noqa: S102
            saver = v1.train.Saver()
            config = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
            config.graph_options.rewrite_options.disable_meta_optimizer = (
                True  # rewriting costs more than it saves here
            )
            with v1.Session(config=config) as session:
                names["session"] = session
                session.run(v1.global_variables_initializer())
                exec(self.start, names)  # noqa: S102
                random = np.random.default_rng(3)
                for _ in range(STEPS):
                    names["batch"] = random.normal(3.0, 2.0, (16, 4, 4, 3))
                    exec(self.step, names)  # noqa: S102
                saver.save(session, str(folder / "model.ckpt"), write_meta_graph=False)
                v1.train.export_meta_graph(str(folder / "model.ckpt.meta"))
        return str(folder / "model.ckpt")


def _slim() -> Any:
    from bncheck.backbones.slim_compat import load_slim

    return load_slim()


def _layers() -> Any:
    from bncheck.backbones.slim_compat import load_tf_layers

    return load_tf_layers()


def script(code: str) -> str:
    """Code without its margin."""
    return textwrap.dedent(code).strip()


CONV = """
w = tf.get_variable("conv/w", [1, 1, 3, 4])
net = tf.nn.conv2d(images, w, 1, "SAME")
"""
LOSS = """
loss = tf.reduce_mean((tf.nn.relu(net) - 1.0) ** 2)
"""

SLIM = CONV + 'net = slim.batch_norm(net, decay=0.9, scale=True, is_training=True, scope="bn")' + LOSS
TF_LAYERS = CONV + 'net = layers.batch_normalization(net, momentum=0.9, training=True, name="bn")' + LOSS
KERAS = f"""
import tf_keras
conv = tf_keras.layers.Conv2D(4, 1, use_bias=False)
model = tf_keras.Sequential([conv, tf_keras.layers.BatchNormalization(momentum=0.9)])
net = model(images, training=True)
{LOSS}
"""
OWN = """
mean = tf.get_variable("bn/mean", [4], initializer=tf.zeros_initializer(), trainable=False)
variance = tf.get_variable("bn/variance", [4], initializer=tf.ones_initializer(), trainable=False)
gamma = tf.get_variable("bn/gamma", [4], initializer=tf.ones_initializer())
beta = tf.get_variable("bn/beta", [4], initializer=tf.zeros_initializer())
m, v = tf.nn.moments(net, [0, 1, 2])
updates = [tf.assign(mean, 0.9 * mean + 0.1 * m), tf.assign(variance, 0.9 * variance + 0.1 * v)]
{then}
net = tf.nn.batch_normalization(net, m, v, beta, gamma, 1e-3)
"""


def own(then: str) -> str:
    """Batch norm by hand; what then becomes of its updates."""
    return CONV + OWN.format(then=then) + LOSS


def switched(predicate: str) -> str:
    """Batch norm by hand in a condition, as tflearn writes it."""
    inside = """
def batch():
    with tf.control_dependencies(updates()):
        return tf.identity(m), tf.identity(v)
"""
    body = OWN.replace("updates = [", "updates = lambda: [").format(
        then=f"{predicate}{inside}m, v = tf.cond(phase, batch, lambda: (tf.identity(mean), tf.identity(variance)))"
    )
    return CONV + body + LOSS


@dataclass(frozen=True)
class Case:
    """A broken script, the finding that tells its cause, and which part of it the fix replaces."""

    broken: Script
    code: str
    says: str
    mended: Callable[[Script, str], Script]
    use_graph: bool = True
    """Whether the finding is that of the checkpoint with its MetaGraph."""
    again: bool = False
    """A kind that another case shows too, in another framework or without its graph: for the slow part."""


def at_train(broken: Script, fix: str) -> Script:
    """The fix makes the train op."""
    return Script(broken.model, fix, broken.start, broken.step)


def at_mode(broken: Script, fix: str) -> Script:
    """The first line calls the layer, with the settings it had; the others make the train op."""
    call, _, train = fix.partition("\n")
    mode = "is_training=True" if "slim" in call else "training=True"
    assert mode in call
    return Script(broken.model.replace(mode.replace("True", "False"), mode), train, broken.start, broken.step)


def at_start(broken: Script, fix: str) -> Script:
    """The fix runs before training."""
    return Script(broken.model, broken.train, fix, broken.step)


def at_step(broken: Script, fix: str) -> Script:
    """The fix is the step."""
    return Script(broken.model, broken.train, broken.start, fix)


def at_call(line: str) -> Callable[[Script, str], Script]:
    """The fix takes the place of this line of the model."""

    def mended(broken: Script, fix: str) -> Script:
        margin = next(found[: -len(found.lstrip())] for found in broken.model.splitlines() if found.strip() == line)
        assert broken.model.count(margin + line) == 1
        model = broken.model.replace(margin + line, textwrap.indent(fix.rstrip(), margin))
        return Script(model, broken.train, broken.start, broken.step)

    return mended


def at_call_and_train(line: str, first_of_train: str, renamed: str = "") -> Callable[[Script, str], Script]:
    """As `at_call`, up to the line that begins so, from which on it makes the train op; the result goes by a name."""

    def mended(broken: Script, fix: str) -> Script:
        call, begins, train = fix.partition(first_of_train)
        assert begins
        model = at_call(line)(broken, f"{call}{renamed}").model
        return Script(model, begins + train, broken.start, broken.step)

    return mended


def at_decay(line: str, setting: str) -> Callable[[Script, str], Script]:
    """Of the printed call, the setting replaces that of this line, which keeps its other ones."""

    def mended(broken: Script, fix: str) -> Script:
        (new,), (old,) = (re.findall(rf"{setting} ?= ?[\d.]+", text) for text in (fix, line))
        return Script(broken.model.replace(line, line.replace(old, new)), broken.train, broken.start, broken.step)

    return mended


def wrong(report: Report) -> list[str]:
    """Codes of the errors and warnings."""
    return [found.code for found in report.findings if found.severity is not Severity.INFO]


def finding(checkpoint: str, code: str, *, use_graph: bool = True) -> Finding | None:
    """What inspecting the checkpoint finds of this code, as a cause."""
    report = bncheck.inspect_checkpoint(checkpoint, use_graph=use_graph)
    return next((f for f in report.findings if f.code == code and f.caused_by is None), None)


def code_of(fix: str) -> str:
    """The block for the training code, without the comments in it and the commands after it.

    `tf.layers`, which TensorFlow has dropped, is `layers` here.
    """
    lines = fix.splitlines()[1:]
    block = lines[: next((n for n, line in enumerate(lines) if not line.startswith("    ")), len(lines))]
    code = "\n".join(line for line in block if not line.lstrip().startswith("#"))
    return textwrap.dedent(code).replace("tf.layers.", "layers.")
