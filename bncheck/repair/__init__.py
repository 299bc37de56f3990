"""New statistics for an old checkpoint, and how they are written beside it; `repair()` is public here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncheck.facts.repairs import RepairReport
from bncheck.settings.options import Options

DataOptions = Options
"""How a model is run on the data that its statistics are taken from."""

if TYPE_CHECKING:
    from bncheck.commands.repair import repair

__all__ = ["DataOptions", "RepairReport", "repair"]


def __getattr__(name: str) -> object:
    """Looks the command up when it is called for: the parts that it is made of must not know it."""
    if name != "repair":
        raise AttributeError(f"module 'bncheck.repair' has no attribute {name!r}")
    from bncheck.commands.repair import repair  # noqa: PLC0415 - the public door, see CLIMBS in tests/test_layering.py

    return repair
