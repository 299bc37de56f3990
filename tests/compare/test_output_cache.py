"""Outputs that the second pass over the data takes from the first."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from bncheck.compare.output_cache import Kept
from bncheck.compare.twins.session import SiteMoments
from bncheck.compare.twins.twins import BatchRun, Twins
from bncheck.numerics.moments import from_batch


def outputs(value: float) -> BatchRun:
    """One batch of 8 samples and 4 classes in both modes: 256 bytes."""
    nothing = np.zeros(0)
    moments = SiteMoments(samples=(), channels=(), together=from_batch(1, nothing, nothing))
    train, stored = np.full((8, 4), value, np.float32), np.full((8, 4), -value, np.float32)
    return BatchRun(moments=moments, sums=np.zeros((0, 3)), train_outputs=(train,), eval_outputs=(stored,))


class Counting:
    """Stands where the twins stand, and tells what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def run(self, batch: np.ndarray[Any, Any]) -> BatchRun:
        """The batch's own value as outputs."""
        self.asked.append(float(batch[0]))
        return outputs(float(batch[0]))


def test_what_has_no_room_is_run_again() -> None:
    """Every batch has its own outputs again; only those after the first that does not fit are run."""
    kept, twins = Kept(room=2 * 256 + 255), Counting()
    for value in range(5):
        kept.add(outputs(value))
    again = kept.again(cast("Twins", twins))
    for value in range(5):
        train, stored = again(np.full(8, value))
        assert (train[0][0, 0], stored[0][0, 0]) == (value, -value)
    assert twins.asked == [2.0, 3.0, 4.0]
    assert len(kept.batches) == 2


def test_every_pass_begins_anew() -> None:
    """The batches of a second function are the first ones again."""
    kept = Kept()
    for value in (3.0, 4.0):
        kept.add(outputs(value))
    twins = cast("Twins", Counting())
    for _ in range(2):
        again = kept.again(twins)
        assert [float(again(np.zeros(8))[0][0][0, 0]) for _ in range(2)] == [3.0, 4.0]
