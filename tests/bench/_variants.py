"""MobileNetV2 0.35 on digits, trained in each of the ways that people run the updates of batch norm, or do not.

Each variant is a folder with a checkpoint, its MetaGraph and `measured.json`: accuracy in both modes in a plain
session, with nothing of bncheck but the network. Made once, then found again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from bncheck.backbones.mobilenet_v2 import mobilenet, slim, training_scope, v1
from fixtures.digits import resized

BATCH = 32
LEARNING_RATE = 2e-3
SEED = 42
CLASSES = 10
MODEL = "mobilenet_v2:depth_multiplier=0.35"
BACKBONE: dict[str, Any] = {"depth_multiplier": 0.35}
EARLY_UPDATES = 54
"""Those of the first 27 layers, up to layer_10."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train."""

    name: str
    story: str
    decay: float = 0.9
    steps: int = 300
    wiring: str = "control_dependencies"
    """A key of WIRINGS."""
    in_place: bool = False
    """Updates run where the layers are applied, `updates_collections=None`."""
    saves: str = "all"
    """"all", or "trainable": a Saver that leaves the statistics out."""


def _decays() -> Iterator[Variant]:
    for decay in (0.9, 0.99, 0.997, 0.999, 0.9997):
        for steps in (300, 900):
            yield Variant(name=f"decay_{decay:g}_{steps}", story=f"wired, decay {decay:g}", decay=decay, steps=steps)


VARIANTS: tuple[Variant, ...] = (
    *_decays(),
    Variant(name="forgotten_300", story="updates forgotten", wiring="forgotten"),
    Variant(name="forgotten_900", story="updates forgotten", wiring="forgotten", steps=900),
    Variant(name="too_early", story="UPDATE_OPS read after half the net", wiring="too_early"),
    Variant(name="existing_op", story="control_dependencies around an op that exists", wiring="existing_op"),
    Variant(name="grouped", story="tf.group(train_op, *updates)", wiring="grouped"),
    Variant(name="in_place", story="updates_collections=None", wiring="forgotten", in_place=True),
    Variant(name="create_train_op", story="slim.learning.create_train_op", wiring="create_train_op"),
    Variant(name="by_hand", story="sess.run(update_ops) beside the train op", wiring="by_hand"),
    Variant(name="saver_omits", story="Saver(tf.trainable_variables())", saves="trainable"),
)

TrainOps = list[Any]
"""What one step runs."""


def _control_dependencies(loss: Any, optimizer: Any, step: Any, updates: list[Any]) -> TrainOps:
    with tf.control_dependencies([tf.group(*updates)]):
        return [optimizer.minimize(loss, global_step=step)]


def _forgotten(loss: Any, optimizer: Any, step: Any, _: list[Any]) -> TrainOps:
    return [optimizer.minimize(loss, global_step=step)]


def _too_early(loss: Any, optimizer: Any, step: Any, updates: list[Any]) -> TrainOps:
    return _control_dependencies(loss, optimizer, step, updates[:EARLY_UPDATES])


def _existing_op(loss: Any, optimizer: Any, step: Any, updates: list[Any]) -> TrainOps:
    made = optimizer.minimize(loss, global_step=step)
    with tf.control_dependencies(updates):
        train_op = made  # nothing is created in here, so nothing waits
    return [train_op]


def _grouped(loss: Any, optimizer: Any, step: Any, updates: list[Any]) -> TrainOps:
    return [tf.group(optimizer.minimize(loss, global_step=step), *updates)]


def _create_train_op(loss: Any, optimizer: Any, step: Any, _: list[Any]) -> TrainOps:
    return [slim.learning.create_train_op(loss, optimizer, global_step=step)]


def _by_hand(loss: Any, optimizer: Any, step: Any, updates: list[Any]) -> TrainOps:
    return [optimizer.minimize(loss, global_step=step), *updates]


