"""The report for people: the worst first, each cause told with what follows from it, then what was not checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TextIO

from bncheck.facts.findings import Finding, Report, RuleFamily, Severity, Verdict
from bncheck.facts.wording import many
from bncheck.report.escape import visible, visible_lines
from bncheck.report.text.layout import LABEL, Line, cells, columns, cut, hanging, pad, wrap, write_lines
from bncheck.report.views.layers import layer_table, shares
from bncheck.report.views.story import SEVERITIES, Story, counts, standing, stories, verdict_told

LAYERS_NAMED = 3
"""Layers of a finding that are named without --verbose."""
FIX_LINES = 12
"""Lines of a fix that are shown without --verbose; `explain` shows the whole page."""

_SEEN = {
    RuleFamily.STATISTICS: "Seen in the values too",
    RuleFamily.WIRING: "Seen in the graph too",
    RuleFamily.MODES: "Measured",
    RuleFamily.QUANTIZATION: "Seen in the fold too",
}

_VERDICT_STYLE = {Verdict.PASS: "pass", Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "inconclusive"}


def write(report: Report, stream: TextIO, *, verbose: bool = False, quiet: bool = False) -> None:
    """Writes one report: a screen for 52 layers; all layers with `verbose`, one line a finding with `quiet`."""
    write_lines(_report(report, columns(stream), verbose=verbose, quiet=quiet), stream)


def write_run(reports: Sequence[Report], stream: TextIO, *, verbose: bool = False, quiet: bool = False) -> None:
    """Writes a table of all checkpoints, and in full the last one that has something to tell."""
    width = columns(stream)
    lines = list(_run_table(reports, width))
    last = next((r for r in reversed(reports) if r.verdict is not Verdict.PASS and not r.unreadable), reports[-1])
    if not quiet:
        for report in reports if verbose else [last]:
            lines += [(), *_report(report, width, verbose=verbose, quiet=False)]
    write_lines(lines, stream)


def _report(report: Report, width: int, *, verbose: bool, quiet: bool) -> Iterator[Line]:
    yield from _headline(report, width)
    told = stories(report)
    if quiet:
        for story in told:
            yield from _one_line(story, report, width)
        yield from _tail(report, width, told, quiet=True)
        return
    yield from _stages(report, width)
    for note in report.target.notes:
        yield from hanging("Note", visible(note), width, indent=2)
    for story in told:
        if story.severity is Severity.INFO and not verbose:
            continue
        yield ()
        yield from _story(story, report, width, verbose=verbose)
    minor = [story for story in told if story.severity is Severity.INFO and not verbose]
    if minor:
        yield ()
        for story in minor:
            yield from _one_line(story, report, width)
    yield from _measured(report, width, verbose=verbose)
    if verbose:
        yield from _verbose_parts(report, width)
    yield ()
    yield from _tail(report, width, told, quiet=False, verbose=verbose)


def _measured(report: Report, width: int, *, verbose: bool) -> Iterator[Line]:
    """What running the model showed; most inspections run none, and load nothing to tell of it."""
    if report.quantized is not None:
        from bncheck.report.text.quantized import quantized_lines  # noqa: PLC0415 - start-up

        yield from quantized_lines(report, width, verbose=verbose)
    if report.comparison is not None:
        from bncheck.report.text.comparison import comparison_lines  # noqa: PLC0415 - start-up

        yield from comparison_lines(report, width, verbose=verbose)
    if report.fold is not None:
        from bncheck.report.views.fold_proof import fold_lines  # noqa: PLC0415 - start-up

        yield from fold_lines(report, width, verbose=verbose)


def _headline(report: Report, width: int) -> Iterator[Line]:
    target = report.target
    parts = [visible(PurePath(target.path).name or target.path), visible(target.format)]
    if report.folded is not None:
        parts.append(many(report.folded, "operator") + " to fold into")
    elif not report.unreadable:
        parts.append(many(len(report.layers), "batch norm layer"))
    if target.step is not None:
        parts.append(f"step {target.step:,}")
    verdict = verdict_told(report)
    lines = _wrap_parts(parts, width - len(verdict) - 2)
    yield (verdict, _VERDICT_STYLE[report.verdict]), ("  " + lines[0], "label")
    for line in lines[1:]:
        yield ((" " * (len(verdict) + 2) + line, "label"),)
    told_below = any(finding.message == report.headline for finding in report.findings)
    if report.headline and not told_below:
        yield from _indented(visible(report.headline), width, 2)


def _stages(report: Report, width: int) -> Iterator[Line]:
    if report.gate is not None:
        from bncheck.report.views.gate import stages_told  # noqa: PLC0415 - start-up

        parts = _wrap_parts([visible(part) for part in stages_told(report.gate)], width - 2 - LABEL)
        yield from (((f"  {pad('' if n else 'Stages', LABEL)}", "label"), (line, "")) for n, line in enumerate(parts))


def _story(story: Story, report: Report, width: int, *, verbose: bool) -> Iterator[Line]:
    cause = story.cause
    yield from _title(story, report, width)
    yield from _indented(visible(cause.message), width, 2)
    for finding in story.explained:
        severity = "" if finding.severity is cause.severity else f", {finding.severity.value}"
        opening = f"{_seen(cause, finding)} ({finding.code} {finding.slug}{severity}): "
        yield from _indented(opening + visible(finding.message), width, 2)
    alone = len(cause.layers) <= 1 and cause.location not in cause.layers
    if cause.location and alone and cause.location not in cause.message:
        yield from hanging("At", visible(cause.location), width)
    yield from _named_layers(story, report, width, verbose=verbose)
    if verbose:
        yield from _measurements(story, width)
    if cause.why:
        yield from hanging("Effect", visible(cause.why), width)
    yield from _fix(cause, width, verbose=verbose)


def _title(story: Story, report: Report, width: int) -> Iterator[Line]:
    finding = story.cause
    rest = _of_layers(finding, report)
    doubt = "" if finding.confidence.value == "high" else f" · {finding.confidence.value} confidence"
    name, severity, style = f"{finding.code} {finding.slug}", standing(story), story.severity.value
    if cells(f"{name} · {severity}{rest}{doubt}") <= width:
        yield (name, "label"), (" · ", ""), (severity, style), (rest + doubt, "")
        return
    yield ((name, "label"),)
    yield ("  ", ""), (severity, style), (rest, "")
    if doubt:
        yield from _indented(doubt.removeprefix(" · "), width, 2)


def _of_layers(finding: Finding, report: Report) -> str:
    if not finding.layers:
        return ""
    found, total = len(finding.layers), len(report.layers)
    return f" · {found} of {many(total, 'layer')}" if total >= found else f" · {many(found, 'place')}"


def _seen(cause: Finding, finding: Finding) -> str:
    family = finding.rule.family
    if family is RuleFamily.QUANTIZATION and finding.rule.measured:
        return "Measured, quantized"
    return "With it" if family is cause.rule.family else _SEEN.get(family, "Seen too")


def _named_layers(story: Story, report: Report, width: int, *, verbose: bool) -> Iterator[Line]:
    finding = story.cause
    names = [visible(name) for name in finding.layers]
    if not names or (len(names) == len(report.layers) and not verbose and len(names) > LAYERS_NAMED):
        return
    shown = names if verbose or len(names) <= LAYERS_NAMED + 1 else names[:LAYERS_NAMED]
    told = " ".join(f.message for f in (finding, *story.explained))
    if not verbose and all(name in told for name in finding.layers[: len(shown)]):
        return
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    yield from hanging("Layers" if len(names) > 1 else "Layer", ", ".join(shown) + more, width)


def _measurements(story: Story, width: int) -> Iterator[Line]:
    for finding in (story.cause, *story.explained):
        for m in finding.evidence:
            value = f"{m.value:.6g}" if isinstance(m.value, float) else visible(str(m.value))
            limit = "" if m.limit is None else f" (limit {m.limit:.6g})"
            text = f"{visible(m.name)} = {value}{' ' + m.unit if m.unit else ''}{limit}"
            yield from hanging(finding.code, text, width)


def _fix(finding: Finding, width: int, *, verbose: bool) -> Iterator[Line]:
    """Prose wrapped, code lines (those indented) as they are."""
    lines = list(_fix_lines(finding.fix, width - 2 - LABEL))
    shown = lines if verbose or len(lines) <= FIX_LINES + 2 else lines[:FIX_LINES]
    while shown and not shown[-1][0]:
        shown.pop()
    for number, (text, style) in enumerate(shown):
        label = "Fix" if number == 0 else ""
        if not text:
            yield ()
            continue
        yield ("  " + pad(label, LABEL), "label"), (text, style)
    if len(shown) < len([line for line in lines if line[0]]) and len(shown) < len(lines):
        yield ("  " + " " * LABEL, ""), (f"... the rest: bncheck explain {finding.code}", "dim")


def _fix_lines(fix: str, width: int) -> Iterator[tuple[str, str]]:
    prose: list[str] = []
    lines = visible_lines(fix.strip("\n"))
    # an empty line between a sentence that ends in a colon and its code costs a screen its last lines
    kept = [line for n, line in enumerate(lines) if line.strip() or not lines[n - 1].endswith(":")]
    for line in [*kept, ""]:
        if line[:1].isspace() or not line:
            if prose:
                yield from ((text, "") for text in wrap(" ".join(prose), width))
                prose = []
            yield (line.rstrip(), "code")
        else:
            prose.append(line)


def _one_line(story: Story, report: Report, width: int) -> Iterator[Line]:
    cause = story.cause
    head = f"{cause.code} {cause.slug} · {standing(story)}{_of_layers(cause, report)}: "
    first, *rest = wrap(head + visible(cause.message), width - 2)
    style = story.severity.value
    yield (first[: len(cause.code)], style), (first[len(cause.code) :], "")
    shown = [rest[0], cut(rest[1], width - 6) + " ..."] if rest[2:] else rest
    for line in shown:
        yield (("  " + line, ""),)


def _verbose_parts(report: Report, width: int) -> Iterator[Line]:
    if report.suppressed:
        yield ()
        yield (("Suppressed", "label"),)
        for entry in report.suppressed:
            text = f"{entry.finding.code} {entry.finding.slug}{_of_layers(entry.finding, report)}: {visible(entry.by)}"
            yield from _indented(text, width, 2)
    if report.layers:
        yield ()
        yield from layer_table(report, width)
    if report.timing:
        yield ()
        yield (("Timing   " + ", ".join(f"{k} {v * 1e3:.0f} ms" for k, v in report.timing.items()), "dim"),)


def _tail(report: Report, width: int, told: Sequence[Story], *, quiet: bool, verbose: bool = False) -> Iterator[Line]:
    number = counts(report)
    parts = [f"{number[s.value]} {_plural(s.value, number[s.value])}" for s in SEVERITIES if number[s.value]]
    parts = parts or ["nothing found"]
    if number["suppressed"]:
        parts.append(f"{number['suppressed']} suppressed")
    if not quiet:
        parts.append("checked: " + (", ".join(report.checked) or "nothing"))
        if report.not_checked:
            parts.append("not checked: " + "; ".join(f"{n.what} ({n.why})" for n in report.not_checked))
    if verbose and report.configuration is not None:
        parts.append(f"configuration: {report.configuration}")
    if report.fail_on != "error":
        parts.append(f"--fail-on {report.fail_on}")
    parts.append(f"exit {report.exit_code}")
    if told and not quiet:
        parts.append(f"bncheck explain {told[0].cause.code}")
    yield from (((line, "dim"),) for line in _wrap_parts([visible(part) for part in parts], width))
    if not quiet:
        hows = [f"{n.what}: {n.how}" for n in report.not_checked if n.how]
        for how in hows:
            yield from hanging("To check", visible(how), width, indent=0)


def _plural(severity: str, count: int) -> str:
    return severity if count == 1 or severity == "info" else severity + "s"


def _wrap_parts(parts: list[str], width: int) -> list[str]:
    """Parts joined by dots, broken between parts where that fits, else between words."""
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]} · {part}" if lines else part
        if lines and cells(joined) <= width:
            lines[-1] = joined
        else:
            lines += wrap(part, width)
    return lines


def _run_table(reports: Sequence[Report], width: int) -> Iterator[Line]:
    rows = [_run_row(report) for report in reports]
    head = ("checkpoint", "step", "verdict", "moved", "init share", "findings")
    widths = [max(cells(row[n]) for row in (head, *rows)) for n in range(5)]
    widths[0] = min(widths[0], max(12, width - sum(widths[1:]) - 5 * 2 - 12))
    left = width - sum(widths) - 10
    yield (("  ".join(pad(h, w) for h, w in zip(head, [*widths, 0], strict=True)).rstrip(), "label"),)
    for row, report in zip(rows, reports, strict=True):
        name = row[0] if cells(row[0]) <= widths[0] else cut(row[0], widths[0] - 1) + "…"
        middle = "  ".join(pad(c, w, right=True) for c, w in zip(row[1:2], widths[1:2], strict=True))
        first, *rest = wrap(row[5], max(12, left))
        yield (
            (f"{pad(name, widths[0])}  {middle}  ", ""),
            (pad(row[2], widths[2]), _VERDICT_STYLE[report.verdict]),
            (f"  {pad(row[3], widths[3])}  {pad(row[4], widths[4])}  {first}", ""),
        )
        for line in rest:
            yield ((" " * (width - max(12, left)) + line, ""),)


def _run_row(report: Report) -> tuple[str, str, str, str, str, str]:
    moved = [layer.moved for layer in report.layers]
    known = [m for m in moved if m is not None]
    left = [one.share for one in shares(report).values()]
    codes = list(dict.fromkeys(story.cause.code for story in stories(report) if story.severity is not Severity.INFO))
    unread = visible(report.headline) if report.unreadable else ""
    return (
        visible(PurePath(report.target.path).name),
        "" if report.target.step is None else f"{report.target.step:,}",
        report.verdict.value,
        f"{sum(known)}/{len(known)}" if known else "",
        f"{max(left):.1%}" if left else "",
        unread or ", ".join(codes) or "none",
    )


def _indented(text: str, width: int, indent: int) -> Iterator[Line]:
    for line in wrap(text, width - indent):
        yield ((" " * indent + line, ""),)
