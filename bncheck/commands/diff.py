"""`bncheck diff`: what a new model has that an old one had not: findings, statistics, folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bncheck.commands.gate.earlier_model import is_report, of_report
from bncheck.commands.target import Target, read_target
from bncheck.facts.errors import UsageError
from bncheck.facts.findings import Report, Verdict
from bncheck.facts.layers import Facts
from bncheck.facts.lite import FoldedOperator
from bncheck.judge.judge import exit_code, judge
from bncheck.judge.suppress import BEFORE
from bncheck.numerics.difference import Difference, matched_layers, matched_operators
from bncheck.settings.config import Settings
from bncheck.settings.keywords import takes
from bncheck.settings.options import CommandName, Options
from bncheck.sources.models_in import models_in


@takes(Options, CommandName.DIFF)
def diff(old: str | Path, new: str | Path, options: Options) -> Difference:
    """Compares two models by their files: findings, statistics, and the multiplication and addition they fold to.

    The verdict is that of `gate(new, against=old)`: what the old model had is accepted. A TFLite or ONNX file and the
    model that it was converted from are compared by the proof of `inspect_model(new, reference=old)`. The verdict is
    inconclusive where no layer and no operator is in both.

    Raises ReadError where a file cannot be read (NoModel: nothing there), UsageError for a report, or a folder of
    several models, in the place of a model.
    """
    before, after = _read(old, options), _read(new, options)
    facts, settings = _with_fold(before, after), options.settings
    was, now = judge(before.facts, settings=_alone(settings)), judge(facts, settings=_alone(settings))
    worse = judge(facts, settings=replace(settings, known=of_report(was, str(old)).known))
    better = judge(before.facts, settings=replace(_alone(settings), known=of_report(now, str(new)).known))
    layers = matched_layers(was.layers, now.layers)
    operators = matched_operators(_operators(was), _operators(now))
    compared = layers.both or operators.both or (now.fold is not None and now.fold.layers)
    verdict = worse.verdict if compared or worse.verdict is Verdict.FAIL else Verdict.INCONCLUSIVE
    return Difference(
        old=was,
        new=now,
        verdict=verdict,
        exit_code=exit_code(verdict, settings),
        appeared=worse.findings,
        same=tuple(entry.finding for entry in worse.suppressed if entry.by == BEFORE),
        disappeared=better.findings,
        layers=layers,
        operators=operators,
    )


def _read(path: str | Path, options: Options) -> Target:
    if not str(path):
        raise UsageError("the path is empty: name a model")
    if is_report(Path(path)):
        raise UsageError(f"{path}: a report, not a model: `bncheck gate NEW --against {path}` compares with it")
    found = models_in([str(path)])
    if len(found) > 1:
        raise UsageError(f"{path} holds {len(found)} models: name one of them")
    return read_target(found[0].path, options)


def _operators(report: Report) -> tuple[FoldedOperator, ...]:
    return () if report.lite is None else report.lite.folded


def _alone(settings: Settings) -> Settings:
    """Of a model by itself: which rules take part and what is ignored, not what another run had."""
    return replace(settings, baseline=None, known=())


def _with_fold(old: Target, new: Target) -> Facts:
    """The facts of the new model; of a converted file with which of the old model's statistics it holds."""
    converted = new.raw.lite is not None or (new.raw.onnx is not None and not new.facts.layers)
    if not converted or old.raw.lite is not None or not old.facts.layers:
        return new.facts
    from bncheck.foldproof.prove import prove  # noqa: PLC0415 - only for a converted file

    return replace(new.facts, fold=prove(old.raw, new.raw, facts=old.facts))
