"""A target and data become measurements: what running the model shows, without a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bncheck.commands.shown import Shown
from bncheck.commands.target import Target, built, read_quantized, timed
from bncheck.compare.data.data import Data, open_data
from bncheck.compare.data.samples import ModelInput
from bncheck.compare.expected_time import expected_seconds
from bncheck.compare.output_cache import Kept
from bncheck.compare.prepared import Prepared, prepare
from bncheck.compare.quantization import QuantizedAgainst, Run, measure_three_ways, measure_two_files
from bncheck.compare.train_eval import measure
from bncheck.compare.twins.twins import Twins, open_twins
from bncheck.facts.findings import StageName
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import Comparison
from bncheck.foldproof.prove import prove
from bncheck.rules.shared.modes import judged_output
from bncheck.settings.options import Options, given, silent

_PASSES = 3
"""Times that a three-way comparison goes through the data: both modes, both arithmetics, who loses what."""

Progress = Callable[[int, "int | None"], None]
"""Hears of the samples done, and of how many there will be; None unknown."""


Found = Callable[[Shown], None]
"""Hears each time that something more was measured: what was found survives a later stage that fails."""


def prepared_of(target: Target) -> tuple[Prepared, Facts]:
    """The target ready to be run in both modes, and its facts. Raises BncheckError, UsageError."""
    with timed(target.seconds, "recognise"):
        prepared = prepare(target.raw, target.options)
    return prepared, replace(prepared.facts, given=given(target.options))


def measure_modes(target: Target, prepared: Prepared, progress: Progress) -> Comparison:
    """Train mode against eval mode."""
    comparison = compared(target, prepared, None, progress)
    target.seconds["compare"] = comparison.seconds
    return comparison


def compared(target: Target, prepared: Prepared, data: Data | None, progress: Progress) -> Comparison:
    """The same, in this process or by the engine that the options name; `data` as opened before, None: not yet."""
    options = target.options
    if options.engine is not None:
        from bncheck.commands.data_blocks import compared_in_blocks  # noqa: PLC0415 - with an engine only

        return compared_in_blocks(target, prepared, progress)
    assert options.data is not None
    with open_twins(prepared.forward) as twins:
        opened = open_data(options.data, twins.inputs, options) if data is None else data
        progress(0, opened.samples)
        _tell_time(twins, opened, options, passes=1)
        return measure(twins, prepared, opened, opened.facts, progress=lambda done: progress(done, opened.samples))


def measure_quantization(
    target: Target, prepared: Prepared, other: QuantizedAgainst, progress: Progress, found: Found = lambda _: None
) -> Shown:
    """Both modes in float, then float against quantized."""
    data = target.options.data
    assert data is not None
    with open_twins(prepared.forward) as twins:
        samples = open_data(data, twins.inputs, target.options)
        total = None if samples.samples is None else _PASSES * samples.samples
        progress(0, total)
        _tell_time(twins, samples, target.options, passes=_PASSES)
        kept = Kept()
        modes = measure(
            twins, prepared, samples, samples.facts, progress=lambda done: progress(done, total), each=kept.add
        )
        target.seconds[StageName.MODES] = modes.seconds
        found(Shown(comparison=modes))
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
        with timed(target.seconds, StageName.QUANTIZED):
            measured = measure_three_ways(run, progress=lambda done: progress(modes.data.samples + done, total))
    return Shown(comparison=modes, quantized=measured.comparison, lite=measured.lite)


def _tell_time(twins: Twins, data: Data, options: Options, *, passes: int) -> None:
    """How long made-up samples will take, where somebody hears of it."""
    if data.synthetic and options.expected is not silent:
        seconds = expected_seconds(twins, data)
        if seconds is not None:
            options.expected(passes * seconds)


def measure_lite(target: Target, other: QuantizedAgainst, progress: Progress) -> Shown:
    """A float TFLite file against a quantized one."""
    options = target.options

    def opened(inputs: Sequence[ModelInput]) -> Data:
        assert options.data is not None
        return open_data(options.data, inputs, options)

    with timed(target.seconds, StageName.QUANTIZED):
        measured = measure_two_files(target.raw.path, other, opened, progress=progress)
    return Shown(quantized=measured.comparison, lite=measured.lite)


def measure_all(target: Target, other: QuantizedAgainst | None, progress: Progress, found: Found) -> None:
    """Whatever a gate runs: both modes, and quantized where there is something to compare with. Tells of each step.

    Raises BncheckError where the model cannot be run.
    """
    if other is not None and target.raw.lite is not None:
        found(measure_lite(target, other, progress))
        return
    prepared, facts = prepared_of(target)
    network = _network(target, facts) if built(target.options) else None

    def tell(shown: Shown) -> None:
        found(replace(shown, network=network))

    if other is None:
        tell(Shown(comparison=measure_modes(target, prepared, progress)))
    else:
        tell(measure_quantization(target, prepared, other, progress, tell))


def _network(target: Target, facts: Facts) -> Facts:
    """Of a network that no file holds, with what was folded into the TFLite file that was made of it."""
    lite = read_quantized(target.options)
    return facts if lite is None else replace(facts, fold=prove(target.raw, lite, facts=facts))
