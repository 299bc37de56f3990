"""The repair for people: what was done to which layers, and how inspection and comparison judge it before and after."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, TextIO

from bncheck.facts.findings import Finding, Report, Severity, Verdict
from bncheck.facts.repairs import LayerLeft, LayerRepair, RepairReport, RepairVerdict
from bncheck.facts.wording import listing, many, percent
from bncheck.report.escape import visible
from bncheck.report.text.layout import LABEL, Line, columns, hanging, pad, wrap, write_lines

if TYPE_CHECKING:
    from bncheck.facts.measurements import Comparison

_HEADLINE = {
    RepairVerdict.PASS: ("REPAIRED", "pass"),
    RepairVerdict.UNVERIFIED: ("UNVERIFIED", "inconclusive"),
    RepairVerdict.REFUSED: ("REFUSED", "error"),
    RepairVerdict.FAIL: ("STILL BROKEN", "error"),
}
_STYLE = {Verdict.PASS: "pass", Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "inconclusive"}


def write(report: RepairReport, stream: TextIO, *, verbose: bool = False) -> None:
    """A screen; every layer with `verbose`."""
    write_lines(_lines(report, columns(stream), verbose=verbose), stream)


def headline(report: RepairReport) -> str:
    """The verdict in capitals: "REPAIRED", or "REPAIRED, 1 assumption" where a pass takes something for granted."""
    return _HEADLINE[report.verdict][0] + (", 1 assumption" if report.assumes else "")


def _lines(report: RepairReport, width: int, *, verbose: bool) -> Iterator[Line]:
    total = len(report.before.layers)
    what = f"{len(report.repaired)} of {many(total, 'batch norm layer')}"
    judgement = report.judgement
    _, style = _HEADLINE[report.verdict]
    where = f" -> {_name(report.output)}" if report.files else ", nothing written"
    yield (headline(report), style), (f"  {_name(report.source)}{where} · {report.format} · {what}", "")
    for reason in judgement.reasons:
        yield from hanging("Why", visible(reason), width)
    if report.assumes:
        yield from hanging("Assumed", visible(report.assumes), width)
    if report.files:
        yield from hanging("Method", visible(_method(report)), width)
    yield from _side("Before", report.before, report.compared_before, width)
    if report.files:
        yield from _side("After", report.after, report.compared_after, width)
    yield from _told(report, width)
    if verbose:
        yield ()
        for layer in report.repaired:
            yield from hanging("", visible(_layer(layer)), width)
    if report.files:
        yield from hanging("Files", visible(", ".join(_name(file) for file in report.files)), width)
    yield ()
    yield ((f"verdict {report.verdict.value} · exit {report.exit_code}", ""),)


def _told(report: RepairReport, width: int) -> Iterator[Line]:
    """What else was repaired, how sure it is, what carries the verdict, and what was left."""
    if report.averaged:
        yield from hanging("Averages", visible(_averages(report)), width)
    if report.ranges:
        yield from hanging("Ranges", _ranges(report), width)
    if noise := _noise(report):
        yield from hanging("Noise", visible(noise), width)
    for sentence in report.judgement.told:
        yield from hanging("Judged", visible(sentence), width)
    for reason, names in _grouped(report.left).items():
        yield from hanging("Left", visible(f"{listing(names)}: {reason}"), width)
    for note in report.notes:
        yield from hanging("Note", visible(note), width)


def _name(path: str) -> str:
    return visible(PurePath(path).name or path)


def _method(report: RepairReport) -> str:
    facts = report.population
    if facts is not None:
        batches = "1 batch" if facts.batches == 1 else f"{facts.batches:,} batches"
        stood = "until they converged" if facts.converged else "all whole batches"
        return (
            f"population statistics over {many(facts.samples, 'sample')} in {batches} of {facts.batch_size} "
            f"({stood}) of {facts.description}; every layer in train mode, dropout off"
        )
    if report.method == "rescue":
        return "statistics of made-up pictures, clouds and discs, with every layer in train mode; no data"
    shares = [layer.share for layer in report.repaired if layer.share is not None]
    decay = "" if report.decay is None else f"decay {report.decay:g}, "
    clipped = sum(layer.clipped for layer in report.repaired)
    rounded = f"; {many(clipped, 'channel')} fell below 0 by rounding and were set to 0" if clipped else ""
    predicted = sum(layer.from_weights is not None for layer in report.repaired)
    means = (
        f"; the means of {many(predicted, 'layer')} are predicted from the weights, newer than the average"
        if predicted
        else ""
    )
    return (
        f"init share undone: {decay}{report.steps:,} updates left {max(shares, default=0.0):.2%} of the initial "
        f"values{rounded}{means}"
    )


def _side(label: str, report: Report, comparison: Comparison | None, width: int) -> Iterator[Line]:
    found = [
        f"{finding.code} {finding.slug} ({', '.join(_standing(finding))})"
        for finding in report.findings
        if finding.severity is not Severity.INFO and finding.caused_by is None
    ]
    parts = [", ".join(found) or "no findings", *_measured(comparison)]
    verdict = report.verdict.value.upper()
    lines = wrap(visible("; ".join(parts)), width - 2 - LABEL - len(verdict) - 2)
    for number, line in enumerate(lines):
        head = pad(label if not number else "", LABEL)
        yield (
            ("  " + head, "label"),
            (pad(verdict if not number else "", len(verdict) + 2), _STYLE[report.verdict]),
            (line, ""),
        )


def _standing(finding: Finding) -> list[str]:
    return [finding.severity.value, *([many(len(finding.layers), "layer")] if finding.layers else [])]


def _measured(comparison: Comparison | None) -> Iterator[str]:
    if comparison is None:
        return
    accuracy = comparison.accuracy
    if accuracy.train is not None and accuracy.eval is not None:
        yield f"accuracy {accuracy.train:.1%} in train mode, {accuracy.eval:.1%} in eval mode"
    for output in comparison.outputs[:1]:
        if output.agreement is not None:
            floor = "" if output.agreement_floor is None else f" (batch noise alone: {output.agreement_floor:.1%})"
            yield f"top-1 agreement {output.agreement:.1%}{floor}"
        elif not math.isfinite(output.nmse):
            yield "output NaN or infinite"
        else:
            floor = "" if output.floor is None else f" (batch noise alone: {percent(output.floor)})"
            yield f"output off by {percent(output.nmse)}{floor}"


def _averages(report: RepairReport) -> str:
    sides = ["; ".join(_measured(side)) for side in (report.averaged_before, report.averaged_after) if side is not None]
    measured = f": before {sides[0]}; after {sides[1]}" if len(sides) == 2 else ""
    return f"the averaged weights got their own statistics in {many(len(report.averaged), 'layer')}{measured}"


def _ranges(report: RepairReport) -> str:
    counts = {kind: sum(r.rounds == kind for r in report.ranges) for kind in ("weights", "activations")}
    parts = [f"{count} of {kind}" for kind, count in counts.items() if count]
    return f"{' and '.join(parts)}, recorded again with the new statistics, for quantization-aware training"


def _noise(report: RepairReport) -> str:
    """Of the layer whose mean is least sure, and what would settle it; empty where nothing was halved."""
    known = [layer for layer in report.repaired if layer.mean_noise is not None]
    if not known:
        return ""
    worst = max(known, key=lambda layer: layer.mean_noise or 0.0)
    needed = report.judgement.samples_needed
    more = "" if needed is None else f"; about {needed:,} samples would settle the answers"
    return f"most in {worst.layer}: {_errors(worst)}{more}"


def _errors(layer: LayerRepair) -> str:
    return (
        f"standard error {layer.mean_noise:.2g} deviations of the mean, {layer.variance_noise:.2g} of the log variance"
    )


def _grouped(left: tuple[LayerLeft, ...]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for layer in left:
        groups.setdefault(layer.reason, []).append(layer.layer)
    return groups


def _layer(layer: LayerRepair) -> str:
    parts = [] if layer.variance_ratio is None else [f"variance x {layer.variance_ratio:.3g}"]
    parts += [] if layer.mean_noise is None else [_errors(layer)]
    parts += [f"{layer.clipped} channels set to 0"] if layer.clipped else []
    told = "" if layer.from_weights is None else f"mean predicted from the weights, {layer.from_weights:.2g} deviations"
    parts += [f"{told} from the average"] if told else []
    parts += [f"added {', '.join(layer.added)}"] if layer.added else []
    return f"{layer.layer}: {', '.join(parts) or 'new statistics'}"
