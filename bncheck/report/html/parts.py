"""What the sections of the page are made of, and how a chart is put in a sentence and a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bncheck.facts.measurements import DataFacts
from bncheck.facts.wording import fine_percent
from bncheck.numerics.spread import Spread
from bncheck.report.html.charts import ErrorPoint, RangePoint, Spec
from bncheck.report.html.layers import LayerView

Legend = tuple[tuple[str, str], ...]
"""(mark, what it stands for); the marks are the style sheet's."""


@dataclass(frozen=True, kw_only=True)
class HtmlTable:
    """Numbers behind a chart, for those who read them instead."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart of a section."""

    key: str
    title: str
    told: str
    """What it shows, in a sentence with its numbers."""
    spec: Spec
    table: HtmlTable
    legend: Legend = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page."""

    key: str
    title: str
    lead: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    charts: tuple[Chart, ...] = ()
    table: HtmlTable | None = None
    table_title: str = ""
    notes: tuple[str, ...] = field(default=())


def figure(value: float | None) -> str:
    """Three digits, a dash where there is none."""
    if value is None:
        return "\u2013"
    if math.isfinite(value):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
    return "NaN" if math.isnan(value) else "\u221e" if value > 0 else "-\u221e"


def weight(share: float) -> str:
    """A weight or part in percent; of what is next to nothing no digits are told."""
    return f"under {fine_percent(_NOTHING)}" if 0 < share < _NOTHING else fine_percent(share)


_NOTHING = 1e-5
NEGLIGIBLE = 1e-3
"""A part of every variance below which a chart of it would be empty."""


def range_points(
    views: Sequence[LayerView], bad: frozenset[str], spreads: dict[str, Spread | None]
) -> list[RangePoint]:
    """Of the layers whose spread is known, in their order."""
    return [
        range_point(view.number, view.name, found, bad=view.name in bad)
        for view in views
        if (found := spreads.get(view.name)) is not None
    ]


def range_point(number: int, name: str, found: Spread, *, bad: bool) -> RangePoint:
    """One layer's spread as a chart takes it."""
    return RangePoint(
        number=number, name=name, low=found.low, middle=found.median, high=found.high, worst=found.farthest, bad=bad
    )


def range_table(points: Sequence[RangePoint], *, share: bool) -> HtmlTable:
    """The same numbers."""
    show: Any = weight if share else figure
    rows = tuple((str(p.number), p.name, show(p.low), show(p.middle), show(p.high), show(p.worst)) for p in points)
    return HtmlTable(head=("#", "layer", "5 % are below", "median channel", "5 % are above", "farthest"), rows=rows)


def range_legend(points: Sequence[RangePoint], neutral: str = "") -> Legend:
    """For charts of spreads."""
    parts = [("band", "middle 90 % of the channels"), ("tick", "median channel"), ("point", "farthest channel")]
    if any(p.bad for p in points):
        parts.append(("band bad", "named by a finding"))
    if neutral:
        parts.append(("dash", neutral))
    return tuple(parts)


def error_legend(points: Sequence[ErrorPoint], floor: str) -> Legend:
    """For charts of local and cumulative error."""
    parts = [
        ("line local", "local error: this layer alone"),
        ("line arrives", "error at its output, earlier layers included"),
    ]
    if any(p.floor is not None for p in points):
        parts.append(("dash", floor))
    if any(p.bad for p in points):
        parts.append(("ring", "diverges by itself"))
    if any(not (math.isfinite(p.local) and math.isfinite(p.arrives)) for p in points):
        parts.append(("cross", "NaN or infinite"))
    return tuple(parts)


def error_told(points: Sequence[ErrorPoint], floor: str) -> str:
    """The largest local error and the largest that arrives, by name."""
    finite = [p for p in points if math.isfinite(p.local)]
    arriving = [p for p in points if math.isfinite(p.arrives)]
    odd = sum(1 for p in points if not (math.isfinite(p.local) and math.isfinite(p.arrives)))
    parts = [f"{odd} of {len(points)} have values that are NaN or infinite"] if odd else []
    if finite:
        worst = max(finite, key=lambda p: p.local)
        times = f" ({figure(worst.local / worst.floor)} times {floor})" if worst.floor and worst.local else ""
        parts.append(f"the largest local error is {fine_percent(worst.local)} of the signal, in {worst.name}{times}")
    if arriving:
        most = max(arriving, key=lambda p: p.arrives)
        parts.append(f"the largest error with earlier layers included is {fine_percent(most.arrives)}, at {most.name}")
    told = "; ".join(parts)
    return f"{told[:1].upper()}{told[1:]}." if told else ""


def made_up(data: DataFacts) -> tuple[str, ...]:
    """A note that the data were made up; none for real ones."""
    return ("The data are synthetic noise: this says nothing about real data.",) if data.synthetic else ()
