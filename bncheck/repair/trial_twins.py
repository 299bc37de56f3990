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
from bncheck.facts.layers import PerChannel

Statistics = Mapping[str, tuple[PerChannel, PerChannel]]
"""Layer -> (mean, variance), (channels,) each."""
Outputs = tuple[NDArray[Any], ...]


@contextmanager
def open_trial(forward: Forward) -> Iterator[TrialTwins]:
    """Both twins without what is measured inside them, closed at the end of the block."""
    twins = TrialTwins(load_tensorflow(), forward)
    try:
        yield twins
    finally:
        twins.close()


class TrialTwins:
    """The outputs of the train twin, and of the eval twin with statistics of one's own."""

    def __init__(self, tf: Any, forward: Forward) -> None:
        self._sites = forward.sites
        self._batch = forward.batch
        self._loaded = Loaded(tf, forward.graph_def, forward.inputs)
        names = [name for site in forward.sites for name in (site.eval_mean, site.eval_variance)]
        fed = [self._loaded.tensor(name) for name in names]
        self._own = self._loaded.constants(fed)
        self._train = self._loaded.runner([self._loaded.tensor(name) for name in forward.train_outputs])
        outputs = [self._loaded.tensor(name) for name in forward.eval_outputs]
        self._with = self._loaded.runner(outputs, fed)

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """What the model takes; nearly always one."""
        return self._loaded.inputs(self._batch)

    def train(self, batch: NDArray[Any]) -> Outputs:
        """In train mode. Raises BncheckError where the graph refuses the batch, as the others do."""
        return tuple(self._train(batch))

    def with_statistics(self, batch: NDArray[Any], statistics: Statistics) -> Outputs:
        """In eval mode; a layer that is not among `statistics` has those of the graph."""
        wanted = [value for site in self._sites for value in statistics.get(site.layer, (None, None))]
        values = [
            own if value is None else np.asarray(value, np.float32).reshape(own.shape)
            for own, value in zip(self._own, wanted, strict=True)
        ]
        return tuple(self._with(batch, *values))

    def close(self) -> None:
        """Gives the session's memory back."""
        self._loaded.close()
