"""Checkpoints that `fixtures/fake_quant.py` trains, each in a process of its own: it needs TensorFlow 1's variables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one training left behind."""

    folder: Path
    prefix: str
    facts: dict[str, Any]

    @property
    def eval_graph(self) -> str:
        """The MetaGraph that is served."""
        return str(self.folder / "eval.meta")

    def data(self, split: str) -> str:
        """Images and labels of the split "train" or "test", as `--data` takes them."""
        return str(self.folder / f"{split}.npz")


def run_fixture(*arguments: str, script: str = "fake_quant") -> dict[str, Any]:
    """What `python -m fixtures.<script>` prints last."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", "-m", f"fixtures.{script}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def train(folder: Path, *options: str) -> Run:
    """Trains by the fixture's options."""
    facts = run_fixture("train", str(folder), *options)
    return Run(folder=folder, prefix=str(folder / facts["checkpoint"]), facts=facts)


def served_accuracy(run: Run, prefix: str, *options: str) -> float:
    """Top-1 of another checkpoint of the same net in the graph that is served, by plain TensorFlow."""
    return float(run_fixture("serve", str(run.folder), "--checkpoint", prefix, *options)["served"])


def plain_outputs(meta: str, prefix: str, images: NDArray[Any], *, counter: int | None = None) -> NDArray[Any]:
    """Logits (count, 10) that plain TensorFlow gives; `counter` sets the count of steps that freezing goes by."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        saver = v1.train.import_meta_graph(meta, clear_devices=True)
        saver.restore(session, prefix)
        # fed at what every condition reads
        feed = {} if counter is None else {graph.get_tensor_by_name("fake_quantization_step/Identity:0"): counter}
        found: Sequence[Any] = session.run(
            graph.get_tensor_by_name("scores:0"), {graph.get_tensor_by_name("images:0"): images, **feed}
        )
    return np.asarray(found)
