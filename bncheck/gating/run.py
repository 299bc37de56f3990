"""`bncheck gate`: a path becomes one verdict, through as many stages as its inputs allow."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bncheck.check import hints_of
from bncheck.config import Settings
from bncheck.errors import NotFound, UsageError
from bncheck.finding import Gate, NotChecked, Report, Stage, StageState
from bncheck.gating.isolated import Budget, Outcome, run
from bncheck.gating.ratchet import Earlier, is_report, of_report, read_report
from bncheck.gating.stages import AGAINST, MODES, QUANTIZED, STATIC, Progress, fatal, left_out, with_stages
from bncheck.gating.worker import Request
from bncheck.judge import judge
from bncheck.measured import same_data, scores
from bncheck.model import Facts
from bncheck.not_checked import Asked
from bncheck.recognise import recognise
from bncheck.sources import is_beside, open_checkpoint, open_model

_DEFAULT = Settings()
_SYNTHETIC = "synthetic"
_LARGER = "raise the limit, or give less data (--batches)"


def gate(
    path: str | Path,
    *,
    data: str | Path | None = None,
    against: str | Path | None = None,
    max_time: float | None = None,
    max_memory: float | None = None,
    early_stop: bool = True,
    graph: str | Path | None = None,
    use_graph: bool = True,
    model: str | None = None,
    builder: str | None = None,
    inputs: str | None = None,
    outputs: Sequence[str] = (),
    batch_size: int = 32,
    batches: int | None = None,
    preprocess: str | None = None,
    labels: str | None = None,
    channel_order: str = "rgb",
    size: tuple[int, int] | None = None,
    decay: float | None = None,
    steps: int | None = None,
    train_ops: Sequence[str] = (),
    trust_model: bool = False,
    settings: Settings = _DEFAULT,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Report:
    """Judges a model by its files, then, with `data`, by running it; one verdict, whatever the stages were.

    The model is run in a process of its own, after the files were judged and only where no fault leaves nothing to
    run (`early_stop=False`: even then). `against` is an earlier model, or the JSON report of one: what it had is
    accepted, what became worse fails. `max_time` (seconds, of the whole) and `max_memory` (megabytes, of the process
    that runs the model) end it: what was found until then stands, and what was left out makes a pass inconclusive, as
    does a stage that could not run. The other options are those of `compare_train_vs_eval`.

    Raises ReadError where a file cannot be read (NoModel: nothing there), UsageError for what does not fit together.
    """
    budget = Budget(started=time.monotonic(), max_time=max_time, max_memory=max_memory)
    _refuse(data, max_time, max_memory, against)
    options = {
        "data": None if data is None else str(data),
        "use_graph": use_graph,
        "model": model,
        "builder": builder,
        "inputs": inputs,
        "outputs": tuple(outputs),
        "batch_size": batch_size,
        "batches": batches,
        "preprocess": preprocess,
        "labels": labels,
        "channel_order": channel_order,
        "size": size,
        "decay": decay,
        "steps": steps,
        "train_ops": tuple(train_ops),
        "trust_model": trust_model,
    }
    measure = _Measuring(options=options, budget=budget, progress=progress)
    old = None if against is None else _old(Path(against), options)
    target = _read(path, options, graph=graph)
    known = settings if old is None else replace(settings, known=old.earlier.known)
    files = judge(target.facts, settings=known, asked=target.asked)
    not_run = _not_run(target.facts, data, fatal(files) if early_stop else "", budget)
    ran = _Ran(facts=target.facts, stages=not_run) if not_run else measure(target)
    stages = [Stage(name=STATIC, state=StageState.DONE, seconds=target.seconds), *ran.stages]
    facts = ran.facts
    if old is not None:
        old, stage = (old, _done(AGAINST)) if not_run else _measured_old(old, measure)
        stages.append(stage)
        known = replace(settings, known=old.earlier.known)
        facts = replace(facts, before=old.earlier.before)
    report = judge(facts, settings=known, asked=target.asked)
    if old is not None:
        report = _with_limits_of_comparison(report, old.earlier)
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
class _Target:
    """A model whose files were read."""

    path: str
    graph: str | Path | None
    facts: Facts
    asked: Asked
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ran:
    """What is known of a model after its stages."""

    facts: Facts
    stages: tuple[Stage, ...]
    peak_memory: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Old:
    """The earlier model; without a target where only its report is at hand."""

    earlier: Earlier
    target: _Target | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measuring:
    """Runs a model with the same options, within the same budget, as any other of this gate."""

    options: Mapping[str, Any]
    budget: Budget
    progress: Progress

    def __call__(self, target: _Target) -> _Ran:
        """The facts with what was measured, and how the stages ended."""
        request = Request(quantized=False, options={**self.options, "path": target.path, "graph": target.graph})
        outcome = run(request, self.budget, lambda done, total: self.progress(MODES, done, total))
        return _Ran(
            facts=_merged(target.facts, outcome, self.options), stages=_stages(outcome), peak_memory=outcome.peak_memory
        )


def _refuse(
    data: str | Path | None, max_time: float | None, max_memory: float | None, against: str | Path | None
) -> None:
    """Raises for what would otherwise be found only after the first stage, or not at all where that ends the gate."""
    for name, limit in (("max-time", max_time), ("max-memory", max_memory)):
        if limit is not None and not limit > 0:
            raise UsageError(f"--{name} is {limit:g}: it must be greater than 0")
    if data is not None and str(data) != _SYNTHETIC and not Path(data).exists():
        raise NotFound(data, "no such file or folder")
    if against is not None and str(against) == "":
        raise UsageError("--against is empty: give an earlier model, or the JSON report of one")


def _read(path: str | Path, options: Mapping[str, Any], *, graph: str | Path | None) -> _Target:
    start = time.perf_counter()
    hints = hints_of(options["decay"], options["steps"], options["train_ops"])
    read = open_checkpoint if is_beside(Path(path)) else open_model
    raw = read(Path(path), graph=None if graph is None else Path(graph), use_graph=options["use_graph"])
    facts = recognise(raw, hints)
    return _Target(
        path=str(path),
        graph=graph,
        facts=facts,
        asked=Asked(use_graph=options["use_graph"]),
        seconds=time.perf_counter() - start,
    )


def _not_run(facts: Facts, data: object, stopped: str, budget: Budget) -> tuple[Stage, ...]:
    """The stages after the first, and why none of them is run; empty where they are."""
    names = (MODES,)
    if data is None:
        how = f"bncheck gate {shlex.quote(facts.path)} --data images/"
        return left_out(names, StageState.LEFT_OUT, "no data was given", how)
    if facts.lite is not None:
        return left_out(names, StageState.LEFT_OUT, "a TFLite file has no train mode")
    if stopped:
        return left_out(names, StageState.STOPPED, stopped, "--all-stages runs it all the same")
    exceeded = budget.exceeded()
    return left_out(names, StageState.OVER_BUDGET, exceeded, _LARGER) if exceeded else ()


def _stages(outcome: Outcome) -> tuple[Stage, ...]:
    facts = outcome.facts
    if facts is not None and facts.comparison is not None:
        return (_done(MODES, outcome.reached.get(MODES)),)
    how = _LARGER if outcome.state is StageState.OVER_BUDGET else ""
    return left_out((MODES,), outcome.state, outcome.why, how)


def _done(name: str, seconds: float | None = None) -> Stage:
    return Stage(name=name, state=StageState.DONE, seconds=seconds)


def _merged(files: Facts, outcome: Outcome, options: Mapping[str, Any]) -> Facts:
    """What was measured joins what the files tell.

    A network that a backbone's name or the user's code built knows less than the model's own graph, where there is
    one: its measurements join the facts of that graph, if both speak of the same layers.
    """
    measured = outcome.facts
    if measured is None:
        return files
    built = options["model"] is not None or options["builder"] is not None
    same = {layer.name for layer in measured.layers} <= {layer.name for layer in files.layers}
    if built and files.graph is not None and same:
        return replace(files, comparison=measured.comparison, quantized=measured.quantized, fold=measured.fold)
    return measured


def _old(path: Path, options: Mapping[str, Any]) -> _Old:
    """The earlier model, judged by its report or its files."""
    if is_report(path):
        return _Old(earlier=read_report(path))
    target = _read(path, options, graph=None)
    return _Old(earlier=of_report(judge(target.facts, asked=target.asked), str(path)), target=target)


def _measured_old(old: _Old, measure: Callable[[_Target], _Ran]) -> tuple[_Old, Stage]:
    """The earlier model, run like the one that is judged; its report tells what it tells."""
    if old.target is None:
        return old, _done(AGAINST)
    start = time.perf_counter()
    ran = measure(old.target)
    seconds = time.perf_counter() - start
    earlier = of_report(judge(ran.facts, asked=old.target.asked), old.earlier.path)
    failed = next((stage for stage in ran.stages if stage.state is not StageState.DONE), None)
    stage = (
        _done(AGAINST, seconds)
        if failed is None
        else replace(failed, name=AGAINST, why=f"{old.earlier.path}: {failed.why}")
    )
    return replace(old, earlier=earlier), stage


def _with_limits_of_comparison(report: Report, earlier: Earlier) -> Report:
    """The report, with what could not be held against the earlier model."""
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
    return replace(report, not_checked=(*report.not_checked, *entries))