WIRINGS: dict[str, Callable[[Any, Any, Any, list[Any]], TrainOps]] = {
    "control_dependencies": _control_dependencies,
    "forgotten": _forgotten,
    "too_early": _too_early,
    "existing_op": _existing_op,
    "grouped": _grouped,
    "create_train_op": _create_train_op,
    "by_hand": _by_hand,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images (count, size, size, 3) in [-1, 1] and labels (count,)."""

    images: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]

    def batches(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Whole batches in order."""
        for start in range(0, len(self.images) - BATCH + 1, BATCH):
            yield self.images[start : start + BATCH], self.labels[start : start + BATCH]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A trained variant on disk."""

    variant: Variant
    prefix: Path
    train_mode: float
    eval_mode: float
    """Accuracy on the test images in a plain session."""
    seconds: float

    @property
    def expected(self) -> str:
        """What the verdict must be: "fail" from 5 points of loss on, "pass" up to 2, "" between."""
        lost = self.train_mode - self.eval_mode
        return "fail" if lost > 0.05 else "pass" if lost <= 0.02 else ""


def splits(size: int) -> tuple[Split, Split]:
    """1,437 digits to train, 360 to test, always the same."""
    raw = load_digits()
    images, labels = resized(raw.images / 8.0 - 1.0, size), raw.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    first, last = np.split(order, [int(0.8 * len(order))])
    return Split(images=images[first], labels=labels[first]), Split(images=images[last], labels=labels[last])


def made(variant: Variant, folder: Path, size: int, training: Split, test: Split) -> Made:
    """The variant, trained now or found in `folder` from an earlier run with the same settings."""
    settings = {**vars(variant), "size": size, "batch": BATCH, "rate": LEARNING_RATE, "seed": SEED}
    record, prefix = folder / "measured.json", folder / f"model.ckpt-{variant.steps}"
    if record.exists():
        known = json.loads(record.read_text())
        if known["settings"] == settings:
            return Made(variant=variant, prefix=prefix, **known["measured"])
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    train(variant, folder, size, training)
    measured = {
        "train_mode": accuracy(prefix, size, test, is_training=True),
        "eval_mode": accuracy(prefix, size, test, is_training=False),
        "seconds": time.perf_counter() - start,
    }
    record.write_text(json.dumps({"settings": settings, "measured": measured}, indent=1) + "\n")
    return Made(variant=variant, prefix=prefix, **measured)


def train(variant: Variant, folder: Path, size: int, data: Split) -> None:
    """Trains and saves `model.ckpt-<steps>` with its MetaGraph."""
    with tf.Graph().as_default():
        v1.set_random_seed(SEED)
        images = v1.placeholder(tf.float32, [None, size, size, 3], name="images")
        labels = v1.placeholder(tf.int64, [None], name="labels")
        scope = slim.arg_scope([slim.batch_norm], updates_collections=None) if variant.in_place else nullcontext()
        with slim.arg_scope(training_scope(is_training=True, bn_decay=variant.decay)), scope:
            logits, _ = mobilenet(images, CLASSES, **BACKBONE)
        v1.losses.sparse_softmax_cross_entropy(labels, logits)
        loss = v1.losses.get_total_loss()
        step = v1.train.get_or_create_global_step()
        updates = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
        ops = WIRINGS[variant.wiring](loss, v1.train.AdamOptimizer(LEARNING_RATE), step, updates)
        kept = None if variant.saves == "all" else [*v1.trainable_variables(), step]
        saver = v1.train.Saver(kept)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for batch, answers in _shuffled(data, variant.steps):
                session.run(ops, {images: batch, labels: answers})
            saver.save(session, str(folder / "model.ckpt"), global_step=step)


def accuracy(prefix: Path, size: int, data: Split, *, is_training: bool) -> float:
    """Top-1 in one mode, batches of 32, dropout off; what the checkpoint lacks stays as it is initialised."""
    with tf.Graph().as_default():
        images = v1.placeholder(tf.float32, [None, size, size, 3])
        with slim.arg_scope(training_scope(is_training=is_training, dropout_keep_prob=1.0)):
            logits, _ = mobilenet(images, CLASSES, **BACKBONE)
        stored = {name for name, _ in tf.train.list_variables(str(prefix))}
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver([v for v in v1.global_variables() if v.op.name in stored]).restore(session, str(prefix))
            right = [session.run(logits, {images: x}).argmax(-1) == y for x, y in data.batches()]
    return float(np.mean(np.concatenate(right)))


def _shuffled(data: Split, steps: int) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    random = np.random.default_rng(SEED)
    order: list[int] = []
    for _ in range(steps):
        if len(order) < BATCH:
            order = random.permutation(len(data.images)).tolist()
        batch, order = order[:BATCH], order[BATCH:]
        yield data.images[batch], data.labels[batch]
