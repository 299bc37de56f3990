"""The pipeline: a path becomes facts, facts become findings, findings become a verdict. Pure; prints nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bncheck.facts.errors import NoModel, ReadError, UsageError
from bncheck.facts.findings import ExitCode, Report, TargetInfo, Verdict
from bncheck.facts.layers import Hints, PerChannel
from bncheck.facts.measurements import FoldProof
from bncheck.judge.judge import exit_code, judge
from bncheck.judge.not_checked import Asked
from bncheck.recognise import recognise
from bncheck.settings.config import Settings
from bncheck.settings.options import CompareOptions, given
from bncheck.sources import is_beside, open_checkpoint, open_model, run_dir
from bncheck.sources.raw import RawModel

_DEFAULT = Settings()
_NUMBER = re.compile(r"\d+")
_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")


def inspect_checkpoint(
    path: str | Path,
    *,
    graph: str | Path | None = None,
    use_graph: bool = True,
    decay: float | None = None,
    steps: int | None = None,
    train_ops: Sequence[str] = (),
    reference: str | Path | None = None,
    settings: Settings = _DEFAULT,
) -> Report:
    """Judges a checkpoint, together with the graph of the same prefix or the one given.

    `decay` (0 to 1, TensorFlow's) and `steps` (updates of the statistics) supply what the files do not say,
    `train_ops` names the ops that train, `reference` a checkpoint to compare the statistics with. Raises ReadError
    where a file cannot be read (NoModel: nothing there), UsageError where `path` is no checkpoint.
    """
    hints = hints_of(decay, steps, train_ops)
    seconds: dict[str, float] = {}
    read = open_checkpoint if is_beside(Path(path)) else open_model
    with timed(seconds, "read"):
        raw = read(Path(path), graph=None if graph is None else Path(graph), use_graph=use_graph)
    if not raw.tensors:
        kind = "graph" if raw.graphs else "model"
        raise UsageError(f"{path}: {raw.format}, not a checkpoint: use `bncheck inspect {kind} {path}`")
    asked = CompareOptions(graph=graph, use_graph=use_graph, decay=decay, steps=steps, train_ops=train_ops)
    return _report(raw, hints, seconds, settings, asked=asked, reference=reference)


def inspect_graph(
    path: str | Path, *, decay: float | None = None, train_ops: Sequence[str] = (), settings: Settings = _DEFAULT
) -> Report:
    """Judges a graph: `.meta`, `.pb`, `.pbtxt` or a SavedModel. Raises as `inspect_checkpoint`."""
    hints = hints_of(decay, None, train_ops)
    seconds: dict[str, float] = {}
    with timed(seconds, "read"):
        raw = open_model(Path(path), graph=None, use_graph=True)
    if not raw.graphs:
        kind = "checkpoint" if raw.tensors and raw.keras is None else "model"
        raise UsageError(f"{path}: {raw.format}, which holds no graph: use `bncheck inspect {kind} {path}`")
    return _report(raw, hints, seconds, settings, asked=CompareOptions(decay=decay, train_ops=train_ops))


def inspect_model(
    path: str | Path,
    *,
    decay: float | None = None,
    steps: int | None = None,
    train_ops: Sequence[str] = (),
    reference: str | Path | None = None,
    settings: Settings = _DEFAULT,
) -> Report:
    """Judges a whole model: SavedModel, `.keras`, `.h5`, `.tflite`, frozen graph. Raises as `inspect_checkpoint`.

    For a TFLite file `reference` is what it was converted from: whose statistics it has folded in is then proved.
    """
    hints = hints_of(decay, steps, train_ops)
    seconds: dict[str, float] = {}
    with timed(seconds, "read"):
        raw = open_model(Path(path), graph=None, use_graph=True)
    asked = CompareOptions(decay=decay, steps=steps, train_ops=train_ops)
    return _report(raw, hints, seconds, settings, asked=asked, reference=reference)


def inspect_run(
    directory: str | Path,
    *,
    use_graph: bool = True,
    decay: float | None = None,
    train_ops: Sequence[str] = (),
    settings: Settings = _DEFAULT,
) -> tuple[Report, ...]:
    """One report for each checkpoint in a training run's folder, or each Keras file, in the order of their steps.

    A file that cannot be read, such as one being written, gives an inconclusive report with exit code 2 and the
    reason. Raises NoModel where the folder holds none.
    """
    targets = _targets(Path(directory))
    reports: list[Report] = []
    for target in targets:
        try:
            if target.suffix in _KERAS_SUFFIXES:
                report = inspect_model(target, decay=decay, settings=settings)
            else:
                report = inspect_checkpoint(
                    target, use_graph=use_graph, decay=decay, train_ops=train_ops, settings=settings
                )
        except ReadError as error:
            report = unreadable(target, error, settings)
        reports.append(report)
    return tuple(reports)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Notes how long the block takes."""
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start


def hints_of(decay: float | None, steps: int | None, train_ops: Sequence[str]) -> Hints:
    """What the user supplies; raises UsageError for what cannot be."""
    if decay is not None and not 0 <= decay <= 1:
        raise UsageError(f"decay is {decay}: TensorFlow's decay lies between 0 and 1, such as 0.999")
    if steps is not None and steps < 0:
        raise UsageError(f"steps is {steps}: the statistics cannot be updated a negative number of times")
    return Hints(decay=decay, steps=steps, train_ops=tuple(train_ops))


def _report(
    raw: RawModel,
    hints: Hints,
    seconds: dict[str, float],
    settings: Settings,
    *,
    asked: CompareOptions,
    reference: str | Path | None = None,
) -> Report:
    with timed(seconds, "recognise"):
        facts = replace(recognise(raw, hints), given=given(asked))
        if reference is not None and raw.lite is not None:
            facts = replace(facts, fold=_fold_proof(raw, Path(reference)))
        elif reference is not None:
            facts = replace(facts, reference=_read_reference(Path(reference)))
    with timed(seconds, "rules"):
        report = judge(facts, settings=settings, asked=Asked(use_graph=asked.use_graph))
    return replace(report, timing=seconds)


def _fold_proof(lite: RawModel, path: Path) -> FoldProof:
    """The TFLite file against what it was converted from."""
    from bncheck.foldproof.prove import prove  # noqa: PLC0415 - nothing else needs it

    read = open_checkpoint if is_beside(path) else open_model
    return prove(read(path, graph=None, use_graph=True), lite)


def _read_reference(path: Path) -> Mapping[str, tuple[PerChannel, PerChannel]]:
    """Layer name -> (mean, variance) of another checkpoint."""
    layers = recognise(open_model(path, graph=None, use_graph=True), Hints()).layers
    both = {
        layer.name: (layer.mean.values, layer.variance.values)
        for layer in layers
        if layer.mean.values is not None and layer.variance.values is not None
    }
    if not both:
        raise UsageError(f"{path}: the reference holds no statistics to compare with")
    return both


def _targets(folder: Path) -> list[Path]:
    """The checkpoints of a folder in step order or, where there are none, its Keras files."""
    try:
        return run_dir(folder)
    except NoModel:
        files = [path for path in folder.iterdir() if path.suffix in _KERAS_SUFFIXES]
        if not files:
            raise
        return sorted(files, key=_by_numbers)


def _by_numbers(path: Path) -> tuple[list[int], str]:
    return [int(number[:18]) for number in _NUMBER.findall(path.name)], path.name


def unreadable(path: Path, error: ReadError, settings: Settings) -> Report:
    """The report of one of several targets that cannot be read; one that holds no model is merely inconclusive."""
    nothing = isinstance(error, NoModel)
    return Report(
        target=TargetInfo(path=str(path), format="no model" if nothing else "unreadable"),
        verdict=Verdict.INCONCLUSIVE,
        exit_code=exit_code(Verdict.INCONCLUSIVE, settings) if nothing else ExitCode.ERROR,
        layers=(),
        findings=(),
        suppressed=(),
        not_checked=(),
        checked=(),
        rules=(),
        headline=str(error),
        fail_on=settings.fail_on.value,
    )
