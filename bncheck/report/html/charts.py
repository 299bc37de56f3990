"""The charts of the HTML report as Vega-Lite specifications, made and validated by Altair.

Colours are CSS variables of the page, so that a chart follows its theme without being drawn anew. Names are data and
never part of an expression. A chart's marks are hidden from screen readers: beside each stands a sentence and a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from bncheck.facts.wording import decibel, fine_percent

Spec = dict[str, Any]

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_HEIGHT = 250
_SMALLEST, _LARGEST = 1e-10, 1e4
"""Errors are drawn within these; the tooltip tells the true value."""
_DEEPEST = 1e-7
"""A logarithmic axis begins no farther below its largest value."""
FLOOR = "noise floor"
X_TITLE = "layer, in forward order"


@dataclass(frozen=True, kw_only=True)
class ErrorPoint:
    """One layer's errors as shares of its signal's energy (NMSE)."""

    number: int
    name: str
    local: float
    arrives: float
    floor: float | None
    bad: bool = False
    """Named by a finding as one that goes wrong by itself."""


@dataclass(frozen=True, kw_only=True)
class RangePoint:
    """How one figure spreads over a layer's channels."""

    number: int
    name: str
    low: float
    middle: float
    high: float
    worst: float
    bad: bool = False


@dataclass(frozen=True, kw_only=True)
class LossStep:
    """One bar of a waterfall, from `start` to `end`."""

    label: str
    start: float
    end: float
    kind: str
    """"total", "loss", "gain" or "repaired"."""
    text: str


def error_chart(points: Sequence[ErrorPoint], *, first_bad: str = "", floor: str = FLOOR, x: str = X_TITLE) -> Spec:
    """Local error, the error that arrives, and what is there by chance, on one logarithmic axis."""
    series = ["local error", "error that arrives", floor]
    drawn = [p.local for p in points] + [p.arrives for p in points] + [p.floor for p in points if p.floor is not None]
    low, high = _decades(drawn)
    rows = [
        {
            "o": p.number,
            "n": p.name,
            "s": name,
            "y": _inside(value, low, high),
            "t": f"{fine_percent(value)}{_in_decibel(value)}",
        }
        for p in points
        for name, value in zip(series, (p.local, p.arrives, p.floor), strict=True)
        if value is not None and not math.isnan(value)
    ]
    marked = [
        {"o": p.number, "n": p.name, "y": _inside(p.local, low, high), "t": fine_percent(p.local)}
        for p in points
        if p.bad and not math.isnan(p.local)
    ]
    odd = [
        {"o": p.number, "n": p.name, "y": high, "t": "NaN or infinite"}
        for p in points
        if not (math.isfinite(p.local) and math.isfinite(p.arrives))
    ]
    used = series if any(p.floor is not None for p in points) else series[:2]
    base = alt.Chart(_data(rows)).encode(
        x=_number_axis(_last(points), x),
        y=_log_axis("error, share of the signal's energy", low, high, percents=True),
        color=alt.Color("s:N")
        .scale(domain=used, range=["var(--c-local)", "var(--c-arrives)", "var(--c-floor)"][: len(used)])
        .legend(None),
        tooltip=[*_named(), alt.Tooltip("s:N", title="what"), alt.Tooltip("t:N", title="error")],
    )
    dashes = alt.StrokeDash("s:N").scale(domain=used, range=[[1, 0], [1, 0], [5, 4]][: len(used)]).legend(None)
    shapes = alt.Shape("s:N").scale(domain=used, range=["circle", "diamond", "stroke"][: len(used)]).legend(None)
    layers: list[alt.Chart] = [
        base.mark_line(strokeWidth=1.75, clip=True).encode(strokeDash=dashes),
        base.transform_filter(alt.datum.s != floor)
        .mark_point(filled=True, size=_dot_size(_last(points), 42), opacity=1)
        .encode(shape=shapes),
    ]
    if marked:
        rings = alt.Chart(_data(marked)).mark_point(
            size=_dot_size(_last(points), 120), filled=False, stroke="var(--c-bad)", strokeWidth=2
        )
        told = [*_named(), alt.Tooltip("t:N", title="diverges by itself")]
        layers.append(rings.encode(x=_number_axis(_last(points), x), y=alt.Y("y:Q"), tooltip=told))
    if odd:
        crosses = alt.Chart(_data(odd)).mark_point(shape="cross", angle=45, size=110, filled=True, fill="var(--c-bad)")
        told = [*_named(), alt.Tooltip("t:N", title="error")]
        layers.append(crosses.encode(x=_number_axis(_last(points), x), y=alt.Y("y:Q"), tooltip=told))
    place = next((p for p in points if p.name == first_bad), None)
    return _spec(alt.layer(*([_flag(place.number, _last(points), x)] if place else []), *layers), _HEIGHT)


