"""What comparing measured, for all formats: which layers diverge, which inherit the error, in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bncheck.facts.findings import Meaning, Report, Severity
from bncheck.facts.layers import PerChannel
from bncheck.facts.measurements import Comparison, DataFacts, LayerDifference, OutputDifference
from bncheck.facts.ratios import scores_of, sqnr_db
from bncheck.facts.wording import many, percent
from bncheck.numerics.divergence import diverging, inheriting
from bncheck.report.views.short_names import shortened

DIVERGES, INHERITS, GOOD = "diverges", "inherits", "good"


def states(report: Report) -> Mapping[str, str]:
    """Layer -> whether it diverges by itself, only inherits the error, or is good."""
    comparison = report.comparison
    if comparison is None:
        return {}
    findings = (*report.findings, *(entry.finding for entry in report.suppressed))
    named = [f for f in findings if Meaning.LAYER_DIFFERS in f.rule.meaning]
    faults = {name for f in named if f.severity is not Severity.INFO for name in f.layers}
    # a note names layers that differ and do no harm, or whose places differ, which are right all the same
    noted = {name for f in named for name in f.layers} & {layer.layer for layer in diverging(comparison)}
    wrong = faults | noted
    behind = {layer.layer for layer in inheriting(comparison, wrong)}
    names = dict.fromkeys(layer.layer for layer in comparison.layers)
    return {name: DIVERGES if name in wrong else INHERITS if name in behind else GOOD for name in names}


def first_bad_layer(report: Report) -> str | None:
    """The first in forward order that diverges by itself."""
    return next((name for name, state in states(report).items() if state == DIVERGES), None)


def root_mean_square(values: PerChannel) -> float:
    """Over the channels, NaN where one is NaN."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else math.nan


def comparison_document(report: Report) -> dict[str, Any] | None:
    """As plain dictionaries and lists; None where nothing was compared."""
    comparison = report.comparison
    if comparison is None:
        return None
    state = states(report)
    first = comparison.outputs[0] if comparison.outputs else None
    return {
        "mode": comparison.mode,
        "data": data_document(comparison.data),
        "input": comparison.input,
        "first_bad_layer": first_bad_layer(report),
        "accuracy": {
            "train": comparison.accuracy.train,
            "eval": comparison.accuracy.eval,
            "quantized": comparison.accuracy.quantized,
        },
        "agreement": None if (scores := scores_of(comparison.outputs)) is None else scores.agreement,
        "sqnr_db": None if first is None else sqnr_db(first.nmse),
        "outputs": [output_document(output) for output in comparison.outputs],
        "layers": [_layer(layer, state[layer.layer]) for layer in comparison.layers],
        "batch_dependence": comparison.batch_dependence,
        "attribution": None,
        "seconds": comparison.seconds,
    }


def data_document(data: DataFacts) -> dict[str, Any]:
    """What was run on, as a dictionary."""
    return {
        "description": data.description,
        "samples": data.samples,
        "batch_size": data.batch_size,
        "batches": data.batches,
        "synthetic": data.synthetic,
        "labelled": data.labelled,
    }


def output_document(output: OutputDifference) -> dict[str, Any]:
    """One output, as a dictionary."""
    return {
        "name": output.name,
        "nmse": output.nmse,
        "sqnr_db": sqnr_db(output.nmse),
        "cosine": output.cosine,
        "floor_nmse": output.floor,
        "classes": output.classes,
        "agreement": output.agreement,
        "agreement_floor": output.agreement_floor,
        "probability_drift": output.probability_drift,
    }


def _layer(layer: LayerDifference, state: str) -> dict[str, Any]:
    return {
        "name": layer.layer,
        "samples": layer.samples,
        "state": state,
        "local_nmse": layer.local_nmse,
        "local_sqnr_db": sqnr_db(layer.local_nmse),
        "local_floor": layer.local_floor,
        "cumulative_nmse": layer.cumulative_nmse,
        "cumulative_sqnr_db": sqnr_db(layer.cumulative_nmse),
        "cumulative_cosine": layer.cumulative_cosine,
        "mean_shift": root_mean_square(layer.mean_shift),
        "log_variance_ratio": root_mean_square(layer.log_variance_ratio),
        "non_finite": layer.non_finite,
        "worst_channels": [
            {
                "channel": channel,
                "mean_shift": float(layer.mean_shift[channel]),
                "log_variance_ratio": float(layer.log_variance_ratio[channel]),
            }
            for channel in layer.worst_channels
        ],
    }


