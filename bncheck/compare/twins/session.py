"""A GraphDef in a session of its own: one input, any fetches, TensorFlow's refusals in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.samples import ModelInput
from bncheck.compare.twins.forward import TwinInput, TwinSite
from bncheck.facts.errors import BncheckError
from bncheck.numerics.moments import Moments, from_batch, split


class Loaded:
    """A graph (a message of `sources/protos.py`) that TensorFlow has taken. Raises BncheckError where it does not."""

    def __init__(self, tf: Any, graph_def: Any, inputs: Sequence[TwinInput]) -> None:
        self.graph: Any = tf.Graph()
        with self.graph.as_default():
            try:
                tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(graph_def.SerializeToString()), name="")
            except ValueError as error:
                raise BncheckError(
                    f"TensorFlow {tf.__version__} cannot run this graph: {_first_line(error)}"
                ) from error
        self._tensors = [self.graph.get_tensor_by_name(entry.tensor) for entry in inputs]
        self._inputs = inputs
        self._refusal: type[Exception] = tf.errors.OpError
        config = tf.compat.v1.ConfigProto()
        # TensorFlow rewrites the graph twice; the second time takes 0.3 s and makes no batch faster.
        config.graph_options.rewrite_options.meta_optimizer_iterations = 1
        self._session = tf.compat.v1.Session(graph=self.graph, config=config)

    def inputs(self, batch: int | None) -> tuple[ModelInput, ...]:
        """What the model takes, batches of `batch` samples where that is declared."""
        return tuple(
            ModelInput(
                names=(entry.name, *entry.also),
                shape=None if tensor.shape.rank is None else (batch, *tensor.shape.as_list()[1:]),
                dtype=np.dtype(tensor.dtype.as_numpy_dtype),
            )
            for entry, tensor in zip(self._inputs, self._tensors, strict=True)
        )

    def tensor(self, name: str) -> Any:
        """A tensor by its name, `op` standing for `op:0`."""
        return self.graph.get_tensor_by_name(name if ":" in name else f"{name}:0")

    def runner(self, fetches: Any, fed: Sequence[Any] = ()) -> Callable[..., Any]:
        """A function of one batch that gives what `fetches` names; it raises BncheckError where the graph refuses.

        A batch for several inputs has a field for each, in their order. Values for the tensors `fed` follow it.
        """
        call = self._session.make_callable(fetches, [*self._tensors, *fed])

        def run(batch: NDArray[Any], *values: Any) -> Any:
            names = batch.dtype.names
            try:
                return call(*([batch] if names is None else [batch[name] for name in names]), *values)
            except (ValueError, self._refusal) as error:
                raise BncheckError(
                    f"the model rejects a batch of shape {list(batch.shape)}: {_first_line(error)}{_single(batch)}"
                ) from error

        return run

    def constants(self, tensors: Sequence[Any]) -> list[NDArray[Any]]:
        """Values of tensors that depend on no input."""
        return list(self._session.run(list(tensors)))

    def close(self) -> None:
        """Gives the session's memory back."""
        self._session.close()


def moment_fetches(tf: Any, loaded: Loaded, sites: Sequence[TwinSite]) -> dict[str, Any]:
    """What `moments` takes: the moments of all sites in one vector each, for every fetch costs time of its own."""
    with loaded.graph.as_default():
        if not sites:
            none = tf.zeros([0], tf.int64)
            return {"sizes": none, "channels": none, "means": none, "variances": none}
        means, variances = (
            [tf.reshape(tf.cast(loaded.tensor(name), tf.float32), [-1]) for name in names]
            for names in ([s.batch_mean for s in sites], [s.batch_variance for s in sites])
        )
        return {
            "sizes": tf.stack([_size(tf, loaded, site) for site in sites]),
            "channels": tf.stack([tf.size(mean) for mean in means]),
            "means": tf.concat(means, 0),
            "variances": tf.concat(variances, 0),
        }


def _size(tf: Any, loaded: Loaded, site: TwinSite) -> Any:
    """Values that the moments of a site's input are taken over, all channels together."""
    if site.mask is None:
        return tf.size(loaded.tensor(site.train_input), out_type=tf.int64)
    counted = tf.cast(tf.reduce_sum(loaded.tensor(site.mask)), tf.int64)
    return counted * tf.size(loaded.tensor(site.batch_mean), out_type=tf.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteMoments:
    """Moments of every site's input for one batch."""

    samples: tuple[int, ...]
    """Elements per channel of each site's input (batch * height * width)."""
    channels: tuple[int, ...]
    """Of each site."""
    together: Moments
    """Of all sites in one vector."""

    @property
    def means(self) -> list[NDArray[np.float64]]:
        """Of each site."""
        return [part.mean for part in split(self.together, self.channels)]

    @property
    def variances(self) -> list[NDArray[np.float64]]:
        """Biased, of each site."""
        return [part.variance for part in split(self.together, self.channels)]


def site_moments(got: Any, sites: Sequence[TwinSite]) -> SiteMoments:
    """What `moment_fetches` brought."""
    channels = np.asarray(got["channels"], np.int64)
    samples = np.asarray(got["sizes"], np.int64) // np.maximum(channels, 1)
    corrected = np.array([site.corrected for site in sites], bool) & (samples > 1)
    biased = np.where(corrected, (samples - 1) / np.maximum(samples, 1), 1.0)
    return SiteMoments(
        samples=tuple(samples.tolist()),
        channels=tuple(channels.tolist()),
        together=from_batch(
            np.repeat(samples, channels),
            got["means"],
            np.asarray(got["variances"], np.float64) * np.repeat(biased, channels),
        ),
    )


def _single(batch: NDArray[Any]) -> str:
    """What to do with a graph that was exported for a fixed number of samples; it shows in its reshapes alone."""
    return (
        " (was it exported for batches of another size? give that as --batch-size, or export it with an open one)"
        if len(batch) > 1
        else ""
    )


_PREAMBLE = ("Graph execution error", "Detected at node", "Node:")


def _first_line(error: Exception) -> str:
    """What went wrong; TensorFlow says first where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(_PREAMBLE)), type(error).__name__)[:300]