def parts_chart(rows: Iterable[tuple[int, str, str, float]], parts: Sequence[str], count: int, x: str) -> Spec:
    """What each layer's error is made of: bars of (number, name, part, share) that add up to the whole."""
    places = {part: place for place, part in enumerate(parts)}
    data = [
        {"o": o, "n": name, "s": part, "i": places[part], "y": _short(y), "t": fine_percent(y)}
        for o, name, part, y in rows
    ]
    chart = (
        alt.Chart(_data(data))
        .mark_bar(width=_bar_width(count))
        .encode(
            x=_number_axis(count, x),
            y=alt.Y("y:Q").stack("zero").scale(domain=[0, 1]).axis(title="of the local error", format="%", tickCount=4),
            color=alt.Color("s:N")
            .scale(domain=list(parts), range=["var(--c-floor)", "var(--c-arrives)", "var(--c-local)"])
            .legend(None),
            order=alt.Order("i:Q"),
            tooltip=[*_named(), alt.Tooltip("s:N", title="part"), alt.Tooltip("t:N", title="of the local error")],
        )
    )
    return _spec(chart, 130)


def range_chart(
    points: Sequence[RangePoint],
    *,
    title: str,
    scale: str,
    neutral: float | None = None,
    share: bool = False,
    x: str = X_TITLE,
) -> Spec:
    """Per layer the middle 90 % of its channels as a bar, their median as a tick, the farthest channel as a dot.

    `scale` is "log", "symlog" or "linear"; `neutral` is the value that means no difference.
    """
    finite = [v for p in points for v in (p.low, p.middle, p.high, p.worst) if math.isfinite(v)]
    show = fine_percent if share else _figure
    rows = [
        {
            "o": p.number,
            "n": p.name,
            "a": _fit(p.low, scale),
            "m": _fit(p.middle, scale),
            "b": _fit(p.high, scale),
            "w": _fit(p.worst, scale),
            "t": show(p.middle),
            "r": f"{show(p.low)} to {show(p.high)}",
            "f": show(p.worst),
            "bad": p.bad,
        }
        for p in points
    ]
    axis = _value_axis(title, scale, finite, neutral=neutral, share=share)
    colour = alt.Color("bad:N").scale(domain=[False, True], range=["var(--c-local)", "var(--c-bad)"]).legend(None)
    base = alt.Chart(_data(rows)).encode(
        x=_number_axis(_last(points), x),
        color=colour,
        tooltip=[
            *_named(),
            alt.Tooltip("t:N", title="median channel"),
            alt.Tooltip("r:N", title="middle 90 %"),
            alt.Tooltip("f:N", title="farthest channel"),
        ],
    )
    width = _bar_width(_last(points))
    layers: list[alt.Chart] = []
    if neutral is not None:
        layers.append(
            alt.Chart(_data([{"y": neutral}]))
            .mark_rule(stroke="var(--c-floor)", strokeDash=[5, 4])
            .encode(y=alt.Y("y:Q"))
        )
    layers += [
        base.mark_bar(width=width, opacity=0.35, cornerRadius=2).encode(y=axis.copy(), y2="b:Q"),
        base.mark_point(filled=True, size=_dot_size(_last(points), 22), opacity=0.9).encode(y=alt.Y("w:Q")),
        base.mark_tick(thickness=2.5, size=_bar_width(_last(points), 2), orient="horizontal").encode(y=alt.Y("m:Q")),
    ]
    return _spec(alt.layer(*layers), _HEIGHT)


