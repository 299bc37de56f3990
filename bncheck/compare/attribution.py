"""Which step loses what: {batch, stored, re-estimated} statistics x {float, quantized}, at the model's first output.

The reference is batch statistics in float, what the model does in training; every other cell is held against it on the
same batches. Batch statistics cannot be folded, so no quantized model has them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.output_sums import ClassSums, ErrorSums
from bncheck.compare.outputs import OutputKind, as_scores
from bncheck.facts.layers import Layer, PerChannel
from bncheck.facts.measurements import (
    Attribution,
    Cell,
    CellStatistics,
    Comparison,
    Measure,
    OutputDifference,
    Precision,
)
from bncheck.facts.ratios import informed_accuracy
from bncheck.numerics import moments
from bncheck.numerics.moments import Moments, batch_moments

BATCH, STORED, REESTIMATED = CellStatistics
FLOAT, QUANTIZED = Precision
UNDEPLOYABLE = "batch statistics cannot be folded into weights, so no quantized model has them"
NEEDLESS = "the stored statistics cost nothing that new ones could recover"

Outputs: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]
"""Images (samples, ...) -> the model's first output for them (samples, ...), as real numbers."""
Place: TypeAlias = tuple[CellStatistics, Precision]
"""(statistics, arithmetic)."""
Batch: TypeAlias = "tuple[NDArray[Any], NDArray[Any] | None]"
Statistics: TypeAlias = Mapping[str, tuple[PerChannel, PerChannel]]
"""Layer name -> (mean, variance)."""


@dataclass(kw_only=True, eq=False)
class _Sums:
    """What is added up over the batches, of one cell."""

    errors: ErrorSums = field(default_factory=ErrorSums)
    top: ClassSums = field(default_factory=ClassSums)


def attribute(
    reference: Outputs,
    cells: Mapping[Place, Outputs],
    batches: Iterable[Batch],
    *,
    modes: OutputDifference | None = None,
    rounding: OutputDifference | None = None,
    reasons: Mapping[Place, str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Attribution:
    """Runs every batch through the reference and all `cells`; memory does not grow with their number.

    `cells` must hold (stored, float) and (stored, quantized); `reasons` say why others are left out. `modes` and
    `rounding` are what both modes and both arithmetics were measured to differ in, as `combined` takes them.
    """
    sums = {place: _Sums() for place in ((BATCH, FLOAT), *cells)}
    classes = done = 0
    for images, labels in batches:
        wanted = np.asarray(reference(images), np.float64)
        how = _read_as(wanted, modes)
        if how is not OutputKind.NONE:
            classes = as_scores(wanted, how).shape[-1]
        for place, total in sums.items():
            got = wanted if place == (BATCH, FLOAT) else np.asarray(cells[place](images), np.float64)
            _add(total, wanted, got.reshape(wanted.shape), labels, how)
        done += len(images)
        progress(done)
    told = dict(reasons or {})
    told.setdefault((BATCH, QUANTIZED), UNDEPLOYABLE)
    return combined(
        tuple(
            _cell(place, sums.get(place), told.get(place, "")) for place in itertools.product(CellStatistics, Precision)
        ),
        classes=classes,
        modes=modes,
        rounding=rounding,
    )


def _read_as(output: NDArray[Any], modes: OutputDifference | None) -> OutputKind:
    """How it is scores of classes, if its shape is that of such scores, and `modes` knows it for some."""
    if modes is not None and modes.classes is None:
        return OutputKind.NONE
    if modes is not None and output.ndim and output.size == len(output):
        return OutputKind(modes.read_as)
    columns = output.ndim >= 2 and output.shape[-1] >= 2 and all(size == 1 for size in output.shape[1:-1])
    return OutputKind.COLUMNS if columns else OutputKind.NONE


def _add(total: _Sums, wanted: NDArray[Any], got: NDArray[Any], labels: NDArray[Any] | None, how: OutputKind) -> None:
    total.errors.add(wanted, got)
    if how is not OutputKind.NONE:
        total.top.add(as_scores(wanted, how), as_scores(got, how), labels)


def _cell(place: Place, sums: _Sums | None, why: str) -> Cell:
    statistics, arithmetic = place
    if sums is None:
        return Cell(statistics=statistics, arithmetic=arithmetic, nmse=None, why=why or "was not run")
    return Cell(
        statistics=statistics,
        arithmetic=arithmetic,
        nmse=sums.errors.nmse,
        agreement=sums.top.agreement,
        accuracy=None if sums.top.accuracy is None else sums.top.accuracy[1],
    )


def combined(
    cells: tuple[Cell, ...],
    *,
    classes: int,
    modes: OutputDifference | None = None,
    rounding: OutputDifference | None = None,
) -> Attribution:
    """What each step loses by the best measure that all three cells have: accuracy, else agreement, else NMSE.

    Accuracy counts where labels are met clearly more often than chance would. Of agreement and NMSE what batch noise
    alone does, the floors of `modes`, is no loss. Errors do not add up as points do: in NMSE quantization has that of
    `rounding`, quantized against float with the same statistics. The share of the statistics is that of what is lost;
    a step that gains has none of it.
    """
    held = {cell.place: cell for cell in cells}
    start, stored, low = held[BATCH, FLOAT], held[STORED, FLOAT], held[STORED, QUANTIZED]
    measure = Measure.NMSE
    if start.agreement is not None:
        best = max((cell.accuracy for cell in (start, stored) if cell.accuracy is not None), default=0.0)
        measure = Measure.ACCURACY if best >= informed_accuracy(max(classes, 2)) else Measure.AGREEMENT
    if measure is Measure.NMSE:
        statistics = _number(stored.nmse) - _number(None if modes is None else modes.floor, 0.0)
        quantization = _number(low.nmse) - _number(stored.nmse) if rounding is None else rounding.nmse
    else:
        before, between, after = (_number(cell.value(measure)) for cell in (start, stored, low))
        if measure is Measure.AGREEMENT:
            before = _number(None if modes is None else modes.agreement_floor, before)
        statistics, quantization = before - between, between - after
    lost = max(statistics, 0.0) + max(quantization, 0.0)
    return Attribution(
        cells=cells,
        measure=measure,
        statistics=statistics,
        quantization=quantization,
        statistics_share=max(statistics, 0.0) / lost if lost > 0 and math.isfinite(lost) else None,
    )


def _number(value: float | None, default: float = math.nan) -> float:
    return default if value is None else value


def reestimated(comparison: Comparison, layers: Iterable[Layer]) -> Statistics | None:
    """Statistics of the data that was compared on, as `repair --data` would store them; None where one is no number.

    Layer by layer those of train mode over all batches (biased variance). Sites of one layer are pooled by their
    elements.
    """
    stored = {layer.name: layer for layer in layers}
    found: dict[str, Moments] = {}
    for site in comparison.layers:
        part = batch_moments(site, stored[site.layer])
        if part is None:
            return None
        found[site.layer] = moments.merge(found[site.layer], part) if site.layer in found else part
    return {name: (held.mean, held.variance) for name, held in found.items()}
