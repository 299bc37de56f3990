"""Float against quantized, the attribution of the loss and the fold proof as sections of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath

from bncheck.facts.findings import Report
from bncheck.facts.measurements import Attribution, CellStatistics, Measure, OperatorLoss, Precision
from bncheck.facts.wording import decibel, fine_percent, many
from bncheck.report.html import charts
from bncheck.report.html.charts import ErrorPoint, LossStep
from bncheck.report.html.parts import Chart, HtmlTable, Section, error_legend, error_told, figure, made_up
from bncheck.report.views.fold_proof import fold_told
from bncheck.report.views.quantized import attribution_told, facts_told, loses, losing, title

ROUNDING = 1 / math.sqrt(12)
"""Root mean square of a rounding error in steps of the scale (METRICS, rounding floor)."""
_ORDER = "operator, in execution order"
_PARTS = ("rounding", "clipping", "bias shift")
_REFERENCE = (CellStatistics.BATCH, Precision.FLOAT)
_MEASURES = {
    Measure.ACCURACY: "accuracy",
    Measure.AGREEMENT: "same top class as the reference",
    Measure.NMSE: "error energy / signal",
}


def quantized_section(report: Report) -> Section | None:
    """What quantization costs each operator; None where it was not measured."""
    measured = report.quantized
    if measured is None:
        return None
    facts = facts_told(measured)
    if 0 < measured.local_samples < measured.data.samples:
        samples = many(measured.local_samples, "sample")
        facts.append(("Local", f"errors of single operators are those of the first {samples}"))
    lost = tuple((u.name, u.side.value, u.layer or "", u.why) for u in measured.unmatched if not u.is_layer)
    return Section(
        key="quantized",
        title=title(replace(measured, quantized=PurePath(measured.quantized).name)),
        lead="Both with the stored statistics: what rounding, clipping and mean shift cost each operator.",
        facts=tuple(facts),
        charts=tuple(_quantized_charts(report, measured.operators)),
        table=HtmlTable(head=("tensor", "in", "layer", "why"), rows=lost) if lost else None,
        table_title=f"{len(lost)} without a counterpart in the other file, not compared",
        notes=made_up(measured.data),
    )


def rounding_floor(operator: OperatorLoss) -> float | None:
    """The NMSE that rounding alone gives its output, local NMSE / 12 / (rmse / scale)**2; None where it is float."""
    rmse = operator.rmse_over_scale
    if rmse is None or not rmse > 0 or not math.isfinite(rmse):
        return None
    return operator.local_nmse * (ROUNDING / rmse) ** 2


def _quantized_charts(report: Report, operators: Sequence[OperatorLoss]) -> Iterator[Chart]:
    if not operators:
        return
    bad = losing(report)
    points = [
        ErrorPoint(
            number=number,
            name=operator.name,
            local=operator.local_nmse,
            arrives=operator.cumulative_nmse,
            floor=rounding_floor(operator),
            bad=loses(operator, bad),
        )
        for number, operator in enumerate(operators, 1)
    ]
    scales = {None: "\u2013", True: "per channel", False: "per tensor"}
    rows = tuple(
        (
            str(point.number),
            point.name,
            operator.kind,
            fine_percent(point.local),
            fine_percent(point.arrives),
            figure(operator.rmse_over_scale),
            scales[operator.weight_per_channel],
        )
        for point, operator in zip(points, operators, strict=True)
    )
    head = ("#", "operator", "kind", "local error", "error at output", "rmse / scale", "weights")
    first = next((point.name for point in points if point.bad), "")
    yield Chart(
        key="loss",
        title="What quantization costs, operator by operator",
        told=error_told(points, "rounding alone"),
        spec=charts.error_chart(points, first_bad=first, floor="rounding alone", x=_ORDER),
        table=HtmlTable(head=head, rows=rows),
        legend=error_legend(points, "rounding alone"),
    )
    shares = list(_shares(points, operators))
    if shares:
        yield Chart(
            key="parts",
            title="What the local error is made of",
            told=_shares_told(shares),
            spec=charts.parts_chart(shares, _PARTS, len(points), _ORDER),
            table=HtmlTable(
                head=("#", "operator", "part", "of the local error"),
                rows=tuple((str(o), name, part, fine_percent(share)) for o, name, part, share in shares),
            ),
            legend=(("box floor", "rounding"), ("box arrives", "clipping"), ("box local", "bias shift")),
        )


def _shares(points: Sequence[ErrorPoint], operators: Sequence[OperatorLoss]) -> Iterator[tuple[int, str, str, float]]:
    for point, operator in zip(points, operators, strict=True):
        own = [max(v, 0.0) for v in (operator.rounding_nmse, operator.clipping_nmse, operator.bias_nmse)]
        total = sum(own)
        if total > 0 and math.isfinite(total):
            yield from ((point.number, point.name, part, v / total) for part, v in zip(_PARTS, own, strict=True))


def _shares_told(shares: Sequence[tuple[int, str, str, float]]) -> str:
    told = []
    for part in _PARTS[1:]:
        most = max((entry for entry in shares if entry[2] == part), key=lambda entry: entry[3])
        told.append(f"{part} makes up at most {fine_percent(most[3])}" + (f" (in {most[1]})" if most[3] > 0 else ""))
    return f"Of an operator's error {', '.join(told)}; the rest is rounding."


def attribution_section(report: Report) -> Section | None:
    """Which step loses what; None where it was not measured."""
    found = None if report.quantized is None else report.quantized.attribution
    if found is None:
        return None
    steps = waterfall_steps(found)
    rows = tuple(
        (
            cell.statistics.value,
            cell.arithmetic.value,
            "\u2013" if cell.nmse is None else f"{decibel(cell.nmse)} dB",
            "\u2013" if cell.agreement is None else fine_percent(cell.agreement),
            "\u2013" if cell.accuracy is None else fine_percent(cell.accuracy),
            cell.why,
        )
        for cell in found.cells
    )
    table = HtmlTable(
        head=("statistics", "arithmetic", "SQNR", "same top class", "accuracy", "not run because"), rows=rows
    )
    waterfall = Chart(
        key="waterfall",
        title="From batch statistics in float to the quantized model",
        told="; ".join(f"{step.label}: {step.text}" for step in steps) + ".",
        spec=charts.waterfall(steps, title=_MEASURES[found.measure], share=found.measure is not Measure.NMSE),
        table=table,
        legend=_waterfall_legend(steps),
    )
    return Section(
        key="attribution",
        title="Which step loses what",
        lead=_lead(found),
        charts=(waterfall,) if steps else (),
        table=None if steps else table,
        table_title="Statistics and arithmetic",
    )


def _waterfall_legend(steps: Sequence[LossStep]) -> tuple[tuple[str, str], ...]:
    names = {"total": "box local", "loss": "box bad", "gain": "box good", "repaired": "box repaired"}
    told = {
        "total": "what the model does",
        "loss": "lost",
        "gain": "gained",
        "repaired": "with re-estimated statistics",
    }
    used = dict.fromkeys(step.kind for step in steps)
    return tuple((names[kind], told[kind]) for kind in names if kind in used)


def _lead(found: Attribution) -> str:
    told, share = attribution_told(found), found.statistics_share
    before = f" {fine_percent(share)} of it came before quantization." if share is not None and 0 < share < 1 else ""
    return f"{told[:1].upper()}{told[1:]}.{before}"


def waterfall_steps(found: Attribution) -> list[LossStep]:
    """The bars; empty where what they start or end at was not measured.

    Points fall from what batch statistics reach, batch noise taken off. The NMSE of two steps do not add up, so each
    hangs from the one before, and what the quantized model has stands apart.
    """
    stored, end = (_measured(found, CellStatistics.STORED, arithmetic) for arithmetic in Precision)
    if stored is None or not math.isfinite(found.statistics):
        return []
    if found.measure is Measure.NMSE:
        steps = [_lost("stored statistics", 0.0, found.statistics, found)]
        if end is not None and math.isfinite(found.quantization):
            steps.append(_lost("quantization", found.statistics, found.statistics + found.quantization, found))
    else:
        start = stored + found.statistics
        reference = _measured(found, *_REFERENCE)
        noisy = reference is not None and abs(reference - start) > 5e-4
        label = "batch statistics, less noise" if noisy else "batch statistics, float"
        steps = [_total(label, start, found), _lost("stored statistics", start, stored, found)]
        if end is not None:
            steps.append(_lost("quantization", stored, end, found))
    if end is not None:
        steps.append(_total("stored, quantized", end, found))
    for arithmetic in Precision:
        repaired = _measured(found, CellStatistics.REESTIMATED, arithmetic)
        if repaired is not None:
            steps.append(_total(f"re-estimated, {arithmetic.value}", repaired, found, kind="repaired"))
    return steps


def _total(label: str, value: float, found: Attribution, kind: str = "total") -> LossStep:
    text = figure(value) if found.measure is Measure.NMSE else fine_percent(value)
    return LossStep(label=label, start=0.0, end=value, kind=kind, text=text)


def _lost(label: str, before: float, after: float, found: Attribution) -> LossStep:
    better = after <= before if found.measure is Measure.NMSE else after >= before
    change = after - before
    text = f"{change:+.3g}" if found.measure is Measure.NMSE else f"{100 * change:+.1f} points"
    if not float(f"{change:.4f}"):
        return LossStep(label=label, start=before, end=after, kind="loss", text="no change")
    kind = "gain" if better else "loss"
    return LossStep(label=label, start=before, end=after, kind=kind, text=text.replace("-", "\u2212"))


def _measured(found: Attribution, statistics: CellStatistics, arithmetic: Precision) -> float | None:
    cell = next((c for c in found.cells if c.place == (statistics, arithmetic)), None)
    if cell is None:
        return None
    value = cell.value(found.measure)
    if value is None and cell.place == _REFERENCE:
        # the reference agrees with itself
        value = {Measure.AGREEMENT: 1.0, Measure.NMSE: 0.0}.get(found.measure)
    return value if value is not None and math.isfinite(value) else None


def fold_section(report: Report) -> Section | None:
    """Which statistics a converted file holds; None where it was not held against its source."""
    proof = report.fold
    if proof is None:
        return None
    stored = sum(1 for layer in proof.layers if layer.folded == "stored")
    rows = tuple(
        (
            layer.layer,
            layer.operator or "\u2013",
            layer.folded,
            layer.weights,
            figure(layer.error),
            figure(layer.tolerance),
            f"{figure(layer.epsilon)} ({figure(layer.epsilon_known)})",
            layer.why,
        )
        for layer in proof.layers
    )
    return Section(
        key="proof",
        title="What was folded in",
        lead=f"{stored} of {many(len(proof.layers), 'layer')} of {proof.path} {'holds' if stored == 1 else 'hold'} "
        f"the statistics stored in {proof.source}.",
        facts=tuple(fold_told(proof)),
        table=HtmlTable(
            head=("layer", "operator", "statistics", "weights", "error", "tolerance", "epsilon (model's)", "why"),
            rows=rows,
        ),
        table_title="What was folded in, layer by layer",
    )
