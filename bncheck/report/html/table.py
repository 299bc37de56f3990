"""The table of all layers: what each column shows, and what it is sorted by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bncheck.facts.wording import fine_percent
from bncheck.numerics.spread import spread
from bncheck.report.html.layers import LayerView
from bncheck.report.html.parts import figure, weight
from bncheck.report.views.comparison import root_mean_square
from bncheck.report.views.layers import modes


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """One cell of a table."""

    text: str
    sort: float | str | None = None
    """What to sort by; None: after all others."""
    kind: str = "number"
    """"number", "text", "name" or "state"."""
    codes: tuple[tuple[str, str], ...] = ()


def layer_columns(views: Sequence[LayerView]) -> dict[str, Any] | None:
    """Head and rows of the layer table, without columns in which nothing is known."""
    rows = [_row(view) for view in views]
    if not rows:
        return None
    used = [n for n, head in enumerate(_HEAD) if head[2] or any(row[n].text not in ("", "\u2013") for row in rows)]
    states = [state for state in ("diverges", "inherits", "good") if any(view.state == state for view in views)]
    return {
        "head": [_HEAD[n] for n in used],
        "rows": [
            {"cells": [row[n] for n in used], "state": view.state, "found": bool(view.codes), "name": view.name}
            for row, view in zip(rows, views, strict=True)
        ],
        "states": states,
        "found": sum(1 for view in views if view.codes),
    }


_HEAD: tuple[tuple[str, str, bool], ...] = (
    ("#", "position in forward order", True),
    ("layer", "name, and the findings that name it", True),
    ("channels", "", False),
    ("mode", "of its sites in the graph", False),
    ("state", "diverges by itself, or inherits the error", False),
    ("local error", "its own, share of the signal's energy, train against eval mode", False),
    ("arrives", "error at its output, all upstream ones included", False),
    ("noise floor", "local error that a batch of this size has by chance", False),
    ("mean shift", "root mean square over channels, in standard deviations", False),
    ("variance ratio", "batch over stored, median channel", False),
    ("quantized", "local error of the quantized operator", False),
    ("arrives quantized", "error at its quantized output", False),
    ("folded in", "which statistics the converted file holds", False),
    ("decay", "", False),
    ("init share", "weight that the initial variance still has", False),
    ("init part", "median channel's part of the variance that is initial value", False),
    ("moved", "whether the statistics left their initial value", False),
    ("mean", "smallest to largest", False),
    ("variance", "smallest to largest", False),
    ("fold spread", "largest folded range over the median", False),
)
"""(name, explanation, always shown)."""


def _row(view: LayerView) -> list[TableCell]:
    layer, difference, operator, parts = view.layer, view.difference, view.operator, view.init_parts
    logs = None if difference is None else spread(difference.log_variance_ratio)
    ratio = None if logs is None else math.exp(min(logs.median, 700.0))
    return [
        TableCell(text=str(view.number), sort=view.number),
        TableCell(text=view.name, sort=view.name, kind="name", codes=view.codes),
        _number(view.channels),
        _text("" if layer is None else modes(layer)),
        TableCell(text=_STATES.get(view.state, ""), sort=_STATE_RANK.get(view.state), kind="state"),
        _share(None if difference is None else difference.local_nmse),
        _share(None if difference is None else difference.cumulative_nmse),
        _share(None if difference is None else difference.local_floor),
        _number(None if difference is None else root_mean_square(difference.mean_shift)),
        _number(ratio),
        _share(None if operator is None else operator.local_nmse),
        _share(None if operator is None else operator.cumulative_nmse),
        _text("" if view.fold is None else view.fold.folded),
        _number(None if layer is None else layer.decay, "{:.6g}"),
        _share(view.share, weight),
        _share(None if parts is None else parts.median, weight),
        _text("" if layer is None or layer.moved is None else "yes" if layer.moved else "no"),
        _span(view, mean=True),
        _span(view, mean=False),
        _number(view.range_spread),
    ]


_STATES = {"diverges": "diverges", "inherits": "inherits", "good": "good"}
_STATE_RANK = {"diverges": 0, "inherits": 1, "good": 2}


def _number(value: float | None, form: str = "") -> TableCell:
    text = figure(value) if value is None or not form else form.format(value)
    if isinstance(value, int):
        text = f"{value:,}"
    return TableCell(text=text, sort=value if value is not None and math.isfinite(value) else None)


def _share(value: float | None, show: Callable[[float], str] = fine_percent) -> TableCell:
    if value is None:
        return TableCell(text="\u2013")
    return TableCell(text=show(value), sort=value if not math.isnan(value) else math.inf)


def _text(value: str) -> TableCell:
    return TableCell(text=value or "\u2013", sort=value or None, kind="text")


def _span(view: LayerView, *, mean: bool) -> TableCell:
    if view.layer is None:
        return TableCell(text="\u2013")
    vector = view.layer.mean if mean else view.layer.variance
    found = spread(vector.values)
    if found is None:
        constant = "" if vector.constant is None else f"all {vector.constant:g}"
        return TableCell(text=constant or vector.presence.value, sort=vector.constant)
    odd = f" +{found.non_finite} not finite" if found.non_finite else ""
    if found.smallest == found.largest and not odd:
        return TableCell(text=f"all {found.smallest:g}", sort=found.smallest)
    return TableCell(text=f"{figure(found.smallest)} \u2026 {figure(found.largest)}{odd}", sort=found.largest)
