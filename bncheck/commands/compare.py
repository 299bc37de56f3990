"""`compare`: a path and data become measurements, measurements and facts become a report."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncheck.backbones.build import with_network
from bncheck.commands.inspect import hints_of, timed
from bncheck.compare.data.data import Data, open_data, sample_shape
from bncheck.compare.data.samples import ModelInput
from bncheck.compare.output_cache import Kept
from bncheck.compare.three_way import QuantizedAgainst, Run, measure_three_ways, measure_two_files, wanted
from bncheck.compare.train_eval import Prepared, measure, prepare
from bncheck.compare.twins.norm import StatisticsLacking
from bncheck.compare.twins.twins import open_twins
from bncheck.facts.errors import UsageError
from bncheck.facts.findings import NotChecked, Report, Verdict
from bncheck.facts.layers import Facts, Given, Hints
from bncheck.facts.measurements import FoldProof
from bncheck.foldproof.prove import prove
from bncheck.judge.judge import judge
from bncheck.recognise import recognise
from bncheck.rules.shared.modes import judged_output
from bncheck.settings.config import Settings
from bncheck.settings.options import CompareKeywords, CompareOptions, given, shows_options
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
    `compare.data.open_data`, all others are told in `bncheck.settings.options.CompareOptions`. The graph is
    executed; one with ops that touch files, the network or Python only with `trust_model`.

    Raises ReadError where a file cannot be read, UsageError for what does not fit together, BncheckError where the
    model cannot be run or TensorFlow is not there.
    """
    call = _call(path, data, CompareOptions(**options), settings=settings, progress=progress, found=found)
    try:
        with timed(call.seconds, "recognise"):
            prepared = prepare(call.raw, call.hints, call.options)
    except StatisticsLacking as error:
        return _without_statistics(call, error)
    with open_twins(prepared.forward) as twins:
        opened = open_data(data, twins.inputs, call.options)
        comparison = measure(
            twins, prepared, opened, opened.facts, progress=lambda done: progress(done, opened.samples)
        )
    call.seconds["compare"] = comparison.seconds
    facts = replace(prepared.facts, comparison=comparison, given=call.given)
    found(facts)
    return _judged(call, facts)


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
    other = wanted(quantized, scheme, calibration_batches)
    if data is None and other.quantized is None:
        raise UsageError("nothing to compare: give --data, or the quantized file with --quantized")
    call = _call(path, data, CompareOptions(**options), settings=settings, progress=progress, found=found)
    with timed(call.seconds, "read"):
        lite = None if other.quantized is None else open_model(other.quantized, graph=None, use_graph=False)
    if lite is not None and lite.lite is None:
        raise UsageError(f"{other.quantized}: {lite.format}, not a TFLite file: --quantized takes one")
    if data is None:
        assert lite is not None
        return _by_fold_alone(call, lite)
    if call.raw.lite is not None:
        return _judged(call, _two_files(call, data, other))
    try:
        with timed(call.seconds, "recognise"):
            prepared = prepare(call.raw, call.hints, call.options)
    except StatisticsLacking as error:
        return _without_statistics(call, error, QUANTIZED_TOO)
    fold = None if lite is None else prove(call.raw, lite, facts=prepared.facts)
    return _judged(call, _three_ways(call, data, prepared, fold, other))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """A model that was read, and what is wanted of it."""

    raw: RawModel
    hints: Hints
    given: Given
    options: CompareOptions
    settings: Settings
    progress: Progress
    found: Found
    seconds: dict[str, float]
    """Stage -> how long it took; grows."""


def _call(
    path: str | Path,
    data: str | Path | None,
    options: CompareOptions,
    *,
    settings: Settings,
    progress: Progress,
    found: Found,
) -> _Call:
    seconds: dict[str, float] = {}
    hints = hints_of(options.decay, options.steps, options.train_ops)
    with timed(seconds, "read"):
        raw = _opened(Path(path), options, None if data is None else sample_shape(data, options.size))
    return _Call(
        raw=raw,
        hints=hints,
        given=given(options, data),
        options=options,
        settings=settings,
        progress=progress,
        found=found,
        seconds=seconds,
    )


def _three_ways(
    call: _Call, data: str | Path, prepared: Prepared, fold: FoldProof | None, other: QuantizedAgainst
) -> Facts:
    """Both modes in float, then float against quantized."""
    facts = replace(prepared.facts, fold=fold, given=call.given)
    with open_twins(prepared.forward) as twins:
        samples = open_data(data, twins.inputs, call.options)
        total = None if samples.samples is None else _PASSES * samples.samples
        kept = Kept()
        modes = measure(
            twins, prepared, samples, samples.facts, progress=lambda done: call.progress(done, total), each=kept.add
        )
        call.seconds["train vs eval"] = modes.seconds
        facts = replace(facts, comparison=modes)
        call.found(facts)
        before = judged_output(modes)
        run = Run(
            twins=twins,
            prepared=prepared,
            modes=modes,
            at_fault=None if before is None else before.junk,
            kept=kept,
            data=samples,
            describe=samples.facts,
            asked=other,
        )
        with timed(call.seconds, QUANTIZED_TOO):
            measured = measure_three_ways(run, progress=lambda done: call.progress(modes.data.samples + done, total))
    facts = replace(facts, quantized=measured.comparison, lite=measured.lite)
    call.found(facts)
    return facts


def _two_files(call: _Call, data: str | Path, other: QuantizedAgainst) -> Facts:
    """A float TFLite file against a quantized one."""
    if other.quantized is None:
        raise UsageError(
            f"{call.raw.path} is a TFLite file, which is not converted again: give the quantized one with --quantized, "
            "or the model that it was converted from"
        )

    def opened(shape: tuple[int | None, ...] | None, dtype: Any) -> Data:
        return open_data(data, [ModelInput(shape=shape, dtype=dtype)], call.options)

    with timed(call.seconds, QUANTIZED_TOO):
        measured = measure_two_files(call.raw.path, other.quantized, opened, progress=call.progress)
    facts = replace(
        recognise(call.raw, call.hints), quantized=measured.comparison, lite=measured.lite, given=call.given
    )
    call.found(facts)
    return facts


def _by_fold_alone(call: _Call, lite: RawModel) -> Report:
    """Without data: what was folded into the file, from the files alone."""
    raw = call.raw
    if raw.lite is not None:
        raise UsageError(f"{raw.path} and {lite.path} are TFLite files: comparing two of them takes --data")
    facts = recognise(raw, call.hints)
    report = _judged(call, replace(facts, fold=prove(raw, lite, facts=facts)))
    files = f"{shlex.quote(str(raw.path))} --quantized {shlex.quote(str(lite.path))}"
    how = f"bncheck compare float-vs-quantized {files} --data images/"
    return replace(report, not_checked=(*report.not_checked, NotChecked(what=QUANTIZED_TOO, why="needs data", how=how)))


def _judged(call: _Call, facts: Facts) -> Report:
    with timed(call.seconds, "rules"):
        report = judge(facts, settings=call.settings)
    return replace(report, timing=call.seconds)


def _without_statistics(call: _Call, error: StatisticsLacking, *others_left_out: str) -> Report:
    """The verdict of the files, where they fail for want of the statistics; else the error stands."""
    report = judge(replace(recognise(call.raw, call.hints), given=call.given), settings=call.settings)
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
