"""What both ways of repair find: new statistics, and the layers that stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

from bncheck.repair.report import LayerLeft, PopulationFacts
from bncheck.repair.statistics import NewStatistics


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """New statistics and what did not get any."""

    new: tuple[NewStatistics, ...]
    left: tuple[LayerLeft, ...]
    population: PopulationFacts | None = None
    notes: tuple[str, ...] = ()
