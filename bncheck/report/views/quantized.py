"""Float against quantized, for all formats: who loses what, in words and numbers; which operators lose precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bncheck.facts.findings import Meaning, Report
from bncheck.facts.measurements import (
    Attribution,
    Cell,
    CellStatistics,
    Measure,
    OperatorLoss,
    Precision,
    QuantizedComparison,
    Rounded,
    Unmatched,
)
from bncheck.facts.ratios import scores_of, sqnr_db
from bncheck.facts.wording import many, percent
from bncheck.report.views.comparison import data_document, output_document, output_told
from bncheck.report.views.short_names import shortened

LOSES = "loses"

_ROWS = {
    CellStatistics.BATCH: "batch statistics",
    CellStatistics.STORED: "stored statistics",
    CellStatistics.REESTIMATED: "re-estimated",
}
_HEADS = {
    Measure.ACCURACY: "accuracy",
    Measure.AGREEMENT: "agreement with batch statistics",
    Measure.NMSE: "output error",
}


def losing(report: Report) -> frozenset[str]:
    """Layers, or operators without one, that a finding says lose precision."""
    findings = (*report.findings, *(entry.finding for entry in report.suppressed))
    return frozenset(
        name for finding in findings if Meaning.OPERATOR_LOSES in finding.rule.meaning for name in finding.layers
    )


def loses(operator: OperatorLoss, names: frozenset[str]) -> bool:
    """Whether an operator is among those."""
    return (operator.layer or operator.name) in names


def attribution_told(found: Attribution) -> str:
    """Which step loses what, as a sentence without its full stop."""
    if found.measure is Measure.NMSE:
        more = f"by {percent(found.quantization)}" if found.quantization >= 0 else "no further"
        if found.statistics <= 0:
            return f"the stored statistics put the output off no further than batch noise, quantization {more}"
        return f"the stored statistics put the output off by {percent(found.statistics)}, quantization {more}"
    points = f"points of {found.measure.value}"
    statistics, rest = 100 * found.statistics, 100 * found.quantization
    if not math.isfinite(statistics + rest):
        return "the loss is NaN"
    if statistics > 0 and rest > 0:
        return (
            f"{statistics + rest:.1f} {points} lost: {statistics:.1f} by the stored statistics, {rest:.1f} by "
            "quantization"
        )
    if statistics > 0:
        gained = f"; quantization gains {-rest:.1f}" if rest else ""
        return f"{statistics:.1f} {points} lost, all by the stored statistics{gained}"
    gains = f"the stored statistics gain {-statistics:.1f}" if statistics else "the stored statistics lose nothing"
    if rest > 0:
        return f"{rest:.1f} {points} lost, all by quantization; {gains}"
    return f"no {points} lost: {gains}, quantization {f'gains {-rest:.1f}' if rest else 'loses nothing'}"


def cell_told(cell: Cell, measure: Measure) -> str:
    """One number of the square of statistics and arithmetic; a dash where it was not run."""
    value = cell.value(measure)
    if value is None or cell.nmse is None:
        return "-"
    if measure is not Measure.NMSE:
        return percent(value)
    return "reference" if cell.statistics is CellStatistics.BATCH else percent(value)


def square(found: Attribution) -> list[tuple[str, str, str]]:
    """(statistics, float, quantized) of each row that was run, under a head that names the measure."""
    cells = {cell.place: cell for cell in found.cells}
    rows = [(_HEADS[found.measure], "float", "quantized")]
    for statistics, label in _ROWS.items():
        row = [cells.get((statistics, arithmetic)) for arithmetic in Precision]
        exact, rounded = ("-" if cell is None else cell_told(cell, found.measure) for cell in row)
        if {exact, rounded} != {"-"}:
            rows.append((label, exact, rounded))
    return rows


def facts_told(measured: QuantizedComparison) -> list[tuple[str, str]]:
    """(label, text) of data, size, accuracy, each output and what was lost."""
    data = measured.data
    ran = f"{many(data.samples, 'sample')} in batches of {data.batch_size}"
    told = [("Data", f"{data.description}; {ran}, {measured.seconds:.1f} s")]
    if measured.float_bytes and measured.quantized_bytes:
        told.append(("Size", f"{_size(measured.float_bytes)} float, {_size(measured.quantized_bytes)} quantized"))
    if measured.rounded is not None:
        told.append(("Rounded", rounded_told(measured.rounded)))
    accuracy = measured.accuracy
    square_tells = measured.attribution is not None and measured.attribution.measure is Measure.ACCURACY
    if accuracy.eval is not None and accuracy.quantized is not None and not square_tells:
        told.append(("Accuracy", f"float {percent(accuracy.eval)}, quantized {percent(accuracy.quantized)}"))
    told += [("Output", f"{output.name}: {output_told(output)}") for output in measured.outputs]
    if measured.attribution is not None:
        told.append(("Lost", attribution_told(measured.attribution)))
    tensors = sum(not one.is_layer for one in measured.unmatched)
    if tensors:
        told.append(("Missing", f"{many(tensors, 'tensor')} could not be compared"))
    return told


def rounded_told(rounded: Rounded) -> str:
    """How much of the file is quantized."""
    kernels = f"{rounded.kernels:,} of {many(rounded.of_kernels, 'kernel')} stored in fewer bits"
    return f"{kernels}, {rounded.operators:,} of {many(rounded.of_operators, 'operator')} in integers"


def title(measured: QuantizedComparison) -> str:
    """What was compared: the scheme, or the given file."""
    return f"Float vs {measured.quantized or 'the given file' if measured.was_given else measured.scheme}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


HEAD = ("", "local error", "total error", "stats error", "steps", "mostly")
"""Of the columns after the name: own error, all before it included, that of the stored statistics in float; error in
steps of the output's scale; what most of the own error is."""


