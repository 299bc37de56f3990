"""The channels of all layers for the channel view: as many as the page can afford, the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.findings import Report
from bncheck.facts.layers import PerChannel
from bncheck.numerics.channels import finite, median
from bncheck.report.html.layers import LayerView
from bncheck.report.html.parts import NEGLIGIBLE

BUDGET = 120_000
"""Values in one page, about six bytes each."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One figure of each channel."""

    key: str
    title: str
    scale: str
    """"log", "symlog" or "linear"."""
    neutral: float | None
    share: bool
    """Whether it is shown in percent."""


SERIES = (
    Series(key="shift", title="mean shift, standard deviations", scale="symlog", neutral=0.0, share=False),
    Series(key="ratio", title="variance, batch / stored", scale="log", neutral=1.0, share=False),
    Series(key="init", title="part of the variance that is initial value", scale="linear", neutral=None, share=True),
    Series(key="fold", title="folded range, max |w|", scale="log", neutral=None, share=False),
    Series(key="quant", title="quantization error, share of signal", scale="log", neutral=None, share=True),
    Series(key="scale", title="channel scale, file / stored statistics", scale="log", neutral=1.0, share=False),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Channels:
    """What is known of one layer's channels."""

    name: str
    values: dict[str, PerChannel]
    """By `Series.key`; all of one length."""

    @property
    def count(self) -> int:
        """Channels."""
        return next(iter(self.values.values())).size


def channels_of(report: Report, views: Sequence[LayerView]) -> list[Channels]:
    """Of all layers in their order, then of quantized operators that are no layer's."""
    parts = [view.contribution for view in views if view.contribution is not None]
    left = any(bool(np.any(~(part < NEGLIGIBLE))) for part in parts)  # NaN is worth a look
    found = [Channels(name=view.name, values=_of_layer(view, with_init=left)) for view in views]
    if report.quantized is not None:
        known = {view.name for view in views}
        found += [
            Channels(name=operator.name, values={"quant": operator.channel_nmse})
            for operator in report.quantized.operators
            if operator.layer not in known and operator.name not in known
        ]
    if report.lite is not None and not report.layers:
        found += [
            Channels(name=operator.name, values={"fold": operator.channel_max})
            for operator in report.lite.folded
            if operator.channel_max is not None
        ]
    return [entry for entry in found if entry.values and entry.count]


def channel_document(entries: Sequence[Channels], budget: int = BUDGET) -> dict[str, Any]:
    """For the page's script: by layer the values of each series, null where one is no number.

    Where all channels would be more than `budget` values, each layer keeps its worst ones, and "kept" numbers them.
    """
    most = _most(entries, budget)
    return {"layers": [_layer(entry, most) for entry in entries]}


def used_series(entries: Iterable[Channels]) -> list[Series]:
    """Those that at least one layer has."""
    keys = {key for entry in entries for key in entry.values}
    return [series for series in SERIES if series.key in keys]


def _of_layer(view: LayerView, *, with_init: bool) -> dict[str, PerChannel]:
    known: dict[str, PerChannel | None] = {"init": view.contribution if with_init else None, "fold": view.ranges}
    if view.difference is not None:
        with np.errstate(over="ignore"):
            known["ratio"] = np.exp(view.difference.log_variance_ratio)
        known["shift"] = view.difference.mean_shift
    if view.operator is not None:
        known["quant"] = view.operator.channel_nmse
    if view.fold is not None:
        known["scale"] = view.fold.scale_ratio
    given = {key: values for key, values in known.items() if values is not None and values.size}
    size = max((values.size for values in given.values()), default=0)
    return {key: values for key, values in given.items() if values.size == size}


def _most(entries: Sequence[Channels], budget: int) -> int:
    """The largest number of channels a layer may show."""
    low, high = 16, max((entry.count for entry in entries), default=16)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(entry.count, middle) * len(entry.values) for entry in entries) <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def _layer(entry: Channels, most: int) -> dict[str, Any]:
    document: dict[str, Any] = {"name": entry.name, "count": entry.count}
    values = entry.values
    if entry.count > most:
        kept = np.sort(np.argsort(-_badness(entry), kind="stable")[:most])
        document["kept"] = kept.tolist()
        values = {key: of[kept] for key, of in values.items()}
    document["values"] = {key: [_number(float(v)) for v in of] for key, of in values.items()}
    return document


def _badness(entry: Channels) -> NDArray[np.float64]:
    """How far each channel stands out in any series: 1 for the farthest, infinite for what is no number."""
    worst = np.zeros(entry.count)
    for series in SERIES:
        values = entry.values.get(series.key)
        if values is None:
            continue
        # errors count by their size, ratios by how far they are from the usual, up or down
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithm = np.log(values) if series.scale == "log" and not series.share else None
        size = np.abs(values) if logarithm is None else np.abs(logarithm - _middle(logarithm))
        finite = size[np.isfinite(size)]
        farthest = float(finite.max()) if finite.size else 0.0
        worst = np.maximum(worst, np.where(np.isfinite(size), size / (farthest or 1.0), np.inf))
    return worst


def _middle(values: PerChannel) -> float:
    known = finite(values)
    return median(known) if known.size else 0.0


def _number(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short
