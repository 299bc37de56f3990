"""A model in train mode, ready to run: what `population` takes, made from the twins of `compare`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.forward import EVAL, Forward
from bncheck.compare.twins import _first_line, load_tensorflow
from bncheck.errors import BncheckError
from bncheck.repair.population import SiteMoments


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
        self._corrected = [site.corrected for site in forward.sites]
        pruned = tf.compat.v1.GraphDef()
        pruned.ParseFromString(forward.graph_def.SerializeToString())
        kept = [node for node in pruned.node if not node.name.startswith(f"{EVAL}/")]
        del pruned.node[:]
        pruned.node.extend(kept)
        self._graph = tf.Graph()
        with self._graph.as_default():
            try:
                tf.graph_util.import_graph_def(pruned, name="")
            except ValueError as error:
                raise BncheckError(f"TensorFlow {tf.__version__} cannot run this graph: {error}") from error
            tensor = self._graph.get_tensor_by_name
            self._input = tensor(forward.input)
            self._fetches = {
                "sizes": [tf.size(tensor(_port(site.train_input))) for site in forward.sites],
                "means": [tensor(_port(site.batch_mean)) for site in forward.sites],
                "variances": [tensor(_port(site.batch_variance)) for site in forward.sites],
            }
        self._refusal: type[Exception] = tf.errors.OpError
        self._session = tf.compat.v1.Session(graph=self._graph)

    def close(self) -> None:
        """Gives the session's memory back."""
        self._session.close()

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the input as the graph declares it; None where the rank is unknown."""
        return None if self._input.shape.rank is None else tuple(self._input.shape.as_list())

    @property
    def input_dtype(self) -> Any:
        """Data type of the input, as numpy's."""
        return self._input.dtype.as_numpy_dtype

    def run(self, batch: NDArray[Any]) -> SiteMoments:
        """Moments of every site's input; raises BncheckError where the graph refuses the batch."""
        try:
            got = self._session.run(self._fetches, {self._input: batch})
        except (ValueError, self._refusal) as error:
            raise BncheckError(
                f"the model refuses a batch of shape {list(batch.shape)}: {_first_line(error)}"
            ) from error
        means = [np.asarray(part, np.float64).reshape(-1) for part in got["means"]]
        samples = [int(size) // max(mean.size, 1) for size, mean in zip(got["sizes"], means, strict=True)]
        variances = [
            np.asarray(part, np.float64).reshape(-1) * ((n - 1) / n if corrected and n > 1 else 1.0)
            for part, n, corrected in zip(got["variances"], samples, self._corrected, strict=True)
        ]
        return SiteMoments(samples=samples, means=means, variances=variances)


def _port(name: str) -> str:
    return name if ":" in name else f"{name}:0"
