"""Runs both twins on one input in one graph and brings back sums, never activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.forward import Forward
from bncheck.compare.loaded import Loaded, SiteMoments, load_tensorflow, moment_fetches, site_moments

ELEMENTS, PART = 1 << 16, 16
"""Of a layer's output, samples spread over the batch are compared: so many elements, and a sixteenth of the batch, at
least. To compare all would cost a fifth of the forward passes more, and moves no figure by half a decibel: every batch
adds other samples. Means and variances, and the outputs, are taken in full."""

Sums = NDArray[np.float64]
"""(sites, 3): for each site the sum of r^2, of t^2 and of (t - r)^2, r the train twin's output, t the eval twin's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchRun:
    """What one batch tells."""

    moments: SiteMoments
    """Of what enters each site in the train twin."""
    sums: Sums
    """Over the samples that are compared (ELEMENTS); over all where an output is not finite, to see where from."""
    train_outputs: tuple[NDArray[Any], ...]
    eval_outputs: tuple[NDArray[Any], ...]


class Twins:
    """Both twins, loaded once; `run` takes one batch."""

    def __init__(self, tf: Any, forward: Forward) -> None:
        self._sites = forward.sites
        self._batch = forward.batch
        self._loaded = Loaded(tf, forward.graph_def, forward.input)
        fetches = {
            "sums": _sums(tf, self._loaded, forward, whole=False),
            "moments": moment_fetches(tf, self._loaded, forward.sites),
            "train": [self._loaded.tensor(name) for name in forward.train_outputs],
            "eval": [self._loaded.tensor(name) for name in forward.eval_outputs],
        }
        self._run = self._loaded.runner(fetches)
        self._in_full = self._loaded.runner(_sums(tf, self._loaded, forward, whole=True))

    @property
    def input_dtype(self) -> Any:
        """Data type of the input, as numpy's."""
        return self._loaded.input_dtype

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the input as the graph declares it; None where the rank is unknown."""
        shape = self._loaded.input_shape
        return None if shape is None else (self._batch, *shape[1:])

    def run(self, batch: NDArray[Any]) -> BatchRun:
        """One batch through both twins; raises BncheckError where the graph refuses it."""
        got = self._run(batch)
        sums = got["sums"]
        if np.all(np.isfinite(sums)) and not all(map(_finite, (*got["train"], *got["eval"]))):
            sums = self._in_full(batch)
        return BatchRun(
            moments=site_moments(got["moments"], self._sites),
            sums=np.asarray(sums, np.float64).reshape(len(self._sites), 3),
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


def _finite(output: NDArray[Any]) -> bool:
    return output.dtype.kind != "f" or bool(np.all(np.isfinite(output)))


def _sums(tf: Any, loaded: Loaded, forward: Forward, *, whole: bool) -> Any:
    """(sites * 3,): what `Sums` holds."""
    with loaded.graph.as_default():
        sums = []
        for site in forward.sites:
            r, t = (loaded.tensor(name) for name in (site.train_output, site.eval_output))
            r, t = (tf.cast(part if whole else _compared(tf, part), tf.float32) for part in (r, t))
            sums += [_dot(tf, r), _dot(tf, t), _dot(tf, t - r)]
        return tf.stack(sums) if sums else tf.zeros([0])


def _compared(tf: Any, tensor: Any) -> Any:
    """Some samples of a batch, evenly spaced. Copied: one twin may be far ahead, and a view would hold all of it."""
    count = tf.shape(tensor, out_type=tf.int64)[0]
    each = tf.maximum(tf.size(tensor, out_type=tf.int64) // tf.maximum(count, 1), 1)
    some = tf.clip_by_value(tf.maximum(-(-ELEMENTS // each), -(-count // PART)), 1, tf.maximum(count, 1))
    return tf.gather(tensor, tf.range(some) * count // some)


def _dot(tf: Any, v: Any) -> Any:
    """The sum of squares as a dot product, which runs in a fifth of the time of a reduction."""
    row = tf.reshape(v, [1, -1])
    return tf.reshape(tf.linalg.matmul(row, row, transpose_b=True), [])
