"""`compare`: a path and data become measurements, measurements and facts become a report."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from bncheck.commands.measure import measure_lite, measure_modes, measure_quantization, prepared_of
from bncheck.commands.target import Target, read_quantized, read_runnable, timed
from bncheck.compare.quantization import wanted
from bncheck.compare.twins.norm import StatisticsLacking
from bncheck.engine.shards import require_engine
from bncheck.facts.errors import BncheckError, NotJudged, UsageError
from bncheck.facts.findings import Report, StageName, Verdict, not_run
from bncheck.foldproof.prove import prove
from bncheck.judge.judge import exit_code
from bncheck.settings.keywords import takes
from bncheck.settings.options import CommandName, Options
from bncheck.sources.raw import RawModel


@takes(Options, CommandName.TRAIN_VS_EVAL)
def compare_train_vs_eval(path: str | Path, options: Options) -> Report:
    """Runs a model with batch and with stored statistics on the same data; judges the files and the difference.

    `path` is whatever `inspect` takes that can be run; a bare checkpoint needs `model` (a named backbone,
    "mobilenet_v2:depth_multiplier=0.35") or `builder` ("pkg.mod:function" with `function(images, is_training)`).
    `inputs` and `outputs` name tensors where the graph does not tell; `data` and its options are those of
    `compare.data.open_data`, all others are told in `bncheck.settings.options.Options`. The graph is
    executed; one with ops that touch files, the network or Python only with `trust_model`.

    Raises ReadError where a file cannot be read, UsageError for what does not fit together, BncheckError where the
    model cannot be run or TensorFlow is not there.
    """
    require_engine(options.engine)
    target = read_runnable(path, options)
    try:
        prepared, facts = prepared_of(target)
    except StatisticsLacking as error:
        return _without_statistics(target, error)
    except NotJudged as error:
        return _not_judged(target, error, StageName.MODES)
    return target.judged(replace(facts, comparison=measure_modes(target, prepared, options.progress)))


@takes(Options, CommandName.FLOAT_VS_QUANTIZED)
def compare_float_vs_quantized(path: str | Path, options: Options) -> Report:
    """Runs a model with batch statistics, with stored ones, and quantized; says which step loses what, and why.

    `quantized` is a TFLite file that was converted from the model; without it the model is converted by `scheme`
    ("int8", the default, "int8-per-tensor", "dynamic", "float16", "int16x8"), calibrated on the first
    `calibration_batches` batches of the data. Given a file, what was folded into it is proved from the files too;
    without `data` that alone is done. `path` may also be a float TFLite file: then there is no train mode, and
    nothing tells whether the model was broken before. The rest is as for `compare_train_vs_eval`.

    Raises ReadError where a file cannot be read, UsageError for what does not fit together, BncheckError where the
    model cannot be run or converted, or the quantized file is of another model.
    """
    other = wanted(options)
    if options.data is None and options.quantized is None:
        raise UsageError("nothing to compare: give --data, or the quantized file with --quantized")
    target = read_runnable(path, options)
    with timed(target.seconds, "read"):
        lite = read_quantized(options)
    if options.data is None:
        assert lite is not None
        return _by_fold_alone(target, lite)
    if target.raw.lite is not None:
        return target.judged(measure_lite(target, other, options.progress).joined(target.facts))
    try:
        prepared, facts = prepared_of(target)
    except StatisticsLacking as error:
        return _without_statistics(target, error, StageName.QUANTIZED)
    except NotJudged as error:
        return _not_judged(target, error, StageName.MODES, StageName.QUANTIZED)
    fold = None if lite is None else prove(target.raw, lite, facts=facts)
    shown = measure_quantization(target, prepared, other, options.progress)
    return target.judged(replace(shown.joined(facts), fold=fold))


def _by_fold_alone(target: Target, lite: RawModel) -> Report:
    """Without data: what was folded into the file, from the files alone."""
    raw = target.raw
    if raw.lite is not None:
        raise UsageError(f"{raw.path} and {lite.path} are TFLite files: comparing them needs --data")
    report = target.judged(replace(target.facts, fold=prove(raw, lite, facts=target.facts)))
    files = f"{shlex.quote(str(raw.path))} --quantized {shlex.quote(str(lite.path))}"
    how = f"bncheck compare float-vs-quantized {files} --data images/"
    return replace(report, not_checked=(*report.not_checked, not_run(StageName.QUANTIZED, "needs data", how)))


def _without_statistics(target: Target, error: StatisticsLacking, *others_left_out: StageName) -> Report:
    """The verdict of the files, where they fail for want of the statistics; else the error stands."""
    report = target.judged()
    if report.verdict is not Verdict.FAIL:
        raise error
    return _left_out(report, error, StageName.MODES, *others_left_out)


def _not_judged(target: Target, error: NotJudged, *stages: StageName) -> Report:
    """The verdict of the files where they fail; no pass, for what was asked could not be judged."""
    report = _left_out(target.judged(), error, *stages)
    if report.verdict is not Verdict.PASS:
        return report
    return replace(
        report,
        verdict=Verdict.INCONCLUSIVE,
        exit_code=exit_code(Verdict.INCONCLUSIVE, target.options.settings),
        headline=f"{' and '.join(stages)} {'was' if len(stages) == 1 else 'were'} not judged: {error}",
    )


def _left_out(report: Report, error: BncheckError, *stages: StageName) -> Report:
    others = tuple(item for item in report.not_checked if item.stage is not StageName.MODES)
    return replace(report, not_checked=(*others, *(not_run(stage, str(error)) for stage in stages)))
