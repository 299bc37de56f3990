"""A model in train mode, ready to run: what `population` takes, made from the twins of `compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.samples import ModelInput
from bncheck.compare.twins.forward import Forward, TwinSite
from bncheck.compare.twins.libraries import load_tensorflow
from bncheck.compare.twins.session import Loaded
from bncheck.compare.twins.writer import EVAL
from bncheck.repair.population import PooledMoments


@contextmanager
def open_train_twin(forward: Forward) -> Iterator[TrainTwin]:
    """The train twin, closed at the end of the block."""
    twin = TrainTwin(load_tensorflow(), forward)
    try:
        yield twin
    finally:
        twin.close()


class TrainTwin:
    """The train twin of a forward pass alone, at half the price of both; `run` takes one batch."""

    def __init__(self, tf: Any, forward: Forward) -> None:
        self.layers: Sequence[str] = tuple(site.layer for site in forward.sites)
        self._sites = forward.sites
        self._batch = forward.batch
        pruned = type(forward.graph_def)(library=forward.graph_def.library)
        pruned.node.extend(node for node in forward.graph_def.node if not node.name.startswith(f"{EVAL}/"))
        self._loaded = Loaded(tf, pruned, forward.inputs)
        by_sample = _BySample(tf)
        self._run = self._loaded.runner([_moments(tf, self._loaded, site, by_sample) for site in forward.sites])

    def close(self) -> None:
        """Gives the session's memory back."""
        self._loaded.close()

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """What the model takes; nearly always one."""
        return self._loaded.inputs(self._batch)

    def run(self, batch: NDArray[Any]) -> PooledMoments:
        """Moments of every site's input; raises BncheckError where the graph refuses the batch."""
        found = self._run(batch)
        return PooledMoments(
            samples=[int(count) for count, _, _ in found],
            means=[np.asarray(mean, np.float64).reshape(-1) for _, mean, _ in found],
            variances=[np.asarray(variance, np.float64).reshape(-1) for _, _, variance in found],
        )


class _BySample:
    """Moments of a map sample by sample, so that no more than one of a large map is made float64 at a time.

    Sites whose maps look alike share one function: to trace a loop takes a tenth of a second.
    """

    def __init__(self, tf: Any) -> None:
        self._tf = tf
        self._made: dict[tuple[int, int, Any], Any] = {}

    def __call__(self, x: Any, axis: int) -> tuple[Any, Any]:
        """(means, biased variances), (samples, channels) each, of x's axis `axis`; a rank is known unless it is -1."""
        rank = x.shape.rank
        if rank is None:
            return self._function(axis)(x)  # type: ignore[no-any-return] # two of two
        key = (rank, axis % rank, x.dtype)
        if key not in self._made:
            tf = self._tf
            self._made[key] = tf.function(self._function(axis % rank), [tf.TensorSpec([None] * rank, x.dtype)])
        return self._made[key](x)  # type: ignore[no-any-return] # two of two

    def _function(self, axis: int) -> Callable[[Any], Any]:
        tf = self._tf

        def of_batch(x: Any) -> Any:
            rank = x.shape.rank
            channels = tf.shape(x, out_type=tf.int64)[axis]
            order = [] if axis in {-1, (rank or 0) - 1} else [*(n for n in range(rank - 1) if n != axis - 1), axis - 1]

            def of_sample(sample: Any) -> tuple[Any, Any]:
                turned = tf.transpose(sample, order) if order else sample
                return _mean_and_variance(tf, tf.cast(tf.reshape(turned, [-1, channels]), tf.float64))

            types = (tf.float64, tf.float64)
            return tf.map_fn(of_sample, x, fn_output_signature=types, parallel_iterations=2)

        return of_batch


def _moments(tf: Any, loaded: Loaded, site: TwinSite, by_sample: _BySample) -> tuple[Any, Any, Any]:
    """(elements per channel, mean, biased variance) of a site's input, in float64.

    The kernel's own are float32: of means of 1e4 with deviation 1 it errs by 1e-6 and 1e-4, differently for every way
    to cut the data into batches.
    """
    with loaded.graph.as_default():
        x = loaded.tensor(site.train_input)
        if site.mask is not None:
            return _of_what_counts(tf, tf.cast(x, tf.float64), tf.cast(loaded.tensor(site.mask), tf.float64))
        rank = x.shape.rank
        axis = site.axis
        if axis is None or (rank is None and axis != -1):
            return _of_the_kernel(tf, loaded, site)
        count = tf.size(x, out_type=tf.int64) // tf.maximum(tf.shape(x, out_type=tf.int64)[axis], 1)
        if rank == 2:
            return (count, *_mean_and_variance(tf, tf.cast(x, tf.float64)))
        means, variances = by_sample(x, axis)
        mean, between = _mean_and_variance(tf, means)
        return count, mean, tf.reduce_mean(variances, 0) + between


def _of_what_counts(tf: Any, x: Any, mask: Any) -> tuple[Any, Any, Any]:
    """As `_moments`, of the values whose mask (samples, steps, 1) is 1: padding is left out, as Keras does."""
    count, axes = tf.reduce_sum(mask), list(range(x.shape.rank - 1))
    mean = tf.math.divide_no_nan(tf.reduce_sum(x * mask, axes), count)
    variance = tf.math.divide_no_nan(tf.reduce_sum(tf.square(x - mean) * mask, axes), count)
    return tf.cast(count, tf.int64), mean, variance


def _mean_and_variance(tf: Any, values: Any) -> tuple[Any, Any]:
    mean = tf.reduce_mean(values, 0)
    return mean, tf.reduce_mean(tf.square(values - mean), 0)


def _of_the_kernel(tf: Any, loaded: Loaded, site: TwinSite) -> tuple[Any, Any, Any]:
    mean, variance = (tf.cast(loaded.tensor(name), tf.float64) for name in (site.batch_mean, site.batch_variance))
    count = tf.size(loaded.tensor(site.train_input), out_type=tf.int64) // tf.maximum(tf.size(mean, tf.int64), 1)
    n = tf.cast(count, tf.float64)
    return count, mean, variance * ((n - 1) / tf.maximum(n, 1.0) if site.corrected else 1.0)