def waterfall(steps: Sequence[LossStep], *, title: str, share: bool) -> Spec:
    """From the reference to the quantized model, each loss as a bar of its own."""
    rows = [
        {"l": s.label, "a": min(s.start, s.end), "b": max(s.start, s.end), "k": s.kind, "t": s.text, "i": n}
        for n, s in enumerate(steps)
    ]
    ends = [end for s in steps for end in (s.start, s.end)]
    reach = [min([0.0, *ends]), max([1e-12, *(1.18 * end for end in ends)])]
    kinds = ["total", "loss", "gain", "repaired"]
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("l:N")
        .sort(field="i")
        .axis(title=None, labelLimit=210, labelPadding=8, ticks=False, domain=False, labelFontSize=12),
        tooltip=[alt.Tooltip("l:N", title="step"), alt.Tooltip("t:N", title="value")],
    )
    bars = base.mark_bar(cornerRadius=2, height={"band": 0.62}).encode(
        x=alt.X("a:Q").scale(domain=reach, nice=False).axis(title=title, format="~%" if share else "~g", tickCount=5),
        x2="b:Q",
        color=alt.Color("k:N")
        .scale(domain=kinds, range=["var(--c-local)", "var(--c-bad)", "var(--c-good)", "var(--c-repaired)"])
        .legend(None),
    )
    texts = base.mark_text(align="left", dx=6, fontSize=12, fontWeight=600, color="var(--text)").encode(
        x=alt.X("b:Q"), text="t:N"
    )
    return _spec(alt.layer(bars, texts), 44 * max(len(steps), 2))


def channel_chart(*, title: str, scale: str, neutral: float | None, share: bool) -> Spec:
    """One layer's channels; the page fills the empty data set "channels" (c: channel, x: place, y, t: text)."""
    axis = alt.Axis(title=None, format="~%" if share else "~g", tickCount=5)
    kind = alt.Scale(zero=True, nice=True) if scale == "linear" else alt.Scale(type=_scale_type(scale), nice=True)
    y = alt.Y("y:Q", axis=axis, scale=kind)
    base = alt.Chart(alt.NamedData(name="channels")).encode(
        x=alt.X("x:Q").scale(nice=False, padding=8).axis(title="channel", tickMinStep=1, format="d", grid=False),
        y=y,
        tooltip=[alt.Tooltip("c:Q", title="channel", format="d"), alt.Tooltip("t:N", title=title)],
    )
    layers: list[alt.Chart] = [base.mark_point(filled=True, size=28, opacity=0.75, color="var(--c-local)")]
    if neutral is not None:
        rule = alt.Chart(_data([{"y": neutral}])).mark_rule(stroke="var(--c-floor)", strokeDash=[5, 4])
        layers.insert(0, rule.encode(y=alt.Y("y:Q")))
    return _spec(alt.layer(*layers), 190)


def run_chart(rows: Sequence[tuple[int, str, float, str]], *, x: str) -> Spec:
    """How a share develops over a run's checkpoints: (place, series, share, checkpoint)."""
    data = [{"o": o, "s": series, "y": _short(y), "t": fine_percent(y), "n": name} for o, series, y, name in rows]
    series = list(dict.fromkeys(row[1] for row in rows))
    base = alt.Chart(_data(data)).encode(
        x=alt.X("o:Q").axis(title=x, format="~s", grid=False, tickCount=6).scale(zero=False, padding=12),
        y=alt.Y("y:Q").scale(domain=[0, 1]).axis(title=None, format="%", tickCount=5),
        color=alt.Color("s:N")
        .scale(domain=series, range=["var(--c-local)", "var(--c-arrives)", "var(--c-bad)"][: len(series)])
        .legend(None),
        tooltip=[
            alt.Tooltip("n:N", title="checkpoint"),
            alt.Tooltip("s:N", title="what"),
            alt.Tooltip("t:N", title="share"),
        ],
    )
    return _spec(alt.layer(base.mark_line(strokeWidth=1.75), base.mark_point(filled=True, size=55, opacity=1)), 220)


def _spec(chart: Any, height: int) -> Spec:
    """As plain data, with the look that all charts share."""
    styled = (
        chart.properties(width="container", height=height, background="transparent", padding=4)
        .configure(font=_FONT, aria=False, autosize={"type": "fit-x", "contains": "padding"})
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="var(--muted)",
            titleColor="var(--muted)",
            titleFontWeight=500,
            titlePadding=8,
            labelFontSize=11,
            titleFontSize=12,
            gridColor="var(--grid)",
            domainColor="var(--axis)",
            tickColor="var(--axis)",
        )
    )
    spec: Spec = styled.to_dict()
    del spec["$schema"]  # an address, which nothing needs and nobody shall fetch
    return spec


