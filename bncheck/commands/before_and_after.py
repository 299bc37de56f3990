"""A model before its repair and after: what its files show, and, with data, what running it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bncheck.commands.inspect import inspect_checkpoint, inspect_model
from bncheck.compare.data.data import Data
from bncheck.compare.train_eval import measure, prepare
from bncheck.compare.twins.twins import open_twins
from bncheck.facts.errors import BncheckError
from bncheck.facts.findings import Meaning, Report, Verdict
from bncheck.facts.layers import Hints
from bncheck.facts.measurements import Comparison
from bncheck.judge.judge import judge
from bncheck.repair.estimate import DataOptions
from bncheck.settings.config import Settings
from bncheck.sources.raw import RawModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Judging:
    """How both sides are read and run."""

    hints: Hints
    graph: str | Path | None
    use_graph: bool
    options: DataOptions
    data: Data | None
    """None: nothing is run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """A model before or after."""

    report: Report
    """Of what the files show, unless eval mode was seen to be off."""
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()


def judged(
    how: Judging, path: Path, raw: RawModel, settings: Settings, progress: Callable[[int], None] = lambda _: None
) -> Side:
    """One side; that it cannot be run is a note. `progress` hears of the samples done. Raises ReadError."""
    inspected = _inspected(how, path, raw, settings)
    if how.data is None or not how.options.compare:
        return Side(report=inspected)
    try:
        prepared = prepare(raw, how.hints, how.options)
        with open_twins(prepared.forward) as twins:
            comparison = measure(twins, prepared, how.data, how.data.facts, progress=progress)
    except BncheckError as error:
        return Side(report=inspected, notes=(f"train mode was not compared with eval mode: {error}",))
    measured = judge(replace(prepared.facts, comparison=comparison), settings=settings)
    off = any(Meaning.OUTPUT_DIFFERS in finding.rule.meaning for finding in measured.findings)
    off = off or measured.verdict is Verdict.FAIL
    return Side(report=measured if off else inspected, comparison=comparison)


def _inspected(how: Judging, path: Path, raw: RawModel, settings: Settings) -> Report:
    if raw.format.is_checkpoint:
        return inspect_checkpoint(path, graph=how.graph, use_graph=how.use_graph, **vars(how.hints), settings=settings)
    return inspect_model(path, **vars(how.hints), settings=settings)
