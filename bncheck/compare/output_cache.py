"""Outputs of both modes from one pass over the data, kept for the next one as far as they are small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from bncheck.compare.twins.twins import BatchRun, Twins

BYTES = 1 << 24
"""That are kept at most: 2,000 samples of 1,000 classes. Of the batches that follow the twins are run again."""

ModeOutputs: TypeAlias = tuple[NDArray[Any], ...]
"""Of a model in one mode, for one batch."""


@dataclass(kw_only=True, eq=False)
class Kept:
    """(train, eval) outputs of the first batches, in their order."""

    room: int = BYTES
    batches: list[tuple[ModeOutputs, ModeOutputs]] = field(default_factory=list)

    def add(self, run: BatchRun) -> None:
        """Keeps the next batch, unless it or one before it is too large."""
        self.room -= sum(output.nbytes for output in (*run.train_outputs, *run.eval_outputs))
        if self.room >= 0:
            self.batches.append((run.train_outputs, run.eval_outputs))

    def again(self, twins: Twins) -> Callable[[NDArray[Any]], tuple[ModeOutputs, ModeOutputs]]:
        """A function of the same batches, from the first on, that gives the outputs kept, then those of `twins`."""
        left = iter(self.batches)

        def run(images: NDArray[Any]) -> tuple[ModeOutputs, ModeOutputs]:
            kept = next(left, None)
            if kept is not None:
                return kept
            found = twins.run(images)
            return found.train_outputs, found.eval_outputs

        return run
