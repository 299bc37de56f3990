"""A model in train mode, ready to run: what `population` takes, made from the twins of `compare`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from bncheck.compare.forward import EVAL, Forward
from bncheck.compare.loaded import Loaded, load_tensorflow, moment_fetches, site_moments
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
        self._sites = forward.sites
        self._batch = forward.batch
        pruned = type(forward.graph_def)(library=forward.graph_def.library)
        pruned.node.extend(node for node in forward.graph_def.node if not node.name.startswith(f"{EVAL}/"))
        self._loaded = Loaded(tf, pruned, forward.input)
        self._run = self._loaded.runner(moment_fetches(tf, self._loaded, forward.sites))

    def close(self) -> None:
        """Gives the session's memory back."""
        self._loaded.close()

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the input as the graph declares it; None where the rank is unknown."""
        shape = self._loaded.input_shape
        return None if shape is None else (self._batch, *shape[1:])

    @property
    def input_dtype(self) -> Any:
        """Data type of the input, as numpy's."""
        return self._loaded.input_dtype

    def run(self, batch: NDArray[Any]) -> SiteMoments:
        """Moments of every site's input; raises BncheckError where the graph refuses the batch."""
        found = site_moments(self._run(batch), self._sites)
        return SiteMoments(samples=found.samples, means=found.means, variances=found.variances)
