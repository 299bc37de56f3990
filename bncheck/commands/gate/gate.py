"""`bncheck gate`: a path becomes one verdict, through as many stages as its inputs allow."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from bncheck.commands.gate.budget import Budget
from bncheck.commands.gate.earlier_model import Earlier, is_report, of_report, read_report
from bncheck.commands.gate.plan import Measuring, Ran
from bncheck.commands.gate.stages import UNDECIDED, fatal, with_stages
from bncheck.commands.target import (
    Target,
    read_quantized,
    read_target,
    refuse_two_networks,
    with_chosen_weights,
)
from bncheck.facts.errors import UsageError
from bncheck.facts.findings import Gate, NotChecked, Report, RuleFamily, Stage, StageName, StageState
from bncheck.facts.measurements import same_data, scores
from bncheck.judge.judge import judge
from bncheck.settings.keywords import takes
from bncheck.settings.options import CommandName, Options


@takes(Options, CommandName.GATE)
def gate(path: str | Path, options: Options) -> Report:
    """Judges a model by its files, then, with `data`, by running it; one verdict, whatever the stages were.

    With data the model is run in both modes and quantized: by `scheme` ("int8"), or as the TFLite file `quantized`
    that was made of it; `quantize=False` leaves that out. It runs in a process of its own, after the files were judged
    and only where no fault leaves nothing to run (`early_stop=False`: even then). `against` is an earlier model, or
    the JSON report of one: what it had is accepted, what became worse fails. `max_time` (seconds, of the whole) and
    `max_memory` (megabytes, of the process that runs the model) end it: what was found until then stands, and what was
    left out makes a pass inconclusive, as does a stage that could not run. The other options are those of
    `compare_float_vs_quantized`.

    Raises ReadError where a file cannot be read (NoModel: nothing there), UsageError for what does not fit together.
    """
    budget = Budget(started=time.monotonic(), max_time=options.max_time, max_memory=options.max_memory)
    _refuse(options)
    settings, against = options.settings, options.against
    measuring = Measuring(options=options, budget=budget, progress=options.progress)
    old = None if against is None else _old(Path(against), replace(options, graph=None, quantized=None))
    target, seconds = _read(path, options)
    known = settings if old is None else replace(settings, known=old.earlier.known)
    may_stop = options.early_stop and options.data is not None
    stopped = fatal(judge(target.facts, settings=known)) if may_stop else ""
    ran = measuring.ran(target, stopped)
    stages = [_done(StageName.STATIC, seconds), *ran.stages]
    facts = ran.facts
    if old is not None:
        old, stage = _measured_old(old, measuring, ran)
        stages.append(stage)
        known = replace(settings, known=old.earlier.known)
        facts = replace(facts, before=old.earlier.before)
    report = judge(facts, settings=known)
    if old is not None:
        report = _held_against(report, old.earlier)
    return replace(
        with_stages(report, stages, settings),
        timing={stage.name: stage.seconds for stage in stages if stage.seconds is not None},
        gate=Gate(
            stages=tuple(stages),
            against=None if against is None else str(against),
            max_time=options.max_time,
            max_memory=options.max_memory,
            seconds=budget.seconds,
            peak_memory=ran.peak_memory,
        ),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Old:
    """The earlier model; without a target where only its report is at hand."""

    earlier: Earlier
    target: Target | None = None


def _refuse(options: Options) -> None:
    """Raises for what would otherwise be found only after the first stage, or not at all where that ends the gate."""
    if not options.quantize and (options.quantized or options.scheme or options.calibration_batches) is not None:
        raise UsageError("--no-quantize excludes --quantized, --scheme and --calibration-batches")
    for name, limit in (("max-time", options.max_time), ("max-memory", options.max_memory)):
        if limit is not None and not limit > 0:
            raise UsageError(f"--{name} is {limit:g}: it must be greater than 0")
    if options.against is not None and str(options.against) == "":
        raise UsageError("--against is empty: give an earlier model, or the JSON report of one")
    if options.data is not None:
        from bncheck.compare.data.first_look import look_at  # noqa: PLC0415 - only where a model is run

        look_at(options)
        refuse_two_networks(options)
    if options.model is not None:
        from bncheck.backbones.registry import parse  # noqa: PLC0415 - as above

        parse(options.model)


def _read(path: str | Path, options: Options) -> tuple[Target, float]:
    """The files, and the seconds that they took: the model's, and what was folded into the TFLite file made of it."""
    start = time.perf_counter()
    target = with_chosen_weights(read_target(path, options))
    facts, lite = target.facts, read_quantized(options)
    if lite is not None and target.raw.lite is None:
        from bncheck.foldproof.prove import prove  # noqa: PLC0415 - only with --quantized

        facts = replace(facts, fold=prove(target.raw, lite, facts=facts))
    return replace(target, known=facts), time.perf_counter() - start


