"""How long made-up data will take, told before they are run: few wait for them as for an answer on real data."""

from __future__ import annotations

import time

from bncheck.compare.data.data import Data
from bncheck.compare.twins.twins import Twins
from bncheck.facts.errors import BncheckError


def expected_seconds(twins: Twins, data: Data) -> float | None:
    """Of one pass of `data` through both twins, by what one sample takes; None where nothing tells how many there are.

    The first run is not counted, for TensorFlow prepares the graph in it. Samples of a batch take less than one alone,
    so that this is rather too long. A graph that takes no single sample gets a whole batch. Raises BncheckError where
    it refuses that too.
    """
    images = next((batch for batch, _ in data), None)
    if images is None or data.samples is None:
        return None
    some = images[:1]
    try:
        twins.run(some)
    except BncheckError:
        some = images
        twins.run(some)
    start = time.perf_counter()
    twins.run(some)
    return (time.perf_counter() - start) / len(some) * data.samples
