"""Everything that a report knows of one layer, brought together under its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from bncheck.facts.findings import Finding, Report, Severity
from bncheck.facts.layers import Layer, PerChannel
from bncheck.facts.measurements import FoldedLayer, LayerDifference, OperatorLoss
from bncheck.numerics.spread import Spread, counted_share, folded_range, init_contribution, spread
from bncheck.report.views.comparison import states
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
    share: float | None = None
    contribution: PerChannel | None = None
    ranges: PerChannel | None = None
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
    def init_parts(self) -> Spread | None:
        """Of the initial value's part in the stored variances."""
        return spread(self.contribution)

    @property
    def range_spread(self) -> float | None:
        """Largest folded range over the median of those above zero (METRICS, folded range spread)."""
        found = None if self.ranges is None else spread(self.ranges[self.ranges > 0])
        return None if found is None or found.median <= 0 else found.largest / found.median


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
    updates = report.target.updates

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
            share=None if layer is None else counted_share(layer, updates),
            contribution=None if layer is None else init_contribution(layer, updates),
            ranges=None if layer is None else folded_range(layer),
            codes=codes.get(name, ()),
        )

    return tuple(view(number, name) for number, name in enumerate(names, 1))


def codes_by_layer(report: Report) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Layer or operator -> (code, severity) of the findings that name it, worst first, each code once."""
    found: dict[str, dict[str, Severity]] = {}
    for finding in sorted(report.findings, key=_worst_first):
        for name in finding.layers:
            found.setdefault(name, {}).setdefault(finding.code, finding.severity)
    return {name: tuple((code, severity.value) for code, severity in of.items()) for name, of in found.items()}


def named_by(report: Report, *codes: str) -> frozenset[str]:
    """Layers and operators that findings with these codes name, suppressed ones too."""
    findings = (*report.findings, *(entry.finding for entry in report.suppressed))
    return frozenset(name for finding in findings if finding.code in codes for name in finding.layers)


def _worst_first(finding: Finding) -> tuple[int, str]:
    return SEVERITIES.index(finding.severity), finding.code


def _first(items: Iterable[_T], name: Callable[[_T], str]) -> dict[str, _T]:
    """By name, the first where two have the same."""
    found: dict[str, _T] = {}
    for item in items:
        found.setdefault(name(item), item)
    return found
