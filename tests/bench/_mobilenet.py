"""Writes MobileNetV2 1.0, of 52 batch norms, as a training job leaves it.

python -m tests.bench._mobilenet FOLDER

Ten classes, Adam with its slots (27 MB), the MetaGraph of the training graph as Saver.save writes it. Not trained:
gamma and beta are drawn at random, and the statistics are those of a batch of noise, so that they belong to the weights
as a trained network's do. Twice, for the two ways in which people wire the updates: `slim.learning.create_train_op`,
which puts one barrier after them (2.6 MB), and `tf.control_dependencies(update_ops)` around `minimize`, after which
each op of the gradients lists all 104 (10.2 MB).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from bncheck.backbones.mobilenet_v2 import mobilenet, slim, tf, training_scope, v1

DECAY = 0.997
STEP = 3000


WIRINGS = ("barrier", "everywhere")


def write(folder: Path, wiring: str) -> str:
    """Gives the checkpoint's prefix."""
    random = np.random.default_rng(1)
    with tf.Graph().as_default():
        v1.set_random_seed(1)
        images = v1.placeholder(tf.float32, [None, 224, 224, 3], name="images")
        labels = v1.placeholder(tf.int64, [None], name="labels")
        with slim.arg_scope(training_scope(is_training=True, bn_decay=DECAY)):
            logits, _ = mobilenet(images, 10)
        v1.losses.sparse_softmax_cross_entropy(labels, logits)
        step = v1.train.get_or_create_global_step()
        loss, adam = v1.losses.get_total_loss(), v1.train.AdamOptimizer(1e-3)
        if wiring == "barrier":
            slim.learning.create_train_op(loss, adam, global_step=step)
        else:
            with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
                adam.minimize(loss, global_step=step)
        saver = v1.train.Saver()
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            moved = [(v, value) for v in v1.global_variables() if (value := _moved(v, random)) is not None]
            feeds = {v.initializer.inputs[1]: value for v, value in moved}
            session.run([v.initializer for v, _ in moved], feeds)
            noise = random.normal(0, 0.5, (8, 224, 224, 3))
            for name, moments in session.run(_batch_moments(), {images: noise, labels: np.arange(8)}).items():
                session.run(_variable(name).initializer, {_variable(name).initializer.inputs[1]: moments})
            return str(saver.save(session, str(folder / f"{wiring}.ckpt"), global_step=step))


def _batch_moments() -> dict[str, Any]:
    """Name of a statistic -> the tensor of a batch's, as the fused op gives it."""
    ops = [op for op in v1.get_default_graph().get_operations() if op.type == "FusedBatchNormV3"]
    return {
        f"{op.name.rpartition('/')[0]}/{statistic}": op.outputs[number]
        for op in ops
        for number, statistic in ((1, "moving_mean"), (2, "moving_variance"))
    }


def _variable(name: str) -> Any:
    return next(v for v in v1.global_variables() if v.op.name == name)


def _moved(variable: Any, random: np.random.Generator) -> np.ndarray[Any, Any] | None:
    """What a trained network would hold there; None for what may stay as it was initialised."""
    size = variable.shape.as_list()
    name = variable.op.name.rpartition("/")[2]
    if name == "gamma":
        return random.uniform(0.2, 2.0, size)
    if name in ("beta", "Adam"):
        return random.normal(0, 0.1, size)
    if name == "Adam_1":
        return random.uniform(1e-6, 1e-3, size)
    if name in ("beta1_power", "beta2_power"):
        beta = np.float32(0.9 if name == "beta1_power" else 0.999)
        return np.asarray(np.multiply.accumulate(np.full(STEP + 1, beta))[-1])
    return np.array(STEP) if name == "global_step" else None


if __name__ == "__main__":
    for wiring_ in WIRINGS:
        print(write(Path(sys.argv[1]), wiring_))
