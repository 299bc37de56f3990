"""The report for people: verdict, causes and their fixes, the worst first, then what was not checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

from bncheck.facts.findings import NotChecked, Report, Severity, Verdict
from bncheck.facts.training_run import RunStory
from bncheck.facts.wording import many
from bncheck.report.escape import visible
from bncheck.report.text.findings import of_layers, sentence_lines, story_lines
from bncheck.report.text.layout import LABEL, Line, cells, columns, hanging, indented, pad, wrap, write_lines
from bncheck.report.views.layers import layer_table
from bncheck.report.views.short_names import told_apart
from bncheck.report.views.story import SEVERITIES, Story, counts, stories, verdict_told

_VERDICT_STYLE = {Verdict.PASS: "pass", Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "inconclusive"}


def write(report: Report, stream: TextIO, *, verbose: bool = False, quiet: bool = False) -> None:
    """Writes one report: a screen for 52 layers; everything with `verbose`, one sentence a finding with `quiet`."""
    write_models([report], stream, verbose=verbose, quiet=quiet)


def write_models(reports: Sequence[Report], stream: TextIO, *, verbose: bool = False, quiet: bool = False) -> None:
    """Writes reports that have nothing to do with each other, one below the other, under names that tell them apart."""
    width = columns(stream)
    names = told_apart([report.target.path for report in reports])
    for number, (report, name) in enumerate(zip(reports, names, strict=True)):
        lines = _report(report, width, name, verbose=verbose, quiet=quiet)
        write_lines([(), *lines] if number else lines, stream)


def write_run(reports: Sequence[Report], stream: TextIO, *, verbose: bool = False, quiet: bool = False) -> None:
    """Writes the story of each run, a table of its checkpoints, and in full the last one that has something to tell."""
    from bncheck.report.text.training_run import run_lines, run_table  # noqa: PLC0415 - only for runs
    from bncheck.report.views.training_run import told_runs  # noqa: PLC0415 - as above

    width = columns(stream)
    lines: list[Line] = []
    told: Sequence[tuple[RunStory | None, list[Report]]] = told_runs(reports) or [(None, list(reports))]
    for story, of_run in told:
        names = told_apart([report.target.path for report in of_run])
        lines += [()] if lines else []
        if story is not None and not quiet:
            lines += [*run_lines(story, of_run, width), ()]
        lines += run_table(of_run, names, width, verbose=verbose)
        last = _worth_telling(of_run)
        for report, name in zip(of_run, names, strict=True):
            if not quiet and (verbose or report is last):
                lines += [(), *_report(report, width, name, verbose=verbose, quiet=False)]
    write_lines(lines, stream)


def _worth_telling(reports: Sequence[Report]) -> Report:
    """The last one that has something to tell, else the last."""
    known = [report for report in reversed(reports) if not report.unreadable]
    return next((report for report in known if _has_to_tell(report)), reports[-1])


def _has_to_tell(report: Report) -> bool:
    return report.verdict is not Verdict.PASS or any(f.severity is not Severity.INFO for f in report.findings)


def _report(report: Report, width: int, name: str, *, verbose: bool, quiet: bool) -> Iterator[Line]:
    yield from _headline(report, name, width)
    told = stories(report)
    if quiet:
        for story in told:
            yield from sentence_lines(story, report, width)
        yield from _tail(report, width, told, quiet=True)
        return
    yield from _stages(report, width)
    for note in report.target.notes:
        yield from hanging("Note", visible(note), width, indent=2)
    for story in told:
        if story.severity is Severity.INFO and not verbose:
            continue
        yield ()
        yield from story_lines(story, report, width, verbose=verbose)
    minor = [story for story in told if story.severity is Severity.INFO and not verbose]
    if minor:
        yield ()
        for story in minor:
            yield from sentence_lines(story, report, width)
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


def _headline(report: Report, name: str, width: int) -> Iterator[Line]:
    target = report.target
    parts = [visible(name), visible(target.format)]
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
        yield from indented(visible(report.headline), width, 2)


def _stages(report: Report, width: int) -> Iterator[Line]:
    if report.gate is not None:
        from bncheck.report.views.gate import stages_told  # noqa: PLC0415 - start-up

        parts = _wrap_parts([visible(part) for part in stages_told(report.gate)], width - 2 - LABEL)
        yield from (((f"  {pad('' if n else 'Stages', LABEL)}", "label"), (line, "")) for n, line in enumerate(parts))


def _verbose_parts(report: Report, width: int) -> Iterator[Line]:
    if report.suppressed:
        yield ()
        yield (("Suppressed", "label"),)
        for entry in report.suppressed:
            text = f"{entry.finding.code} {entry.finding.slug}{of_layers(entry.finding, report)}: {visible(entry.by)}"
            yield from indented(text, width, 2)
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
    found = any(story.severity is not Severity.INFO for story in told)
    if not quiet and (verbose or not found):
        parts.append("checked: " + (", ".join(report.checked) or "nothing"))
    if verbose and report.configuration is not None:
        parts.append(f"configuration: {report.configuration}")
    if report.fail_on != "error":
        parts.append(f"--fail-on {report.fail_on}")
    parts.append(f"exit {report.exit_code}")
    if told and not quiet:
        parts.append(f"more: {'' if verbose else '--verbose, '}bncheck explain {told[0].cause.code}")
    yield from (((line, "dim"),) for line in _wrap_parts([visible(part) for part in parts], width))
    if quiet or not report.not_checked:
        return
    if verbose or (report.verdict is Verdict.INCONCLUSIVE and not found):
        for entry in report.not_checked:
            yield from _unchecked(entry, width, verbose=verbose)
        return
    # how to check the rest is for whoever asks, or for a report that says nothing else
    how = "" if found else " (how: --verbose)"
    yield from indented("Not checked: " + ", ".join(visible(n.what) for n in report.not_checked) + how, width, 0)


def _unchecked(entry: NotChecked, width: int, *, verbose: bool) -> Iterator[Line]:
    """What was not checked, and how to have it checked: a command on a line of its own, as it is."""
    how, why = visible(entry.how), f" ({visible(entry.why)})" if verbose or not entry.how else ""
    head = f"Not checked: {visible(entry.what)}{why}"
    if not how.startswith("bncheck "):
        yield from (
            (("  " * bool(n) + line, ""),) for n, line in enumerate(wrap(f"{head}: {how}" if how else head, width - 2))
        )
        return
    yield from indented(head, width, 0)
    yield ((f"    {how}", "code"),)


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
