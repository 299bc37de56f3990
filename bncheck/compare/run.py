"""`compare train-vs-eval`: a path and data become measurements, measurements and facts become a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bncheck.compare.data import Data, open_data, sample_shape
from bncheck.compare.forward import StatisticsLacking
from bncheck.compare.train_eval import measure, prepare
from bncheck.compare.twins import open_twins
from bncheck.config import Settings
from bncheck.errors import UsageError
from bncheck.finding import NotChecked, Report, Verdict
from bncheck.judge import judge
from bncheck.measured import DataFacts
from bncheck.model import Facts, Hints
from bncheck.recognise import recognise
from bncheck.sources import open_model
from bncheck.sources.raw import RawModel

_DEFAULT = Settings()

Progress = Callable[[int, "int | None"], None]
"""Hears of the samples done, and of how many there will be; None unknown."""

Found = Callable[[Facts], None]
"""Hears of the facts each time that something more was measured: what was found survives a later stage that fails."""


def compare_train_vs_eval(
    path: str | Path,
    *,
    data: str | Path,
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
    progress: Progress = lambda _done, _total: None,
    found: Found = lambda _facts: None,
) -> Report:
    """Runs a model with batch and with stored statistics on the same data; judges the files and the difference.

    `path` is whatever `inspect` takes that can be run; a bare checkpoint needs `model` (a named backbone,
    "mobilenet_v2:depth_multiplier=0.35") or `builder` ("pkg.mod:function" with `function(images, is_training)`).
    `inputs` and `outputs` name tensors where the graph does not tell; the data options are those of
    `compare.data.open_data`, the rest those of `inspect_checkpoint`. The graph is executed; one with ops that touch
    files, the network or Python only with `trust_model`.

    Raises ReadError where a file cannot be read, UsageError for what does not fit together, BncheckError where the
    model cannot be run or TensorFlow is not there.
    """
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    hints = Hints(decay=decay, steps=steps, train_ops=tuple(train_ops))
    raw = _opened(Path(path), graph, model, builder, sample_shape(data, size), use_graph=use_graph)
    seconds["read"] = time.perf_counter() - start
    try:
        prepared = prepare(raw, hints, named_input=inputs, outputs=outputs, trusted=trust_model)
    except StatisticsLacking as error:
        return _without_statistics(raw, hints, settings, error)
    seconds["recognise"] = time.perf_counter() - start - seconds["read"]
    with open_twins(prepared.forward) as twins:
        opened = open_data(
            data,
            shape=twins.input_shape,
            dtype=twins.input_dtype,
            batch_size=batch_size,
            batches=batches,
            preprocess=preprocess,
            labels=labels,
            channel_order=channel_order,
            size=size,
        )
        comparison = measure(
            twins, prepared, opened, _describe(opened), progress=lambda done: progress(done, opened.samples)
        )
    seconds["compare"] = comparison.seconds
    start = time.perf_counter()
    facts = replace(prepared.facts, comparison=comparison)
    found(facts)
    report = judge(facts, settings=settings)
    seconds["rules"] = time.perf_counter() - start
    return replace(report, timing=seconds)


def _without_statistics(raw: RawModel, hints: Hints, settings: Settings, error: StatisticsLacking) -> Report:
    """The verdict of the files, where they fail for want of the statistics; else the error stands."""
    report = judge(recognise(raw, hints), settings=settings)
    if report.verdict is not Verdict.FAIL:
        raise error
    others = tuple(item for item in report.not_checked if item.what != "train vs eval")
    return replace(report, not_checked=(*others, NotChecked(what="train vs eval", why=str(error))))


def _describe(data: Data) -> Callable[[int, int, int], DataFacts]:
    return lambda samples, _, batches: data.facts(samples=samples, batches=batches)


def _opened(
    path: Path,
    graph: str | Path | None,
    model: str | None,
    builder: str | None,
    shape: tuple[int | None, ...] | None,
    *,
    use_graph: bool,
) -> RawModel:
    """The model as the files have it, or a checkpoint's tensors in the graph of a backbone or builder."""
    if model is None and builder is None:
        return open_model(path, graph=None if graph is None else Path(graph), use_graph=use_graph)
    if model is not None and builder is not None:
        raise UsageError("--model and --builder exclude each other")
    if graph is not None:
        raise UsageError("--graph and --model or --builder exclude each other: both say what the network is")
    from bncheck.backbones.builders import load_builder  # noqa: PLC0415 - only bare checkpoints need one
    from bncheck.backbones.registry import build, parse  # noqa: PLC0415 - as above

    what = parse(model) if model is not None else load_builder(builder or "")
    raw = open_model(path, graph=None, use_graph=False)
    return build(what, raw.tensors, path=raw.path, input_shape=shape)