def _data(rows: Sequence[dict[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _named() -> list[alt.Tooltip]:
    return [alt.Tooltip("o:Q", title="number", format="d"), alt.Tooltip("n:N", title="layer")]


def _last(points: Sequence[ErrorPoint] | Sequence[RangePoint]) -> int:
    return max((point.number for point in points), default=1)


def _number_axis(count: int, title: str) -> alt.X:
    scale = alt.Scale(domain=[0.4, max(count, 1) + 0.6], nice=False, padding=0)
    return alt.X("o:Q", scale=scale, axis=alt.Axis(title=title, tickMinStep=1, format="d", grid=False))


def _log_axis(title: str, low: float, high: float, *, percents: bool, field: str = "y:Q") -> alt.Y:
    first, last = math.ceil(math.log10(low) - 0.01), math.floor(math.log10(high) + 0.01)
    step = max(1, math.ceil((last - first) / 6))
    ticks = [10.0**exponent for exponent in range(first, last + 1, step)]
    if len(ticks) < 3:
        ticks = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    axis = alt.Axis(title=title, values=ticks, format="~%" if percents else "~g")
    return alt.Y(field, scale=alt.Scale(type="log", domain=[low, high], nice=False, clamp=True), axis=axis)


def _value_axis(title: str, scale: str, values: Sequence[float], *, neutral: float | None, share: bool) -> alt.Y:
    text = "~%" if share else "~g"
    if scale == "log":
        positive = [v for v in values if v > 0] + ([neutral] if neutral else [])
        # dead channels, thirty powers of ten below, would press all others together
        least = _DEEPEST * max(positive, default=1.0)
        low, high = _decades([max(v, least) for v in positive] or [1.0], reach=None)
        return _log_axis(title, low, high, percents=share, field="a:Q")
    kind = alt.Scale(domain=[0, 1]) if share else alt.Scale(type=_scale_type(scale), zero=True)
    return alt.Y("a:Q", axis=alt.Axis(title=title, format=text, tickCount=6), scale=kind)


def _scale_type(scale: str) -> Any:
    return scale


def _decades(values: Iterable[float], reach: tuple[float, float] | None = (1e-4, 1.0)) -> tuple[float, float]:
    """One or three times a power of ten, around the values and around `reach` where that is given."""
    known = [min(max(v, _SMALLEST), _LARGEST) for v in values if math.isfinite(v) and v > 0] + list(reach or ())
    under, over = math.log10(min(known)), math.log10(max(known))
    low, high = math.floor(under), math.ceil(over)
    least = 3 * 10.0**low if under - low > 0.49 else 10.0**low
    most = 3 * 10.0 ** (high - 1) if high - over > 0.53 else 10.0**high
    return least, most if most > least else 10 * least


def _inside(value: float, low: float, high: float) -> float:
    return _short(min(max(value, low), high))


def _fit(value: float, scale: str) -> float | None:
    """What the axis can hold, None for the rest."""
    if not math.isfinite(value):
        return None
    return _short(max(value, _SMALLEST)) if scale == "log" else _short(value)


def _short(value: float) -> float:
    """Four digits, which no eye can tell from all."""
    return float(f"{value:.4g}")


def _figure(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not finite"


def _in_decibel(nmse: float) -> str:
    return f" ({decibel(nmse)} dB)" if 0 < nmse < math.inf else ""


def _bar_width(count: int, more: int = 0) -> alt.ExprRef:
    """Of bars beside each other, in whatever width the page gives the chart."""
    return alt.ExprRef(expr=f"clamp(0.62 * width / {max(count, 1)}, 1.5, 18) + {more}")


def _dot_size(count: int, largest: int) -> alt.ExprRef:
    return alt.ExprRef(expr=f"clamp(width / {max(count, 1)} / 14, 0.2, 1) * {largest}")


def _flag(number: int, count: int, x: str) -> Any:
    left = number > 0.6 * count
    base = alt.Chart(_data([{"o": number, "t": "first to diverge"}])).encode(x=_number_axis(count, x))
    rule = base.mark_rule(stroke="var(--c-bad)", strokeWidth=1.25, strokeDash=[2, 3])
    text = base.mark_text(
        align="right" if left else "left", baseline="top", dx=-6 if left else 6, dy=2, color="var(--c-bad)", fontSize=11
    ).encode(y=alt.value(0), text="t:N")
    return alt.layer(rule, text)
