"""`compare train-vs-eval` against the two bare forward passes, and its memory as the data grow.

python -m tests.bench.compare_steady_state [--size 96] [--batch-size 32] [--batches 40] [--long 1000] [--no-memory]

MobileNetV2 1.0. Time: between two batches of the comparison, which runs from a file on disk as users run it, the same
process runs the author's own graphs on the same images: is_training=True and then False, restored by a Saver, nothing
fetched but the logits. A B A B ..., so that whatever else the machine does meets both. Medians over the batches, of the
ratio of each pair, of elapsed and of processor time. Memory: peak of whole processes over 10 batches and over 1,000,
made-up data, so that nothing but the comparison can grow.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench._measure import Figure, run, table

WARM_UP = 4
"""Batches that are not counted: the first allocate."""
SHORT = 10


def main() -> None:
    """Memory first: what the measuring process holds when it forks is counted into the child's peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96, help="height and width of the images [96]")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=40, help="batches to time [40]")
    parser.add_argument("--long", type=int, default=1000, help="batches for the peak of memory [1000]")
    parser.add_argument("--no-memory", action="store_true")
    asked = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run([sys.executable, "-m", "tests.bench._mobilenet", str(folder)])
        prefix = next(folder.glob("barrier.ckpt-*.index")).with_suffix("")
        if not asked.no_memory:
            memory(prefix, asked.size, asked.batch_size, asked.long)
        steady_state(prefix, folder, asked.size, asked.batch_size, asked.batches)


def figures(*, quick: bool) -> list[Figure]:
    """The two budgets of DESIGN, section 9; quick over 60 batches instead of 1,000."""
    long = 60 if quick else 1000
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run([sys.executable, "-m", "tests.bench._mobilenet", str(folder)])
        prefix = next(folder.glob("barrier.ckpt-*.index")).with_suffix("")
        grown = memory(prefix, 96, 32, long)
        elapsed, processor = steady_state(prefix, folder, 96, 32, 12 if quick else 40)
    told = f"{elapsed:.2f}x elapsed, {processor:.2f}x of processor time"
    against = "compare train-vs-eval, steady state, against the two bare forward passes"
    return [
        Figure(against, "at most 1.10x", told, min(elapsed, processor) <= 1.10),
        Figure(
            f"the same, peak memory over {SHORT} or {long:,} batches", "within 1.05x", f"{grown:.3f}x", grown <= 1.05
        ),
    ]


def memory(prefix: Path, size: int, batch_size: int, long: int) -> float:
    """Prints the peaks of two whole processes, and gives their ratio."""
    peaks = {}
    for batches in (SHORT, long):
        command = [sys.executable, "-m", "bncheck", "compare", "train-vs-eval", str(prefix), "--data", "synthetic"]
        command += ["--model", f"mobilenet_v2:image_size={size}", "--batch-size", str(batch_size)]
        peaks[batches] = run([*command, "--batches", str(batches)], codes=(0, 1, 3)).peak
    table(
        ("peak of memory", "MiB", "ratio"),
        [(f"{batches} batches", f"{peak:.0f}", f"{peak / peaks[SHORT]:.3f}") for batches, peak in peaks.items()],
    )
    return peaks[long] / peaks[SHORT]


def steady_state(prefix: Path, folder: Path, size: int, batch_size: int, batches: int) -> tuple[float, float]:
    """Prints milliseconds a batch, and the ratios; gives those of elapsed and of processor time."""
    import numpy as np

    import bncheck

    warnings.simplefilter("ignore")
    data = folder / "images.npy"
    images = np.random.default_rng(0).normal(size=((batches + WARM_UP) * batch_size, size, size, 3))
    np.save(data, images.astype(np.float32))
    batch = images[:batch_size].astype(np.float32)
    modes = {name: bare(prefix, size, is_training=name == "train") for name in ("train", "eval")}
    cost: dict[str, list[tuple[float, float]]] = {"compare": [], "train": [], "eval": []}
    start = now()

    def between(_done: int, _total: int | None) -> None:
        nonlocal start
        cost["compare"].append(since(start))
        for name, forward in modes.items():
            start = now()
            forward(batch)
            cost[name].append(since(start))
        start = now()

    bncheck.compare_train_vs_eval(
        prefix, data=data, model=f"mobilenet_v2:image_size={size}", batch_size=batch_size, progress=between
    )
    elapsed, processor = (
        told(name, {key: [pair[kind] for pair in pairs[WARM_UP:]] for key, pairs in cost.items()})
        for kind, name in enumerate(("elapsed", "processor"))
    )
    return elapsed, processor


def told(kind: str, cost: Mapping[str, Sequence[float]]) -> float:
    """Prints a table, and the ratio of each pair of neighbours; gives the median of the ratios."""
    both = [train + stored for train, stored in zip(cost["train"], cost["eval"], strict=True)]
    rows = {"train mode, bare": cost["train"], "eval mode, bare": cost["eval"], "both, bare": both}
    rows["compare train-vs-eval"] = cost["compare"]
    table(
        (f"ms a batch, {kind} time", "median", "least"),
        [(name, f"{1e3 * median(seconds):.1f}", f"{1e3 * min(seconds):.1f}") for name, seconds in rows.items()],
    )
    ratios = sorted(ours / bare for ours, bare in zip(cost["compare"], both, strict=True))
    quarter = len(ratios) // 4
    print(
        f"ratio {median(ratios):.3f} (quartiles {ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}), "
        f"of the least times {min(cost['compare']) / min(both):.3f}\n"
    )
    return median(ratios)


def now() -> tuple[float, float]:
    """(clock, processor time of all threads) in seconds."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """What has gone by of both."""
    clock, processor = now()
    return clock - start[0], processor - start[1]


def bare(prefix: Path, size: int, *, is_training: bool) -> Any:
    """The author's graph in one mode: a function of a batch that gives the logits."""
    from bncheck.backbones.mobilenet_v2 import mobilenet, slim, tf, training_scope, v1

    with tf.Graph().as_default() as graph:
        images = v1.placeholder(tf.float32, [None, size, size, 3])
        with slim.arg_scope(training_scope(is_training=is_training, dropout_keep_prob=1.0)):
            logits, _ = mobilenet(images, 10)
        session = v1.Session(graph=graph)
        v1.train.Saver().restore(session, str(prefix))
    return lambda batch: session.run(logits, {images: batch})


if __name__ == "__main__":
    main()
