"""Runs both twins on one input in one graph and brings back sums, never activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.samples import ModelInput
from bncheck.compare.twins.forward import Forward, TwinSite
from bncheck.compare.twins.libraries import load_tensorflow
from bncheck.compare.twins.session import Loaded, SiteMoments, moment_fetches, site_moments

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
        self._loaded = Loaded(tf, forward.graph_def, forward.inputs)
        fetches = {
            "sums": _sums(tf, self._loaded, forward, whole=False),
            "moments": moment_fetches(tf, self._loaded, forward.sites),
            "train": [self._loaded.tensor(name) for name in forward.train_outputs],
            "eval": [self._loaded.tensor(name) for name in forward.eval_outputs],
        }
        self._run = self._loaded.runner(fetches)
        self._in_full = cache(lambda: self._loaded.runner(_sums(tf, self._loaded, forward, whole=True)))
        """Made where it is asked for, which is seldom."""

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """What the model takes; nearly always one."""
        return self._loaded.inputs(self._batch)

    def run(self, batch: NDArray[Any]) -> BatchRun:
        """One batch through both twins; raises BncheckError where the graph refuses it."""
        got = self._run(batch)
        sums = got["sums"]
        if np.all(np.isfinite(sums)) and not all(map(_finite, (*got["train"], *got["eval"]))):
            sums = self._in_full()(batch)
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
    """(sites * 3, 1): what `Sums` holds. By raw ops on shared constants: to add an op takes Python 0.2 ms."""
    ops = tf.raw_ops
    with loaded.graph.as_default():
        number = cache(lambda value: tf.constant(value, tf.int64))
        flat = tf.constant([1, -1])
        sums = []
        for site in forward.sites:
            rows = []
            for name in (site.train_output, site.eval_output):
                values = _counted(tf, loaded, site, loaded.tensor(name))
                values = values if whole else _compared(ops, number, values)
                rows.append(ops.Reshape(tensor=tf.cast(values, tf.float32), shape=flat))
            rows.append(ops.Sub(x=rows[1], y=rows[0]))
            # The sum of squares as a dot product, which runs in a fifth of the time of a reduction.
            sums += [ops.MatMul(a=row, b=row, transpose_b=True) for row in rows]
        return tf.concat(sums, 0) if sums else tf.zeros([0])


def _counted(tf: Any, loaded: Loaded, site: TwinSite, values: Any) -> Any:
    """A site's output with padded steps at 0 in both twins: they are no part of what arrives, nor of its energy."""
    if site.mask is None:
        return values
    return tf.where(loaded.tensor(site.mask) > 0, values, tf.zeros([], values.dtype))


def _compared(ops: Any, number: Callable[[int], Any], tensor: Any) -> Any:
    """Some samples of a batch, evenly spaced. Copied: one twin may be far ahead, and a view would hold all of it."""
    count = ops.Gather(params=ops.Shape(input=tensor, out_type=np.int64), indices=number(0))
    some_count = ops.Maximum(x=count, y=number(1))
    each = tensor.shape[1:].num_elements()
    if each is None:
        size = ops.FloorDiv(x=ops.Size(input=tensor, out_type=np.int64), y=some_count)
        most = ops.FloorDiv(x=number(ELEMENTS - 1), y=ops.Maximum(x=size, y=number(1)))
        least = ops.AddV2(x=most, y=number(1))
    else:
        least = number(-(-ELEMENTS // max(each, 1)))
    part = ops.FloorDiv(x=ops.AddV2(x=count, y=number(PART - 1)), y=number(PART))
    some = ops.Minimum(x=ops.Maximum(x=least, y=part), y=some_count)
    places = ops.Mul(x=ops.Range(start=number(0), limit=some, delta=number(1)), y=count)
    return ops.GatherV2(params=tensor, indices=ops.FloorDiv(x=places, y=some), axis=number(0))
