"""A model before its repair and after: what its files show, and, with data, what running it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bncheck.commands.measure import compared
from bncheck.commands.target import Target
from bncheck.compare.data.data import Data
from bncheck.compare.prepared import prepare
from bncheck.facts.errors import BncheckError
from bncheck.facts.findings import Meaning, Report, Verdict, leaves_open
from bncheck.facts.measurements import Comparison
from bncheck.judge.judge import judge
from bncheck.settings.config import Settings


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """A model before or after."""

    report: Report
    """Of what the files show, unless eval mode was seen to be off."""
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    """Why running it told nothing of the output: messages of the findings that leave the verdict open."""


def judged(
    files: Target, target: Target, data: Data | None, settings: Settings, progress: Callable[[int], None]
) -> Side:
    """One side; that it cannot be run is a note. `target` is what runs, `files` what is there without its network.

    No `data`: nothing is run. `progress` hears of the samples done.
    """
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    if data is not None and target.options.compare:
        try:
            prepared = prepare(target.raw, target.options)
            comparison = compared(target, prepared, data, lambda done, _: progress(done))
        except BncheckError as error:
            notes = (f"train mode was not compared with eval mode: {error}",)
    if comparison is not None:
        measured = judge(replace(prepared.facts, comparison=comparison), settings=settings)
        off = any(Meaning.OUTPUT_DIFFERS in finding.rule.meaning for finding in measured.findings)
        if off or measured.verdict is Verdict.FAIL:
            return Side(report=measured, comparison=comparison)
        doubts = tuple(f.message for f in measured.findings if leaves_open(f))
    return Side(report=judge(files.facts, settings=settings), comparison=comparison, notes=notes, doubts=doubts)
