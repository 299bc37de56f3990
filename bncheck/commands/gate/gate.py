"""`bncheck gate`: a path becomes one verdict, through as many stages as its inputs allow."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncheck.commands.gate.budget import Budget
from bncheck.commands.gate.earlier_model import Earlier, is_report, of_report, read_report
from bncheck.commands.gate.plan import Measuring, Ran, Target
from bncheck.commands.gate.stages import AGAINST, MODES, QUANTIZED, STATIC, UNDECIDED, Progress, fatal, with_stages
from bncheck.commands.inspect import hints_of
from bncheck.facts.errors import NotFound, UsageError
from bncheck.facts.findings import Gate, NotChecked, Report, RuleFamily, Stage, StageState
from bncheck.facts.measurements import same_data, scores
from bncheck.judge.judge import judge
from bncheck.judge.not_checked import Asked
from bncheck.recognise import recognise
from bncheck.settings.config import Settings
from bncheck.settings.options import SYNTHETIC, CompareKeywords, CompareOptions, QuantizeOptions, given, shows_options
from bncheck.sources import is_beside, open_checkpoint, open_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

_DEFAULT = Settings()


@shows_options
def gate(
    path: str | Path,
    *,
    data: str | Path | None = None,
    quantized: str | Path | None = None,
    scheme: str | None = None,
    calibration_batches: int | None = None,
    quantize: bool = True,
    against: str | Path | None = None,
    max_time: float | None = None,
    max_memory: float | None = None,
    early_stop: bool = True,
    settings: Settings = _DEFAULT,
    progress: Progress = lambda _stage, _done, _total: None,
    **options: Unpack[CompareKeywords],
) -> Report:
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
    budget = Budget(started=time.monotonic(), max_time=max_time, max_memory=max_memory)
    _refuse(data, max_time, max_memory, against)
    other = QuantizeOptions(quantized=quantized, scheme=scheme, calibration_batches=calibration_batches)
    if not quantize and other != QuantizeOptions():
        raise UsageError("--no-quantize excludes --quantized, --scheme and --calibration-batches")
    asked = CompareOptions(**options)
    measuring = Measuring(
        data=None if data is None else str(data),
        options=asked,
        quantize=other if quantize else None,
        budget=budget,
        progress=progress,
    )
    old = None if against is None else _old(Path(against), replace(asked, graph=None))
    target = _read(path, asked, quantized=quantized)
    target = replace(target, facts=replace(target.facts, given=given(asked, data)))
    known = settings if old is None else replace(settings, known=old.earlier.known)
    may_stop = early_stop and data is not None
    stopped = fatal(judge(target.facts, settings=known, asked=target.asked)) if may_stop else ""
    ran = measuring.ran(target, stopped)
    stages = [_done(STATIC, target.seconds), *ran.stages]
    facts = ran.facts
    if old is not None:
        old, stage = _measured_old(old, measuring, ran)
        stages.append(stage)
        known = replace(settings, known=old.earlier.known)
        facts = replace(facts, before=old.earlier.before)
    report = judge(facts, settings=known, asked=target.asked)
    if old is not None:
        report = _held_against(report, old.earlier)
    return replace(
        with_stages(report, stages, settings),
        timing={stage.name: stage.seconds for stage in stages if stage.seconds is not None},
        gate=Gate(
            stages=tuple(stages),
            against=None if against is None else str(against),
            max_time=max_time,
            max_memory=max_memory,
            seconds=budget.seconds,
            peak_memory=ran.peak_memory,
        ),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Old:
    """The earlier model; without a target where only its report is at hand."""

    earlier: Earlier
    target: Target | None = None


def _refuse(
    data: str | Path | None, max_time: float | None, max_memory: float | None, against: str | Path | None
) -> None:
    """Raises for what would otherwise be found only after the first stage, or not at all where that ends the gate."""
    for name, limit in (("max-time", max_time), ("max-memory", max_memory)):
        if limit is not None and not limit > 0:
            raise UsageError(f"--{name} is {limit:g}: it must be greater than 0")
    if data is not None and str(data) != SYNTHETIC and not Path(data).exists():
        raise NotFound(data, "no such file or folder")
    if against is not None and str(against) == "":
        raise UsageError("--against is empty: give an earlier model, or the JSON report of one")


def _read(path: str | Path, options: CompareOptions, *, quantized: str | Path | None = None) -> Target:
    """The files: the model's, and what was folded into the TFLite file that was made of it."""
    start = time.perf_counter()
    hints = hints_of(options.decay, options.steps, options.train_ops)
    read = open_checkpoint if is_beside(Path(path)) else open_model
    graph = None if options.graph is None else Path(options.graph)
    raw = read(Path(path), graph=graph, use_graph=options.use_graph)
    facts = recognise(raw, hints)
    if quantized is not None:
        lite = open_model(Path(quantized), graph=None, use_graph=False)
        if lite.lite is None:
            raise UsageError(f"{quantized}: {lite.format}, not a TFLite file: --quantized takes one")
        if raw.lite is None:
            from bncheck.foldproof.prove import prove  # noqa: PLC0415 - only with --quantized

            facts = replace(facts, fold=prove(raw, lite, facts=facts))
    return Target(
        path=str(path),
        graph=graph,
        facts=facts,
        asked=Asked(use_graph=options.use_graph),
        seconds=time.perf_counter() - start,
    )