def facts_told(comparison: Comparison) -> list[tuple[str, str]]:
    """(label, text) of data, accuracy and each output, in words that need no table."""
    data = comparison.data
    ran = f"{many(data.samples, 'sample')} in batches of {data.batch_size}"
    told = [("Data", f"{data.description}; {ran}, {comparison.seconds:.1f} s")]
    if comparison.accuracy.train is not None and comparison.accuracy.eval is not None:
        train, stored = comparison.accuracy.train, comparison.accuracy.eval
        told.append(("Accuracy", f"train mode {percent(train)}, eval mode {percent(stored)}"))
    told += [("Output", f"{output.name}: {output_told(output)}") for output in comparison.outputs]
    if comparison.batch_dependence is not None:
        times = percent(comparison.batch_dependence)
        told.append(("Served", f"one sample differs by {times} between alone and in its batch"))
    return told


def output_told(output: OutputDifference) -> str:
    """How far two forms of an output are apart, in words."""
    parts = []
    if output.agreement is not None:
        floor = "" if output.agreement_floor is None else f" (batch noise alone: {percent(output.agreement_floor)})"
        parts.append(f"agree on {percent(output.agreement)} of the samples{floor}")
    if output.probability_drift is not None:
        parts.append(f"probabilities differ by {output.probability_drift:.3f}")
    floor = "" if output.floor is None else f" (batch noise alone: {percent(output.floor)})"
    parts.append(f"off by {percent(output.nmse)}{floor}, cosine {output.cosine:.3f}")
    return ", ".join(parts)


HEAD = ("", "local error", "batch noise", "total error", "mean shift", "var ratio")
LEGEND = (
    "local error: of this layer alone; total: with all before it; mean shift: in standard deviations; "
    "var ratio: batch over stored"
)
"""Of the columns behind the layer's name."""


def table(report: Report, most: int | None) -> tuple[str, list[tuple[str, ...]]]:
    """What all names have in common ("MobilenetV2/…/BatchNorm", or "layer"), and rows in forward order.

    Of more than `most` layers those that lose most by themselves, and the first bad one.
    """
    comparison = report.comparison
    if comparison is None:
        return "layer", []
    state = states(report)
    layers = list(comparison.layers)
    if most is not None and len(layers) > most:
        first = first_bad_layer(report)
        worst = sorted(layers, key=lambda layer: -_or_infinite(layer.local_nmse))
        chosen = [layer for layer in layers if layer.layer == first][:1]
        chosen += [layer for layer in worst if layer not in chosen][: most - len(chosen)]
        layers = [layer for layer in layers if layer in chosen]
    title, short = shortened([layer.layer for layer in comparison.layers])
    places = _places(comparison.layers)
    return title, [
        (short[layer.layer] + places.get(id(layer), ""), *_row(layer, state[layer.layer])) for layer in layers
    ]


def _places(layers: Sequence[LayerDifference]) -> Mapping[int, str]:
    """Which of its places a row is, for layers that have several: row's identity -> " #2"."""
    rows: dict[str, list[LayerDifference]] = {}
    for layer in layers:
        rows.setdefault(layer.layer, []).append(layer)
    several = [own for own in rows.values() if len(own) > 1]
    return {id(layer): f" #{number}" for own in several for number, layer in enumerate(own, 1)}


def _row(layer: LayerDifference, state: str) -> tuple[str, ...]:
    ratios = layer.log_variance_ratio[np.isfinite(layer.log_variance_ratio)]
    ratio = math.exp(float(np.sort(ratios)[ratios.size // 2])) if ratios.size else math.nan
    return (
        "" if state == GOOD else state,
        percent(layer.local_nmse),
        percent(layer.local_floor),
        percent(layer.cumulative_nmse),
        f"{root_mean_square(layer.mean_shift):.2f}",
        "?" if math.isnan(ratio) else f"{ratio:.3g}",
    )


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value
