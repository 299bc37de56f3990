"""The story of a forgotten update, live: MobileNetV2 is trained on scikit-learn's digits, lost, found out and repaired.

Nothing is staged: the network is TF-slim's style of MobileNetV2, trained the way that people forget, and what is shown
is what `inspect`, the comparison of both modes and `repair` say of its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.backbones.quiet_tensorflow import load_tensorflow, without_warnings
from bncheck.commands.inspect import inspect_checkpoint
from bncheck.compare.data.data import open_data
from bncheck.compare.prepared import prepare
from bncheck.compare.train_eval import measure
from bncheck.compare.twins.twins import open_twins
from bncheck.facts.errors import BncheckError
from bncheck.facts.extras import install
from bncheck.facts.measurements import Comparison
from bncheck.facts.remedies import UPDATES
from bncheck.repair import repair
from bncheck.report.text import text
from bncheck.settings.options import Options
from bncheck.sources import open_model

SIZE = 32
"""Height and width of the images; the digits are 8x8."""
STEPS = 300
BATCH = 32
LEARNING_RATE = 2e-3
DECAY = 0.9
SEED = 42
CALIBRATION = 640
"""Training images that the statistics are estimated from."""
CLASSES = 10

Stage: TypeAlias = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(name, how many there are) -> a block in which a call tells how many are done. Nothing else is written meanwhile."""

_CODE = """\
    logits, _ = mobilenet(images, 10, depth_multiplier=0.35)      # 52 batch norms, is_training=True
    loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
    train_op = tf.train.AdamOptimizer(2e-3).minimize(loss)        # UPDATE_OPS: forgotten
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Digits:
    """Images (count, SIZE, SIZE, 3) in [-1, 1] and labels (count,): 1,437 to train, 360 to test."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the demo measured on the test images: share of right answers."""

    train_mode: float
    eval_mode: float
    repaired: float
    codes: tuple[str, ...]
    """Of the errors that inspecting found."""
    seconds: float


def _silent(_name: str, _of: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda _: None)


def tell(folder: Path, stream: TextIO, *, steps: int = STEPS, stage: Stage = _silent) -> Told:
    """Runs the whole story in `folder`, writes it to `stream` as it goes, and gives its numbers.

    Raises BncheckError where TensorFlow, TF-slim or scikit-learn is not installed.
    """
    start = time.perf_counter()
    data = load_digits()
    _say(stream, f"1. Train MobileNetV2 0.35 on handwritten digits, {steps} steps, as many a training script does:\n")
    _say(stream, _CODE)
    with stage("train", steps) as progress:
        prefix, loss = train(data, folder, steps=steps, progress=progress)
    training, held = folder / "train.npz", folder / "test.npz"
    np.savez(training, images=data.images[:CALIBRATION], labels=data.labels[:CALIBRATION])
    np.savez(held, images=data.test_images, labels=data.test_labels)
    _say(stream, f"   The loss falls to {loss:.2f}. Saved: {prefix.name}, its graph beside it.\n")

    _say(stream, f"2. bncheck inspect checkpoint {prefix.name}     (the files alone, no data, nothing is run)\n")
    report = inspect_checkpoint(prefix)
    text.write(report, stream)

    _say(stream, "\n3. Is it that bad? Both modes, on images that it has never seen:\n")
    with stage("compare", len(data.test_images)) as progress:
        before = both_modes(prefix, held, progress)
    _say(stream, _modes(before))

    fixed = folder / "fixed.ckpt"
    _say(stream, f"4. bncheck repair {prefix.name} -o {fixed.name} --data train.npz     (no retraining)\n")
    with stage("estimate", CALIBRATION) as progress:
        repair(prefix, fixed, data=training, batch_size=BATCH, compare=False, progress=lambda _, done: progress(done))
    with stage("compare again", len(data.test_images)) as progress:
        after = both_modes(fixed, held, progress)
    _say(stream, _modes(after))
    told = Told(
        train_mode=_accuracy(before, "train"),
        eval_mode=_accuracy(before, "eval"),
        repaired=_accuracy(after, "eval"),
        codes=tuple(f.code for f in report.findings if f.severity.value == "error"),
        seconds=time.perf_counter() - start,
    )
    more = f"explain {max(told.codes)}" if told.codes else "rules"
    _say(
        stream,
        f"{told.eval_mode:.1%} -> {told.repaired:.1%} right with is_training=False, the weights untouched, in "
        f"{told.seconds:.0f} s.\nMissing around minimize(): with tf.control_dependencies({UPDATES}):\n"
        f"More: bncheck {more}",
    )
    return told


