"""The stages of a gate, and the faults after which running the model could tell nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bncheck.facts.findings import Finding, Meaning, Report, Severity, Stage, StageState, Verdict, fails, not_run
from bncheck.judge.judge import exit_code
from bncheck.settings.config import Settings

UNDECIDED = (StageState.IMPOSSIBLE, StageState.OVER_BUDGET)
"""What was asked for and not judged: no pass."""


def fatal(report: Report) -> str:
    """Why running the model would tell nothing more, as the rest of a sentence; empty where it would.

    Most faults (updates never run, an init share too high) do not stop the gate: only running tells how much they cost,
    and that quantization is not to blame.
    """
    if any(Meaning.NO_BATCH_NORM in finding.rule.meaning for finding in report.findings):
        return "no batch norm was found"
    for finding in report.findings:
        if _ends(finding) and fails(finding, report.fail_on):
            return f"{finding.code} {finding.slug} decides: {finding.rule.ends_gate}"
    return ""


def _ends(finding: Finding) -> bool:
    if finding.severity is not Severity.ERROR or not finding.rule.ends_gate:
        return False
    return finding.ends_gate_for is None or not set(finding.ends_gate_for).isdisjoint(finding.layers)


def with_stages(report: Report, stages: Sequence[Stage], settings: Settings) -> Report:
    """The report with its stages: those that could not run are not checked, and no pass is left with them."""
    missing = [stage for stage in stages if stage.state is not StageState.DONE]
    about = {stage.name for stage in missing}
    others = [entry for entry in report.not_checked if entry.stage not in about]
    codes = {entry.stage: entry.codes for entry in report.not_checked}
    entries = [not_run(stage.name, stage.why, stage.how, codes.get(stage.name, ())) for stage in missing]
    undecided = next((stage for stage in stages if stage.state in UNDECIDED), None)
    judged = replace(report, not_checked=(*others, *entries))
    if undecided is None or report.verdict is not Verdict.PASS:
        return judged
    return replace(
        judged,
        verdict=Verdict.INCONCLUSIVE,
        exit_code=exit_code(Verdict.INCONCLUSIVE, settings),
        headline=f"{undecided.name} was not judged: {undecided.why}",
    )


Progress = Callable[[str, int, "int | None"], None]
"""Hears of the stage that runs, the samples done, and how many there will be; None unknown."""
