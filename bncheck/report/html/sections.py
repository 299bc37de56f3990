"""The measured parts of a report as sections of the page: train against eval mode, initial value, folded ranges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts.findings import Meaning, Report
from bncheck.facts.wording import fine_percent, many
from bncheck.numerics.spread import spread
from bncheck.report.html import charts
from bncheck.report.html.charts import ErrorPoint, RangePoint
from bncheck.report.html.layers import LayerView, named_by
from bncheck.report.html.parts import (
    NEGLIGIBLE,
    Chart,
    HtmlTable,
    Section,
    error_legend,
    error_told,
    figure,
    made_up,
    range_legend,
    range_point,
    range_points,
    range_table,
    weight,
)
from bncheck.report.html.quantized import attribution_section, fold_section, quantized_section
from bncheck.report.views.comparison import DIVERGES, facts_told, first_bad_layer

_MOST = 100_000
"""Of ratios beyond it no digits are told: the smaller one is as good as zero."""


def sections(report: Report, views: Sequence[LayerView]) -> list[Section]:
    """Those parts for which the report holds something, in the order of the story."""
    made = (
        attribution_section(report),
        _train_eval(report, views),
        quantized_section(report),
        _init(report, views),
        _folded(report, views),
        fold_section(report),
    )
    return [section for section in made if section is not None]


def _train_eval(report: Report, views: Sequence[LayerView]) -> Section | None:
    comparison = report.comparison
    if comparison is None:
        return None
    measured = [view for view in views if view.difference is not None]
    made = tuple(_train_eval_charts(report, measured)) if measured else ()
    return Section(
        key="train-eval",
        title="Train mode vs eval mode",
        lead=(
            "The same data through the same weights, once normalised with the statistics of the batch (train mode), "
            "once with the stored ones (eval mode). In a healthy model both agree up to batch noise."
        ),
        facts=tuple(facts_told(comparison)),
        charts=made,
        notes=(*made_up(comparison.data), *(() if made else ("No layer was measured.",))),
    )


def _train_eval_charts(report: Report, views: Sequence[LayerView]) -> Iterator[Chart]:
    points = [
        ErrorPoint(
            number=view.number,
            name=view.name,
            local=view.difference.local_nmse,
            arrives=view.difference.cumulative_nmse,
            floor=view.difference.local_floor,
            bad=view.state == DIVERGES,
        )
        for view in views
        if view.difference is not None
    ]
    rows = tuple(
        (
            str(p.number),
            p.name,
            fine_percent(p.local),
            fine_percent(p.floor or 0.0),
            fine_percent(p.arrives),
        )
        for p in points
    )
    yield Chart(
        key="error",
        title="Where the error arises, and how it adds up",
        told=error_told(points, "batch noise"),
        spec=charts.error_chart(points, first_bad=first_bad_layer(report) or ""),
        table=HtmlTable(head=("#", "layer", "local error", "batch noise", "error at output"), rows=rows),
        legend=error_legend(points, "batch noise"),
    )
    bad = named_by(report, Meaning.LAYER_DIFFERS)
    differences = {view.name: view.difference for view in views if view.difference is not None}
    shifts = range_points(views, bad, {name: spread(d.mean_shift) for name, d in differences.items()})
    if shifts:
        yield Chart(
            key="shift",
            title="Batch mean against stored mean, channel by channel",
            told=_shift_told(shifts),
            spec=charts.range_chart(shifts, title="mean shift, standard deviations", scale="symlog", neutral=0.0),
            table=range_table(shifts, share=False),
            legend=range_legend(shifts, "no shift"),
        )
    logarithms = range_points(views, bad, {name: spread(d.log_variance_ratio) for name, d in differences.items()})
    ratios = [_exponential(point) for point in logarithms]
    if ratios:
        yield Chart(
            key="ratio",
            title="Batch variance over stored variance, channel by channel",
            told=_ratio_told(logarithms),
            spec=charts.range_chart(ratios, title="variance, batch / stored", scale="log", neutral=1.0),
            table=range_table(ratios, share=False),
            legend=range_legend(ratios, "equal"),
        )


def _shift_told(points: Sequence[RangePoint]) -> str:
    median = max(points, key=lambda p: abs(p.middle))
    farthest = max(points, key=lambda p: abs(p.worst))
    return (
        f"The median channel is off by at most {figure(abs(median.middle))} standard deviations, in {median.name}; "
        f"the farthest of all channels by {figure(abs(farthest.worst))}, in {farthest.name}."
    )


def _ratio_told(logarithms: Sequence[RangePoint]) -> str:
    median = max(logarithms, key=lambda p: abs(p.middle))
    farthest = max(logarithms, key=lambda p: abs(p.worst))
    return (
        f"The median channel of {median.name} is the farthest from 1: its batch variance is "
        f"{figure(_exponential(median).middle)} times the stored one; the farthest of all channels, in "
        f"{farthest.name}, has {figure(_exponential(farthest).worst)} times."
    )


def _exponential(point: RangePoint) -> RangePoint:
    """Of logarithms, so that the farthest is the farthest from 1 and not the largest."""
    low, middle, high, worst = (math.exp(min(v, 700.0)) for v in (point.low, point.middle, point.high, point.worst))
    return replace(point, low=low, middle=middle, high=high, worst=worst)


def _init(report: Report, views: Sequence[LayerView]) -> Section | None:
    known = [view for view in views if view.share is not None]
    shares = [view.share for view in known if view.share is not None]
    if not shares:
        return None
    bad = named_by(report, Meaning.INITIAL_VALUES)
    points = range_points(known, bad, {view.name: view.init_parts for view in known})
    told = _share_told(shares, report.target.updates)
    charts_: tuple[Chart, ...] = ()
    if points and (bad or max(p.worst for p in points) >= NEGLIGIBLE):
        most = max(points, key=lambda p: p.middle)
        part = f"In {most.name} it makes up most: {weight(most.middle)} of the median channel's variance."
        charts_ = (
            Chart(
                key="init",
                title="Part of each stored variance that is still its initial value",
                told=f"{told} {part}",
                spec=charts.range_chart(points, title="of the stored variance", scale="linear", share=True),
                table=range_table(points, share=True),
                legend=range_legend(points),
            ),
        )
    return Section(
        key="init",
        title="How much is still the initial value",
        lead=(
            "Moving averages start at mean 0 and variance 1; after n updates, the n-th power of the decay is left "
            "of it. It does most harm where the true variance is small."
        ),
        facts=() if charts_ else (("Left", told),),
        charts=charts_,
    )


def _share_told(shares: Sequence[float], updates: int | None) -> str:
    low, high = min(shares), max(shares)
    between = weight(low) if weight(low) == weight(high) else f"{weight(low)} to {weight(high)}"
    after = "" if updates is None else f" after {updates:,} updates"
    never = sum(1 for share in shares if share == 1)
    stuck = f" In {never} of {many(len(shares), 'layer')} the variance never moved." if never else ""
    return f"The initial value still weighs {between}{after}.{stuck}"


def _folded(report: Report, views: Sequence[LayerView]) -> Section | None:
    known = [(view.number, view.name, view.ranges) for view in views if view.ranges is not None]
    what, order = "the kernel that batch norm is folded into", charts.X_TITLE
    if not known and report.lite is not None:
        folded = [operator for operator in report.lite.folded if operator.channel_max is not None]
        known = [(n, o.name, o.channel_max) for n, o in enumerate(folded, 1) if o.channel_max is not None]
        what, order = "each operator's kernel, as the file has it", "operator, in execution order"
    bad = named_by(report, Meaning.FOLDED_RANGES)
    spreads = [(number, name, spread(values)) for number, name, values in known]
    points = [range_point(number, name, s, bad=name in bad) for number, name, s in spreads if s is not None]
    if not points:
        return None
    widest = max(points, key=lambda p: p.worst / p.middle if p.middle > 0 else 0.0)
    told = f"all channels of {widest.name} are zero at the median"
    if widest.middle > 0:
        ratio = widest.worst / widest.middle
        times = f"{figure(ratio)} times" if ratio < _MOST else f"more than {_MOST:,} times"
        told = f"{times} the range of the median channel, in {widest.name}"
    return Section(
        key="folded",
        title="Folded ranges",
        lead=(
            f"The largest weight of each output channel of {what}. The widest channel sets the scale of a "
            "per-tensor kernel; the others share what is left of its 128 levels. Per-channel scales are unaffected."
        ),
        charts=(
            Chart(
                key="fold",
                title="Range of each channel's folded weights",
                told=f"The widest channel has {told}.",
                spec=charts.range_chart(points, title="largest folded weight", scale="log", x=order),
                table=range_table(points, share=False),
                legend=range_legend(points),
            ),
        ),
    )