def _done(name: str, seconds: float | None = None) -> Stage:
    return Stage(name=name, state=StageState.DONE, seconds=seconds)


def _old(path: Path, options: CompareOptions) -> _Old:
    """The earlier model, judged by its report or its files."""
    if is_report(path):
        return _Old(earlier=read_report(path))
    target = _read(path, options)
    return _Old(earlier=of_report(judge(target.facts, asked=target.asked), str(path)), target=target)


def _measured_old(old: _Old, measuring: Measuring, new: Ran) -> tuple[_Old, Stage]:
    """The earlier model, run like the one that is judged, as far as that was; its report tells what it tells."""
    done = [stage.name for stage in new.stages if stage.state is StageState.DONE]
    if old.target is None or not done:
        return old, _done(AGAINST)
    start = time.perf_counter()
    try:
        ran = replace(measuring, quantize=_of_old(measuring.quantize) if QUANTIZED in done else None).ran(old.target)
    except UsageError as error:
        # options that fit the new model need not fit the old one: what is known of the new one must not get lost
        return old, Stage(name=AGAINST, state=StageState.IMPOSSIBLE, why=_about(old, str(error)))
    seconds = time.perf_counter() - start
    earlier = of_report(judge(ran.facts, asked=old.target.asked), old.earlier.path)
    failed = next((stage for stage in ran.stages if stage.state in UNDECIDED), None)
    stage = _done(AGAINST, seconds)
    if failed is not None:
        stage = replace(failed, name=AGAINST, why=_about(old, failed.why))
    return replace(old, earlier=earlier), stage


def _about(old: _Old, why: str) -> str:
    """A sentence that names the earlier model."""
    return why if why.startswith(old.earlier.path) else f"{old.earlier.path}: {why}"


def _of_old(quantize: QuantizeOptions | None) -> QuantizeOptions | None:
    """A quantized file is the new model's, so the old one is not compared with it; a conversion fits both."""
    return quantize if quantize is not None and quantize.quantized is None else None


def _held_against(report: Report, earlier: Earlier) -> Report:
    """The report, with what got better, and what could not be held against the earlier model."""
    entries = []
    for what, now, then in (
        (MODES, scores(report.comparison), earlier.before.modes),
        (QUANTIZED, scores(report.quantized), earlier.before.quantized),
    ):
        if now is None or (then is not None and same_data(now, then)):
            continue
        why = f"{earlier.path} was not measured so" if then is None else f"{earlier.path} was measured on {then.data}"
        entries.append(
            NotChecked(what=f"whether {what} became worse", why=why, how="--against the earlier model itself")
        )
    found = {finding.code for finding in (*report.findings, *(entry.finding for entry in report.suppressed))}
    judged = {rule.code for rule in report.rules if rule.family is not RuleFamily.COVERAGE}
    faults = {known.code for known in earlier.known if known.severity != "info"}
    gone = sorted(faults & judged - found)
    notes = (f"better than {earlier.path}: {', '.join(gone)} no longer found",) if gone else ()
    return replace(
        report,
        target=replace(report.target, notes=(*report.target.notes, *notes)),
        not_checked=(*report.not_checked, *entries),
    )