def load_digits() -> Digits:
    """scikit-learn's digits, each pixel four times as wide and high. Raises BncheckError where it is not installed."""
    try:
        from sklearn import datasets  # noqa: PLC0415 - no dependency of anything else
    except ModuleNotFoundError as error:
        raise BncheckError(
            f"the demo trains on the digits of scikit-learn, which is not installed: {install('demo')}"
        ) from error
    raw = datasets.load_digits()
    times = SIZE // raw.images.shape[1]
    grey = np.kron(raw.images / 8.0 - 1.0, np.ones((1, times, times)))
    images = np.repeat(grey[..., None], 3, axis=-1).astype(np.float32)
    labels = raw.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    first, last = np.split(order, [int(0.8 * len(order))])
    return Digits(images=images[first], labels=labels[first], test_images=images[last], test_labels=labels[last])


def train(data: Digits, folder: Path, *, steps: int, progress: Callable[[int], None]) -> tuple[Path, float]:
    """(the checkpoint's prefix, loss of the last batch); nothing runs the updates. Raises BncheckError."""
    try:
        tf = load_tensorflow()
        with without_warnings():
            from bncheck.backbones.mobilenet_v2 import mobilenet, slim, training_scope  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise BncheckError(f"{error.name} is not installed: the demo trains; {install('tf')}") from error
    v1 = tf.compat.v1
    with tf.Graph().as_default(), without_warnings():
        v1.set_random_seed(SEED)
        images = v1.placeholder(tf.float32, [None, SIZE, SIZE, 3], name="images")
        labels = v1.placeholder(tf.int64, [None], name="labels")
        with slim.arg_scope(training_scope(is_training=True, bn_decay=DECAY)):
            logits, _ = mobilenet(images, CLASSES, depth_multiplier=0.35)
        loss = v1.losses.sparse_softmax_cross_entropy(labels, logits)
        step = v1.train.get_or_create_global_step()
        train_op = v1.train.AdamOptimizer(LEARNING_RATE).minimize(loss, global_step=step)
        saver = v1.train.Saver()
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            found = float("nan")
            for number, (batch, answers) in enumerate(batches(data, steps), start=1):
                found, _ = session.run([loss, train_op], {images: batch, labels: answers})
                progress(number)
            return Path(saver.save(session, str(folder / "model.ckpt"), global_step=step)), float(found)


def batches(data: Digits, steps: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Shuffled batches, the same ones at every call; no image comes twice before all have come."""
    random = np.random.default_rng(SEED)
    order: list[int] = []
    for _ in range(steps):
        if len(order) < BATCH:
            order = random.permutation(len(data.images)).tolist()
        batch, order = order[:BATCH], order[BATCH:]
        yield data.images[batch], data.labels[batch]


def both_modes(prefix: Path, held: Path, progress: Callable[[int], None]) -> Comparison:
    """The checkpoint with batch statistics and with those that it stores, on the same images."""
    prepared = prepare(open_model(prefix))
    with without_warnings(), open_twins(prepared.forward) as twins:
        data = open_data(held, twins.inputs, Options(batch_size=BATCH))
        return measure(twins, prepared, data, data.facts, progress=progress)


def _accuracy(comparison: Comparison, mode: str) -> float:
    found = getattr(comparison.accuracy, mode)
    assert isinstance(found, float)
    return found


def _modes(comparison: Comparison) -> str:
    train_mode, eval_mode = _accuracy(comparison, "train"), _accuracy(comparison, "eval")
    agreement = comparison.outputs[0].agreement
    agree = (
        "" if agreement is None else f"   Both say the same of {agreement:.1%} of {comparison.data.samples} images.\n"
    )
    return (
        f"   is_training=True   (statistics of the batch)     {train_mode:6.1%} right\n"
        f"   is_training=False  (statistics of the checkpoint) {eval_mode:6.1%} right\n{agree}"
    )


def _say(stream: TextIO, what: str) -> None:
    stream.write(f"{what}\n")
    stream.flush()
