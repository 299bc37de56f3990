"""Two models compared, for people: findings that came and went, then the layers that differ most."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TextIO

from bncheck.facts.findings import Report, Verdict
from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.difference import VECTORS, ComparedLayer, ComparedOperator, Difference, Matched
from bncheck.report.escape import visible
from bncheck.report.text.comparison import facts_lines, legend_lines, rest_line, table_lines
from bncheck.report.text.layout import LABEL, Line, columns, hanging, indented, write_lines
from bncheck.report.views.fold_proof import fold_lines
from bncheck.report.views.short_names import shortened, told_apart
from bncheck.report.views.story import verdict_told

ROWS = 8
"""Layers that are shown without --verbose."""
HEAD = ("changed", "mean moved", "variance", "fold off by")
LEGEND = (
    "mean moved: in standard deviations of the old statistics; variance: new over old; "
    "fold off by: the error that the new layer would have with the old multiplication and addition."
)
_TOLD = {
    Verdict.PASS: ("NOT WORSE", "pass"),
    Verdict.FAIL: ("WORSE", "error"),
    Verdict.INCONCLUSIVE: ("INCONCLUSIVE", "inconclusive"),
}


def write(difference: Difference, stream: TextIO, *, verbose: bool = False, quiet: bool = False) -> None:
    """A screen; every layer and every message with `verbose`, no layers with `quiet`."""
    write_lines(_lines(difference, columns(stream), verbose=verbose, quiet=quiet), stream)


def _lines(difference: Difference, width: int, *, verbose: bool, quiet: bool) -> Iterator[Line]:
    old, new = told_apart([difference.old.target.path, difference.new.target.path])
    told, style = _TOLD[difference.verdict]
    yield (told, style), (f"  {visible(old)} -> {visible(new)}", "label")
    if not quiet:
        yield from hanging("Old", _side(difference.old), width)
        yield from hanging("New", _side(difference.new), width)
    yield from _findings(difference, width, verbose=verbose, quiet=quiet)
    if not quiet:
        if difference.new.fold is None:
            yield from _layers(difference.layers, width, verbose=verbose)
            yield from _operators(difference.operators, width, verbose=verbose)
        yield from fold_lines(difference.new, width, verbose=verbose)
        yield ()
    counts = Counter(finding.severity.value for finding in difference.appeared)
    parts = [many(number, f"new {severity}") for severity, number in counts.items() if severity != "info"]
    yield ((" · ".join([*(parts or ["nothing is worse"]), f"exit {difference.exit_code}"]), "dim"),)


def _findings(difference: Difference, width: int, *, verbose: bool, quiet: bool) -> Iterator[Line]:
    told = [("New", finding) for finding in difference.appeared]
    told += [("Gone", finding) for finding in difference.disappeared]
    told += [("Both", finding) for finding in difference.same]
    if told and not quiet:
        yield ()
    for label, finding in told:
        new = label == "New"
        parts = [f"{finding.code} {finding.slug}", finding.severity.value]
        parts += [many(len(finding.layers), "layer")] if finding.layers else []
        yield (f"  {label:<{LABEL}}", finding.severity.value if new else "label"), (" · ".join(parts), "")
        if verbose or (new and not quiet):
            yield from indented(visible(finding.message), width, 2 + LABEL)


def _side(report: Report) -> str:
    parts = [verdict_told(report), report.target.format]
    if report.folded is None:
        parts.append(many(len(report.layers), "batch norm layer"))
    else:
        parts.append(many(report.folded, "operator") + " to fold into")
    if report.target.step is not None:
        parts.append(f"step {report.target.step:,}")
    return visible(" · ".join(filter(None, parts)))


def _layers(layers: Matched[ComparedLayer], width: int, *, verbose: bool) -> Iterator[Line]:
    if not layers.both and not layers.only_old and not layers.only_new:
        return
    yield ()
    yield ((f"Statistics of {many(len(layers.both), 'layer')} in both", "label"),)
    yield from facts_lines(list(_told(layers)), width)
    differing = [layer for layer in layers.both if layer.changed or layer.epsilon[0] != layer.epsilon[1]]
    shown = layers.both if verbose else _most_different(differing)
    if shown:
        title, short = shortened([layer.layer for layer in layers.both])
        yield from table_lines((title, *HEAD), [(short[one.layer], *_row(one)) for one in shown], width, bad="")
        yield from rest_line(0 if verbose else len(differing) - len(shown), "layer")
        yield from legend_lines(LEGEND, width)


def _told(layers: Matched[ComparedLayer]) -> Iterator[tuple[str, str]]:
    total = len(layers.both)
    if layers.by_position:
        yield "Matched", "by position: no name is in both"
    if total:
        changed = Counter(role for layer in layers.both for role in layer.changed)
        yield "Changed", ", ".join(f"{role} in {changed[role]}" for role in VECTORS if changed[role]) or "nothing"
    unread = sum(1 for layer in layers.both if layer.unread)
    if unread:
        yield "Unread", f"vectors of {many(unread, 'layer')}"
    for label, name in (("Epsilon", "epsilon"), ("Decay", "decay"), ("Channels", "channels")):
        pairs = Counter(getattr(layer, name) for layer in layers.both)
        told = [f"{_number(a)} -> {_number(b)} in {many(n, 'layer')}" for (a, b), n in pairs.items() if a != b]
        if told:
            yield label, listing(told)
    yield from _alone(layers)


def _alone(matched: Matched[ComparedLayer] | Matched[ComparedOperator]) -> Iterator[tuple[str, str]]:
    for label, names in (("Only old", matched.only_old), ("Only new", matched.only_new)):
        if names:
            yield label, listing(names)


def _most_different(layers: Sequence[ComparedLayer]) -> list[ComparedLayer]:
    """In forward order."""
    worst = sorted(layers, key=lambda layer: -_size(layer))[:ROWS]
    return [layer for layer in layers if any(layer is one for one in worst)]


def _size(layer: ComparedLayer) -> float:
    known = layer.mean_shift if layer.fold_error is None else layer.fold_error
    return 0.0 if known is None else math.inf if math.isnan(known) else known


def _row(layer: ComparedLayer) -> tuple[str, ...]:
    changed = "all four" if len(layer.changed) == 4 else ", ".join(layer.changed)
    return (
        changed,
        "" if layer.mean_shift is None else f"{layer.mean_shift:.3g}",
        "" if layer.variance_ratio is None else f"x {layer.variance_ratio:.3g}",
        "" if layer.fold_error is None else percent(layer.fold_error),
    )


def _operators(operators: Matched[ComparedOperator], width: int, *, verbose: bool) -> Iterator[Line]:
    if not operators.both and not operators.only_old and not operators.only_new:
        return
    yield ()
    yield ((f"Folded kernels of {many(len(operators.both), 'operator')} in both", "label"),)
    changed = [one for one in operators.both if one.kernel_change]
    known = [one for one in operators.both if one.kernel_change is not None]
    facts = [("Changed", f"{len(changed)} of {len(known)}")] if known else []
    facts += [("Matched", "by position: no name is in both")] if operators.by_position else []
    yield from facts_lines([*facts, *_alone(operators)], width)
    worst = sorted(changed, key=lambda one: -(one.kernel_change or 0.0))
    shown = operators.both if verbose else [one for one in changed if one in worst[:ROWS]]
    rows = [(one.operator, "", "" if one.kernel_change is None else percent(one.kernel_change)) for one in shown]
    if rows:
        yield from table_lines(("operator", "", "largest weights off by"), rows, width, bad="-")
        yield from rest_line(0 if verbose else len(changed) - len(shown), "operator")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"
