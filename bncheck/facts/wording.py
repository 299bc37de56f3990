"""Names, counts and shares as every sentence and table writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bncheck.facts.ratios import sqnr_db


def listing(items: Sequence[str], most: int = 3) -> str:
    """The first few and how many more there are: "a, b, c and 5 more"."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def many(count: int, noun: str) -> str:
    """A count with its noun: "1 layer", "52 layers"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def many_are(count: int, noun: str) -> str:
    """As the start of a sentence about them: "1 layer is", "52 layers are"."""
    return f"{many(count, noun)} {'is' if count == 1 else 'are'}"


def about_time(seconds: float) -> str:
    """As people tell how long something will take: "about 40 s", "about 9 min", "about 2.5 h"."""
    if seconds < 90:
        return f"about {max(seconds, 1):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def percent(share: float) -> str:
    """As in "91.4 %"; below a tenth of a percent with two significant digits: "0.0061 %"; "NaN" or "infinite"."""
    if not math.isfinite(share):
        return "NaN" if math.isnan(share) else "infinite"
    return f"{100 * share:.1f} %" if abs(share) >= 0.001 or share == 0 else f"{100 * share:.2g} %"


def fine_percent(share: float) -> str:
    """Three digits of any size, for charts and what is read beside them: "7.42 %", "not finite" where it is no number.

    The space before the sign does not break.
    """
    if not math.isfinite(share):
        return "not finite"
    size = abs(100 * share)
    if size >= 1e5:
        return f"{100 * share:.1e}\u00a0%"
    if size >= 10:
        return f"{100 * share:,.{0 if size >= 1000 else 1}f}".removesuffix(".0") + "\u00a0%"
    return f"{100 * share:.3g}\u00a0%"


def decibel(nmse: float) -> str:
    """The SQNR of an NMSE to one decimal, without its unit; `inf` for no error, `?` where it is undefined."""
    found = sqnr_db(nmse)
    return "?" if math.isnan(found) else f"{found:.1f}".replace("-0.0", "0.0")


def quoted(names: Iterable[str], most: int = 3) -> str:
    """Names in backticks, each once: `a`, `b`, `c` and 5 more."""
    return listing([f"`{name}`" for name in dict.fromkeys(names)], most)
