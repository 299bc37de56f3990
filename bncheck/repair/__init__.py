"""New statistics for an old checkpoint, written beside it: `repair()` and the parts that it is made of."""

from __future__ import annotations

from bncheck.repair.estimate import DataOptions
from bncheck.repair.report import RepairReport
from bncheck.repair.run import repair

__all__ = ["DataOptions", "RepairReport", "repair"]
