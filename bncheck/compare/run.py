"""`compare`: a path and data become measurements, measurements and facts become a report."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncheck.check import hints_of
from bncheck.compare.built import with_network
from bncheck.compare.data import Data, open_data, sample_shape
from bncheck.compare.kept import Kept
from bncheck.compare.quantized_run import Measured, Run, Wanted, measure_three_ways, measure_two_files, wanted
from bncheck.compare.samples import ModelInput
from bncheck.compare.train_eval import measure, prepare
from bncheck.compare.twin_norm import StatisticsLacking
from bncheck.compare.twins import open_twins
from bncheck.config import Settings
from bncheck.errors import UsageError
from bncheck.finding import NotChecked, Report, Verdict
from bncheck.judge import judge
from bncheck.model import Facts, Given, Hints
from bncheck.options import CompareKeywords, CompareOptions, given, shows_options
from bncheck.recognise import recognise
from bncheck.recognise.fold import prove
from bncheck.sources import open_model
from bncheck.sources.raw import RawModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

_DEFAULT = Settings()

QUANTIZED_TOO = "float vs quantized"
_PASSES = 3
"""Times that a three-way comparison goes through the data: both modes, both arithmetics, who loses what."""

Progress = Callable[[int, "int | None"], None]
"""Hears of the samples done, and of how many there will be; None unknown."""

Found = Callable[[Facts], None]
"""Hears of the facts each time that something more was measured: what was found survives a later stage that fails."""


@shows_options
def compare_train_vs_eval(
    path: str | Path,
    *,
    data: str | Path,
    settings: Settings = _DEFAULT,
    progress: Progress = lambda _done, _total: None,
    found: Found = lambda _facts: None,
    **options: Unpack[CompareKeywords],
) -> Report:
    """Runs a model with batch and with stored statistics on the same data; judges the files and the difference.

    `path` is whatever `inspect` takes that can be run; a bare checkpoint needs `model` (a named backbone,
    "mobilenet_v2:depth_multiplier=0.35") or `builder` ("pkg.mod:function" with `function(images, is_training)`).
    `inputs` and `outputs` name tensors where the graph does not tell; `data` and its options are those of
    `compare.data.open_data`, all others are told in `compare.options.CompareOptions`. The graph is executed; one with
    ops that touch files, the network or Python only with `trust_model`.

    Raises ReadError where a file cannot be read, UsageError for what does not fit together, BncheckError where the
    model cannot be run or TensorFlow is not there.
    """
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    asked = CompareOptions(**options)
    hints = hints_of(asked.decay, asked.steps, asked.train_ops)
    raw = _opened(Path(path), asked, sample_shape(data, asked.size))
    seconds["read"] = time.perf_counter() - start
    try:
        prepared = prepare(raw, hints, asked)
    except StatisticsLacking as error:
        return _without_statistics(raw, hints, settings, error, given=given(asked, data))
    seconds["recognise"] = time.perf_counter() - start - seconds["read"]
    with open_twins(prepared.forward) as twins:
        opened = open_data(data, twins.inputs, asked)
        comparison = measure(
            twins, prepared, opened, opened.facts, progress=lambda done: progress(done, opened.samples)
        )
    seconds["compare"] = comparison.seconds
    facts = replace(prepared.facts, comparison=comparison, given=given(asked, data))
    found(facts)
    return _judged(facts, settings, seconds)


@shows_options
def compare_float_vs_quantized(
    path: str | Path,
    *,
    data: str | Path | None = None,
    quantized: str | Path | None = None,
    scheme: str | None = None,
    calibration_batches: int | None = None,
    settings: Settings = _DEFAULT,
    progress: Progress = lambda _done, _total: None,
    found: Found = lambda _facts: None,
    **options: Unpack[CompareKeywords],
) -> Report:
    """Runs a model with batch statistics, with stored ones, and quantized; says which step loses what, and why.

    `quantized` is a TFLite file that was converted from the model; without it the model is converted by `scheme`
    ("int8", the default, "int8-per-tensor", "dynamic", "float16", "int16x8"), calibrated on the first
    `calibration_batches` batches of the data. Given a file, what was folded into it is proved from the files too;
    without `data` that alone is done. `path` may also be a float TFLite file: then there is no train mode, and
    nothing tells whether the model was broken before. The rest is as for `compare_train_vs_eval`.

    Raises ReadError where a file cannot be read, UsageError for what does not fit together, BncheckError where the
    model cannot be run or converted, or the quantized file is of another model.
    """
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    asked, other = CompareOptions(**options), wanted(quantized, scheme, calibration_batches)
    hints = hints_of(asked.decay, asked.steps, asked.train_ops)
    if data is None and other.quantized is None:
        raise UsageError("nothing to compare: give --data, or the quantized file with --quantized")
    raw = _opened(Path(path), asked, None if data is None else sample_shape(data, asked.size))
    lite = None if other.quantized is None else open_model(other.quantized, graph=None, use_graph=False)
    if lite is not None and lite.lite is None:
        raise UsageError(f"{other.quantized}: {lite.format}, not a TFLite file: --quantized takes one")
    seconds["read"] = time.perf_counter() - start
    if data is None:
        assert lite is not None
        return _by_fold_alone(raw, lite, hints, settings, seconds)
    if raw.lite is not None:
        measured = _two_files(
            raw, other, lambda shape, dtype: open_data(data, [ModelInput(shape=shape, dtype=dtype)], asked), progress
        )
        seconds[QUANTIZED_TOO] = time.perf_counter() - start - seconds["read"]
        facts = replace(
            recognise(raw, hints), quantized=measured.comparison, lite=measured.lite, given=given(asked, data)
        )
        found(facts)
        return _judged(facts, settings, seconds)
    try:
        prepared = prepare(raw, hints, asked)
    except StatisticsLacking as error:
        return _without_statistics(raw, hints, settings, error, QUANTIZED_TOO, given=given(asked, data))
    seconds["recognise"] = time.perf_counter() - start - seconds["read"]
    fold = None if lite is None else prove(raw, lite, facts=prepared.facts)
    facts = replace(prepared.facts, fold=fold, given=given(asked, data))
    with open_twins(prepared.forward) as twins:
        samples = open_data(data, twins.inputs, asked)
        total = None if samples.samples is None else _PASSES * samples.samples
        kept = Kept()
        comparison = measure(
            twins, prepared, samples, samples.facts, progress=lambda done: progress(done, total), each=kept.add
        )
        seconds["train vs eval"] = comparison.seconds
        facts = replace(facts, comparison=comparison)
        found(facts)
        start = time.perf_counter()
        measured = measure_three_ways(
            Run(
                twins=twins,
                prepared=prepared,
                modes=comparison,
                kept=kept,
                data=samples,
                describe=samples.facts,
                asked=other,
            ),
            progress=lambda done: progress(comparison.data.samples + done, total),
        )
        seconds[QUANTIZED_TOO] = time.perf_counter() - start
    facts = replace(facts, quantized=measured.comparison, lite=measured.lite)
    found(facts)
    return _judged(facts, settings, seconds)


def _judged(facts: Facts, settings: Settings, seconds: dict[str, float]) -> Report:
    start = time.perf_counter()
    report = judge(facts, settings=settings)
    seconds["rules"] = time.perf_counter() - start
    return replace(report, timing=seconds)


def _by_fold_alone(
    raw: RawModel, lite: RawModel, hints: Hints, settings: Settings, seconds: dict[str, float]
) -> Report:
    """Without data: what was folded into the file, from the files alone."""
    if raw.lite is not None:
        raise UsageError(f"{raw.path} and {lite.path} are TFLite files: comparing two of them takes --data")
    facts = recognise(raw, hints)
    report = _judged(replace(facts, fold=prove(raw, lite, facts=facts)), settings, seconds)
    files = f"{shlex.quote(str(raw.path))} --quantized {shlex.quote(str(lite.path))}"
    how = f"bncheck compare float-vs-quantized {files} --data images/"
    return replace(report, not_checked=(*report.not_checked, NotChecked(what=QUANTIZED_TOO, why="needs data", how=how)))


def _two_files(
    raw: RawModel, asked: Wanted, opened: Callable[[tuple[int | None, ...] | None, Any], Data], progress: Progress
) -> Measured:
    if asked.quantized is None:
        raise UsageError(
            f"{raw.path} is a TFLite file, which is not converted again: give the quantized one with --quantized, or "
            "the model that it was converted from"
        )
    return measure_two_files(raw.path, asked.quantized, opened, progress=progress)


def _without_statistics(
    raw: RawModel, hints: Hints, settings: Settings, error: StatisticsLacking, *others_left_out: str, given: Given
) -> Report:
    """The verdict of the files, where they fail for want of the statistics; else the error stands."""
    report = judge(replace(recognise(raw, hints), given=given), settings=settings)
    if report.verdict is not Verdict.FAIL:
        raise error
    others = tuple(item for item in report.not_checked if item.what != "train vs eval")
    missing = tuple(NotChecked(what=what, why=str(error)) for what in ("train vs eval", *others_left_out))
    return replace(report, not_checked=(*others, *missing))


def _opened(path: Path, options: CompareOptions, shape: tuple[int | None, ...] | None) -> RawModel:
    """The model as the files have it, or a checkpoint's tensors in the graph of a backbone or builder."""
    named = options.model is not None or options.builder is not None
    if named and options.graph is not None:
        raise UsageError("--graph and --model or --builder exclude each other: both say what the network is")
    graph = None if options.graph is None else Path(options.graph)
    raw = open_model(path, graph=graph, use_graph=options.use_graph and not named)
    return with_network(raw, options, shape)
