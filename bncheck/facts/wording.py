"""Names, counts and shares as every sentence and table writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def listing(items: Sequence[str], most: int = 3) -> str:
    """The first few and how many more there are: "a, b, c and 5 more"."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def many(count: int, noun: str) -> str:
    """A count with its noun: "1 layer", "52 layers"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def percent(share: float) -> str:
    """As in "91.4 %"; below a tenth of a percent with two significant digits: "0.0061 %"."""
    return f"{100 * share:.1f} %" if abs(share) >= 0.001 or share == 0 else f"{100 * share:.2g} %"


def quoted(names: Iterable[str], most: int = 3) -> str:
    """Names in backticks, each once: `a`, `b`, `c` and 5 more."""
    return listing([f"`{name}`" for name in dict.fromkeys(names)], most)
