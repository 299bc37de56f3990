"""Runs both twins on one input in one graph and brings back sums, never activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.forward import Forward
from bncheck.compare.loaded import Loaded, load_tensorflow, moment_fetches, moments

ELEMENTS, PART = 1 << 18, 8
"""Of a layer's output, samples spread over the batch are compared: so many elements, and an eighth of the batch, at
least. To compare all would cost a fifth of the forward passes. A MobileNetV2 for 96x96 is compared in full from layer_8
on."""

Sums = NDArray[np.float64]
"""(sites, 3): for each site the sum of r^2, of t^2 and of (t - r)^2, r the train twin's output, t the eval twin's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchRun:
    """What one batch tells."""

    samples: tuple[int, ...]
    """Elements per channel of each site's input (batch * height * width)."""
    means: tuple[NDArray[np.float64], ...]
    variances: tuple[NDArray[np.float64], ...]
    """Biased variance of the batch, per channel, for each site."""
    sums: Sums
    """Over the samples that are compared (ELEMENTS)."""
    eval_energy: NDArray[np.float64]
    """(sites,): sum of t^2 over the whole batch; NaN or infinite where one value is."""
    train_outputs: tuple[NDArray[Any], ...]
    eval_outputs: tuple[NDArray[Any], ...]


class Twins:
    """Both twins, loaded once; `run` takes one batch."""

    def __init__(self, tf: Any, forward: Forward) -> None:
        self._sites = forward.sites
        self._loaded = Loaded(tf, forward.graph_def, forward.input)
        self._fetches = _fetches(tf, self._loaded, forward)

    @property
    def input_dtype(self) -> Any:
        """Data type of the input, as numpy's."""
        return self._loaded.input_dtype

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the input as the graph declares it; None where the rank is unknown."""
        return self._loaded.input_shape

    def run(self, batch: NDArray[Any]) -> BatchRun:
        """One batch through both twins; raises BncheckError where the graph refuses it."""
        got = self._loaded.run(self._fetches, batch)
        samples, means, variances = moments(got["moments"], self._sites)
        return BatchRun(
            samples=samples,
            means=means,
            variances=variances,
            sums=np.asarray(got["sums"], np.float64).reshape(len(self._sites), 3),
            eval_energy=np.asarray(got["eval_energy"], np.float64),
            train_outputs=tuple(got["train"]),
            eval_outputs=tuple(got["eval"]),
        )

    def close(self) -> None:
        """Gives the session's memory back."""
        self._loaded.close()


@contextmanager
def open_twins(forward: Forward) -> Iterator[Twins]:
    """Twins that are closed at the end of the block."""
    twins = Twins(load_tensorflow(), forward)
    try:
        yield twins
    finally:
        twins.close()


def _fetches(tf: Any, loaded: Loaded, forward: Forward) -> dict[str, Any]:
    sums, energies = [], []
    with loaded.graph.as_default():
        for site in forward.sites:
            whole = loaded.tensor(site.eval_output)
            r, t = (_compared(tf, tensor) for tensor in (loaded.tensor(site.train_output), whole))
            sums += [_dot(tf, r), _dot(tf, t), _dot(tf, t - r)]
            energies.append(_dot(tf, tf.cast(whole, tf.float32)))
        return {
            "sums": tf.stack(sums) if sums else tf.zeros([0]),
            "eval_energy": tf.stack(energies) if energies else tf.zeros([0]),
            "moments": moment_fetches(tf, loaded, forward.sites),
            "train": [loaded.tensor(name) for name in forward.train_outputs],
            "eval": [loaded.tensor(name) for name in forward.eval_outputs],
        }


def _compared(tf: Any, tensor: Any) -> Any:
    """Some samples of a batch, evenly spaced. Copied: one twin may be far ahead, and a view would hold all of it."""
    count = tf.shape(tensor, out_type=tf.int64)[0]
    each = tf.maximum(tf.size(tensor, out_type=tf.int64) // tf.maximum(count, 1), 1)
    some = tf.clip_by_value(tf.maximum(-(-ELEMENTS // each), -(-count // PART)), 1, tf.maximum(count, 1))
    chosen = tf.range(some) * count // some
    return tf.cast(tf.gather(tensor, chosen), tf.float32)


def _dot(tf: Any, v: Any) -> Any:
    """The sum of squares as a dot product, which runs in a fifth of the time of a reduction."""
    row = tf.reshape(v, [1, -1])
    return tf.reshape(tf.linalg.matmul(row, row, transpose_b=True), [])
