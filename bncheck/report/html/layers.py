"""Everything that a report knows of one layer, brought together under its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from bncheck.facts.findings import Finding, Meaning, Report, Severity
from bncheck.facts.layers import Layer, PerChannel
from bncheck.facts.measurements import FoldedLayer, LayerDifference, OperatorLoss
from bncheck.numerics.channel_ranges import folded_ranges, range_spread
from bncheck.numerics.init_share import InitShare
from bncheck.numerics.spread import Spread, spread
from bncheck.report.views.comparison import states
from bncheck.report.views.layers import shares
from bncheck.report.views.story import SEVERITIES

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerView:
    """One layer as the page shows it; what was not measured is None."""

    number: int
    """Position in forward order, from 1."""
    name: str
    layer: Layer | None = None
    difference: LayerDifference | None = None
    state: str = ""
    """"diverges", "inherits", "good"; empty where nothing was compared."""
    operator: OperatorLoss | None = None
    fold: FoldedLayer | None = None
    init: InitShare | None = None
    ranges: PerChannel | None = None
    """Per channel the largest folded weight."""
    codes: tuple[tuple[str, str], ...] = ()
    """(code, severity) of the findings that name it, worst first."""

    @property
    def channels(self) -> int | None:
        """As recognised, else as measured."""
        if self.layer is not None and self.layer.channels is not None:
            return self.layer.channels
        known = (
            None if self.difference is None else self.difference.mean_shift,
            None if self.operator is None else self.operator.channel_nmse,
        )
        return next((int(values.size) for values in known if values is not None), None)

    @property
    def share(self) -> float | None:
        """Weight that the initial variance still has: all of it where it never moved, whatever was counted."""
        return 1.0 if self._stuck else None if self.init is None else self.init.share

    @property
    def contribution(self) -> PerChannel | None:
        """Per channel the initial value's part in the stored variance."""
        values = None if self.layer is None else self.layer.variance.values
        if self._stuck:
            return None if values is None else np.ones_like(values)
        return None if self.init is None else self.init.parts

    @property
    def _stuck(self) -> bool:
        return self.layer is not None and self.layer.variance.moved is False

    @property
    def init_parts(self) -> Spread | None:
        """Of the initial value's part in the stored variances."""
        return spread(self.contribution)

    @property
    def range_spread(self) -> float | None:
        """Largest folded range over the median of those above zero (METRICS, folded range spread)."""
        return None if self.ranges is None else range_spread(self.ranges) or None


def layer_views(report: Report) -> tuple[LayerView, ...]:
    """All layers of a report in forward order: as measured where that was done, then what was only recognised."""
    compared = report.comparison.layers if report.comparison is not None else ()
    quantized = report.quantized.operators if report.quantized is not None else ()
    folded = report.fold.layers if report.fold is not None else ()
    layers = _first(report.layers, lambda layer: layer.name)
    differences = _first(compared, lambda difference: difference.layer)
    operators = _first((o for o in quantized if o.layer is not None), lambda operator: operator.layer or "")
    folds = _first(folded, lambda fold: fold.layer)
    state, codes = states(report), codes_by_layer(report)
    names = dict.fromkeys((*differences, *layers, *operators, *folds))
    known = shares(report)

    def view(number: int, name: str) -> LayerView:
        layer = layers.get(name)
        return LayerView(
            number=number,
            name=name,
            layer=layer,
            difference=differences.get(name),
            state=state.get(name, ""),
            operator=operators.get(name),
            fold=folds.get(name),
            init=known.get(name),
            ranges=None if layer is None else _ranges(layer),
            codes=codes.get(name, ()),
        )

    return tuple(view(number, name) for number, name in enumerate(names, 1))


def _ranges(layer: Layer) -> PerChannel | None:
    """None where the kernel was not read."""
    found = folded_ranges(layer)
    return found.ranges if found is not None and found.with_kernel else None


def codes_by_layer(report: Report) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Layer or operator -> (code, severity) of the findings that name it, worst first, each code once."""
    found: dict[str, dict[str, Severity]] = {}
    for finding in sorted(report.findings, key=_worst_first):
        for name in finding.layers:
            found.setdefault(name, {}).setdefault(finding.code, finding.severity)
    return {name: tuple((code, severity.value) for code, severity in of.items()) for name, of in found.items()}


def named_by(report: Report, meaning: Meaning) -> frozenset[str]:
    """Layers and operators that findings of this meaning name, suppressed ones too."""
    findings = (*report.findings, *(entry.finding for entry in report.suppressed))
    return frozenset(name for finding in findings if meaning in finding.rule.meaning for name in finding.layers)


def _worst_first(finding: Finding) -> tuple[int, str]:
    return SEVERITIES.index(finding.severity), finding.code


def _first(items: Iterable[_T], name: Callable[[_T], str]) -> dict[str, _T]:
    """By name, the first where two have the same."""
    found: dict[str, _T] = {}
    for item in items:
        found.setdefault(name(item), item)
    return found
