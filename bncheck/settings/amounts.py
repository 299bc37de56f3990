"""Amounts as people write them: 90, 90s, 10m, 1h; 2000, 2000MB, 2GB."""

from __future__ import annotations

import re
from collections.abc import Mapping

SECONDS: Mapping[str, float] = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
MEGABYTES: Mapping[str, float] = {"": 1.0, "mb": 1.0, "gb": 1000.0, "mib": 2**20 / 1e6, "gib": 2**30 / 1e6}

_AMOUNT = r"\s*(?P<number>[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)\s*(?P<unit>[a-z]*)\s*"


def amount(text: str, units: Mapping[str, float]) -> float:
    """The number in units of "". Raises ValueError where it is none, is not above 0, or has another unit."""
    found = re.fullmatch(_AMOUNT, text, re.IGNORECASE)
    factor = None if found is None else units.get(found["unit"].lower())
    if found is None or factor is None:
        raise ValueError(f"{text!r} is no number, with or without one of {', '.join(unit for unit in units if unit)}")
    value = float(found["number"]) * factor
    if not 0 < value < float("inf"):
        raise ValueError(f"{text!r} is not greater than 0")
    return value