def _done(name: StageName, seconds: float | None = None) -> Stage:
    return Stage(name=name, state=StageState.DONE, seconds=seconds)


def _old(path: Path, options: Options) -> _Old:
    """The earlier model, judged by its report or its files."""
    if is_report(path):
        return _Old(earlier=read_report(path))
    target, _ = _read(path, options)
    return _Old(earlier=of_report(judge(target.facts), str(path)), target=target)


def _measured_old(old: _Old, measuring: Measuring, new: Ran) -> tuple[_Old, Stage]:
    """The earlier model, run like the one that is judged, as far as that was; its report tells what it tells."""
    done = [stage.name for stage in new.stages if stage.state is StageState.DONE]
    if old.target is None or not done:
        return old, _done(StageName.AGAINST)
    start = time.perf_counter()
    try:
        ran = replace(measuring, options=_of_old(measuring.options, done)).ran(old.target)
    except UsageError as error:
        # options that fit the new model need not fit the old one: what is known of the new one must not get lost
        return old, Stage(name=StageName.AGAINST, state=StageState.IMPOSSIBLE, why=_about(old, str(error)))
    seconds = time.perf_counter() - start
    earlier = of_report(judge(ran.facts), old.earlier.path)
    failed = next((stage for stage in ran.stages if stage.state in UNDECIDED), None)
    stage = _done(StageName.AGAINST, seconds)
    if failed is not None:
        stage = replace(failed, name=StageName.AGAINST, why=_about(old, failed.why))
    return replace(old, earlier=earlier), stage


def _about(old: _Old, why: str) -> str:
    """A sentence that names the earlier model."""
    return why if why.startswith(old.earlier.path) else f"{old.earlier.path}: {why}"


def _of_old(options: Options, done: Collection[StageName]) -> Options:
    """A quantized file is the new model's, so the old one is not compared with it; a conversion fits both."""
    return replace(options, quantize=StageName.QUANTIZED in done and options.quantized is None)


def _held_against(report: Report, earlier: Earlier) -> Report:
    """The report, with what got better, and what could not be held against the earlier model."""
    entries = []
    for what, now, then in (
        (StageName.MODES, scores(report.comparison), earlier.before.modes),
        (StageName.QUANTIZED, scores(report.quantized), earlier.before.quantized),
    ):
        if now is None or (then is not None and same_data(now, then)):
            continue
        why = (
            f"{earlier.path} was not measured in this way"
            if then is None
            else f"{earlier.path} was measured on {then.data}"
        )
        entries.append(
            NotChecked(what=f"whether {what} became worse", why=why, how="--against the earlier model itself")
        )
    found = {finding.code for finding in (*report.findings, *(entry.finding for entry in report.suppressed))}
    judged = {rule.code for rule in report.rules if rule.family is not RuleFamily.COVERAGE}
    faults = {known.code for known in earlier.known if known.severity != "info"}
    gone = sorted(faults & judged - found)
    notes = (f"better than {earlier.path}: without {', '.join(gone)}",) if gone else ()
    return replace(
        report,
        target=replace(report.target, notes=(*report.target.notes, *notes)),
        not_checked=(*report.not_checked, *entries),
    )
