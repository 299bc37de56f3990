"""A model in eval mode with any statistics: what a repaired copy would answer, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.samples import ModelInput
from bncheck.compare.twins.forward import Forward
from bncheck.compare.twins.libraries import load_tensorflow
from bncheck.compare.twins.session import Loaded
from bncheck.compare.twins.writer import without_rounding
from bncheck.facts.layers import PerChannel

Statistics = Mapping[str, tuple[PerChannel, PerChannel]]
"""Layer -> (mean, variance), (channels,) each."""
Outputs = tuple[NDArray[Any], ...]


@contextmanager
def open_trial(forward: Forward, *, ranges_renewed: bool = False) -> Iterator[TrialTwins]:
    """Both twins without what is measured inside them, closed at the end of the block."""
    twins = TrialTwins(load_tensorflow(), forward, ranges_renewed=ranges_renewed)
    try:
        yield twins
    finally:
        twins.close()


class TrialTwins:
    """The outputs of the train twin, and of the eval twin with statistics of one's own.

    Where `ranges_renewed`, the repair records quantization ranges anew, so that new statistics are tried without those
    that are stored: eval mode does not round.
    """

    def __init__(self, tf: Any, forward: Forward, *, ranges_renewed: bool = False) -> None:
        self._batch = forward.batch
        self._loaded = Loaded(tf, forward.graph_def, forward.inputs)
        self._train = self._loaded.runner([self._loaded.tensor(name) for name in forward.train_outputs])
        self._stored = _EvalMode(self._loaded, forward)
        self._renewed = Loaded(tf, without_rounding(forward.graph_def), forward.inputs) if ranges_renewed else None
        self._new = self._stored if self._renewed is None else _EvalMode(self._renewed, forward)

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """What the model takes; nearly always one."""
        return self._loaded.inputs(self._batch)

    def train(self, batch: NDArray[Any]) -> Outputs:
        """In train mode. Raises BncheckError where the graph refuses the batch, as the others do."""
        return tuple(self._train(batch))

    def stored(self, batch: NDArray[Any], statistics: Statistics) -> Outputs:
        """In eval mode with the statistics that are stored, rounded within the ranges that are stored."""
        return self._stored.run(batch, statistics)

    def with_statistics(self, batch: NDArray[Any], statistics: Statistics) -> Outputs:
        """In eval mode; a layer that is not among `statistics` has those of the graph."""
        return self._new.run(batch, statistics)

    def close(self) -> None:
        """Gives the sessions' memory back."""
        self._loaded.close()
        if self._renewed is not None:
            self._renewed.close()


class _EvalMode:
    """The eval twin of a graph, whose statistics are fed."""

    def __init__(self, loaded: Loaded, forward: Forward) -> None:
        self._sites = forward.sites
        fed = [loaded.tensor(name) for site in forward.sites for name in (site.eval_mean, site.eval_variance)]
        self._own = loaded.constants(fed)
        self._run = loaded.runner([loaded.tensor(name) for name in forward.eval_outputs], fed)

    def run(self, batch: NDArray[Any], statistics: Statistics) -> Outputs:
        """The outputs for a batch; a layer that is not among `statistics` has those of the graph."""
        wanted = [value for site in self._sites for value in statistics.get(site.layer, (None, None))]
        values = [
            own if value is None else np.asarray(value, np.float32).reshape(own.shape)
            for own, value in zip(self._own, wanted, strict=True)
        ]
        return tuple(self._run(batch, *values))