def table(report: Report, most: int | None) -> tuple[str, list[tuple[str, ...]]]:
    """What all names have in common, and rows in execution order; of more than `most` those that lose most."""
    measured = report.quantized
    if measured is None or not measured.operators:
        return "operator", []
    bad = losing(report)
    chosen = list(measured.operators)
    if most is not None and len(chosen) > most:
        ranked = sorted(chosen, key=lambda one: (not loses(one, bad), -_or_infinite(one.local_nmse)))[:most]
        chosen = [one for one in chosen if any(one is other for other in ranked)]
    shared, short = shortened([one.name for one in measured.operators if one.layer is not None])
    shared = "operator" if shared == "layer" else shared
    arrives = _statistics(report)
    return shared, [(short.get(one.name, one.name), *_row(one, bad, arrives)) for one in chosen]


def _statistics(report: Report) -> Mapping[str, float]:
    """Layer -> NMSE that the stored statistics alone bring to its output, in float."""
    return {} if report.comparison is None else {one.layer: one.cumulative_nmse for one in report.comparison.layers}


def _row(operator: OperatorLoss, bad: frozenset[str], statistics: Mapping[str, float]) -> tuple[str, ...]:
    own = None if operator.layer is None else statistics.get(operator.layer)
    return (
        LOSES if loses(operator, bad) else "",
        percent(operator.local_nmse),
        percent(operator.cumulative_nmse),
        "" if own is None else percent(own),
        "" if operator.rmse_over_scale is None else f"{operator.rmse_over_scale:.2f}",
        mostly(operator),
    )


def mostly(operator: OperatorLoss) -> str:
    """The largest part of an operator's own loss: "rounding", "clipping" or "bias"; empty where there is none."""
    parts = {
        "rounding": operator.rounding_nmse,
        "clipping": operator.clipping_nmse,
        "bias": operator.bias_nmse,
    }
    if not all(math.isfinite(part) for part in parts.values()) or not operator.local_nmse > 0:
        return ""
    return max(parts, key=lambda name: parts[name])


def quantized_document(report: Report) -> dict[str, Any] | None:
    """As plain dictionaries and lists; None where nothing was quantized."""
    measured = report.quantized
    if measured is None:
        return None
    bad = losing(report)
    first = measured.outputs[0] if measured.outputs else None
    arrives = _statistics(report)
    named = [one.layer or one.name for one in measured.operators if loses(one, bad)]
    return {
        "mode": "float-vs-quantized",
        "scheme": measured.scheme,
        "quantized": measured.quantized,
        "data": data_document(measured.data),
        "input": measured.input,
        "first_bad_layer": named[0] if named else None,
        "accuracy": {
            "train": measured.accuracy.train,
            "eval": measured.accuracy.eval,
            "quantized": measured.accuracy.quantized,
        },
        "agreement": None if (scores := scores_of(measured.outputs)) is None else scores.agreement,
        "sqnr_db": None if first is None else sqnr_db(first.nmse),
        "outputs": [output_document(output) for output in measured.outputs],
        "layers": [_operator(one, LOSES if loses(one, bad) else "good", arrives) for one in measured.operators],
        "unmatched": [_unmatched(one) for one in measured.unmatched],
        "attribution": None if measured.attribution is None else _attribution(measured.attribution),
        "float_bytes": measured.float_bytes,
        "quantized_bytes": measured.quantized_bytes,
        "seconds": measured.seconds,
    }


def _operator(one: OperatorLoss, state: str, statistics: Mapping[str, float]) -> dict[str, Any]:
    return {
        "name": one.name,
        "layer": one.layer,
        "kind": one.kind,
        "tensor": one.tensor,
        "reference": one.reference,
        "state": state,
        "local_nmse": one.local_nmse,
        "local_sqnr_db": sqnr_db(one.local_nmse),
        "cumulative_nmse": one.cumulative_nmse,
        "cumulative_sqnr_db": sqnr_db(one.cumulative_nmse),
        "cumulative_cosine": one.cumulative_cosine,
        "statistics_nmse": None if one.layer is None else statistics.get(one.layer),
        "rounding_nmse": one.rounding_nmse,
        "clipping_nmse": one.clipping_nmse,
        "bias_nmse": one.bias_nmse,
        "rmse_over_scale": one.rmse_over_scale,
        "scale": one.scale,
        "zero_point": one.zero_point,
        "weight_nmse": one.weight_nmse,
        "weight_per_channel": one.weight_per_channel,
        "non_finite": one.non_finite,
        "worst_channels": [
            {"channel": channel, "local_nmse": float(one.channel_nmse[channel])}
            for channel in one.worst_channels
            if channel < one.channel_nmse.size
        ],
    }


def _unmatched(one: Unmatched) -> dict[str, Any]:
    return {"name": one.name, "side": one.side.value, "why": one.why, "layer": one.layer}


def _attribution(found: Attribution) -> dict[str, Any]:
    return {
        "measure": found.measure.value,
        "statistics": found.statistics,
        "quantization": found.quantization,
        "statistics_share": found.statistics_share,
        "told": attribution_told(found),
        "cells": [
            {
                "statistics": cell.statistics.value,
                "arithmetic": cell.arithmetic.value,
                "nmse": cell.nmse,
                "agreement": cell.agreement,
                "accuracy": cell.accuracy,
                "why": cell.why,
            }
            for cell in found.cells
        ],
    }


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value
