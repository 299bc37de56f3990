"""The quantized half of a three-way comparison: convert or read, measure, and divide what is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.attribution import (
    FLOAT,
    NEEDLESS,
    QUANTIZED,
    REESTIMATED,
    STORED,
    Outputs,
    Place,
    Statistics,
    attribute,
    reestimated,
)
from bncheck.compare.data.data import Data
from bncheck.compare.data.samples import ModelInput
from bncheck.compare.float_quantized import measure_quantized, run_outputs
from bncheck.compare.litert.convert import FLOAT_SCHEME, Shapes, by_recipe, float_model, quantized_model
from bncheck.compare.litert.interpreter import LiteFile, affine, read_file, scheme_of
from bncheck.compare.litert.match import match
from bncheck.compare.litert.recipes import recipe
from bncheck.compare.output_cache import Kept, ModeOutputs
from bncheck.compare.outputs import Kind, place_of
from bncheck.compare.prepared import Prepared
from bncheck.compare.twins.libraries import load_tensorflow
from bncheck.compare.twins.twins import Twins
from bncheck.facts.errors import UsageError
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.lite import LiteFacts
from bncheck.facts.measurements import GIVEN, Attribution, Comparison, DataFacts, QuantizedComparison
from bncheck.facts.ratios import scores_of
from bncheck.numerics.other_weights import file_of_other_weights
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.settings.schemes import PLACEHOLDER, recipe_of, unknown
from bncheck.sources.files import read_whole
from bncheck.sources.raw import RawLiteTensor

CALIBRATION_BATCHES = 16
"""Batches from which the converter takes the ranges of activations, unless told otherwise."""
"""Scheme of a file that somebody else converted."""

Describe = Callable[[int, int, int], DataFacts]
Progress = Callable[[int], None]

LARGEST_LITE = 1 << 31
"""Bytes of a TFLite file: a flatbuffer holds no more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedAgainst:
    """What float is to be compared with."""

    scheme: str = "int8"
    quantized: Path | None = None
    """A file; None: convert by `scheme`."""
    calibration_batches: int = CALIBRATION_BATCHES
    labels_output: str | None = None
    """Of two TFLite files: the output that the labels belong to, as the float one has it."""


def wanted(options: Options) -> QuantizedAgainst:
    """Raises UsageError for what does not go together."""
    quantized, scheme, calibration_batches = options.quantized, options.scheme, options.calibration_batches
    if quantized is not None and (scheme is not None or calibration_batches is not None):
        raise UsageError(f"{quantized} is already quantized: leave out --scheme and --calibration-batches")
    if scheme is not None and (sentence := unknown(scheme)) is not None:
        raise UsageError(sentence)
    if scheme is not None and (name := recipe_of(scheme)) is not None:
        recipe(name)  # a wrong name is told before anything is run
    if calibration_batches is not None and calibration_batches < 1:
        raise UsageError(f"--calibration-batches is {calibration_batches}: it must be 1 or more")
    return QuantizedAgainst(
        scheme=scheme or "int8",
        quantized=None if quantized is None else Path(quantized),
        calibration_batches=calibration_batches or CALIBRATION_BATCHES,
        labels_output=options.labels_output,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What came of it."""

    comparison: QuantizedComparison
    lite: LiteFacts | None
    """What the quantized file holds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A model whose modes were compared, and what it is compared further with."""

    twins: Twins
    prepared: Prepared
    modes: Comparison
    """Of both modes."""
    at_fault: bool | None
    """Whether the stored statistics are, by the caller's judgement of `modes`; None where that cannot be told."""
    kept: Kept
    """The outputs that were compared, as far as they were kept."""
    data: Data
    describe: Describe
    asked: QuantizedAgainst


def measure_three_ways(run: Run, *, progress: Progress = lambda _: None) -> Measured:
    """Float against quantized with the stored statistics, and what the step before, in `modes`, has of the loss.

    `progress` hears of the samples done in two passes. Raises ReadError for a damaged file, BncheckError where the
    model cannot be converted or run.
    """
    converting = _Converting(tf=load_tensorflow(), run=run, shapes=_shapes(run.data))
    exact = converting.exact()
    rounded = converting.rounded(exact)
    given = run.asked.quantized
    path = "" if given is None else str(given)
    measured = measure_quantized(
        exact,
        rounded,
        layers=reached(run.prepared),
        batches=run.data,
        describe=run.describe,
        scheme=run.asked.scheme if given is None else GIVEN,
        quantized_path=path,
        input_name=run.prepared.input,
        output_names=run.prepared.outputs,
        output_kinds=tuple(
            kind if output.classes else Kind.NUMBERS
            for kind, output in zip(run.prepared.kinds, run.modes.outputs, strict=True)
        ),
        labels_output=next((output.name for output in run.modes.outputs if output.labelled), None),
        progress=progress,
    )
    measured = replace(measured, accuracy=replace(measured.accuracy, train=run.modes.accuracy.train))
    if measured.outputs and run.at_fault is not None and not file_of_other_weights(measured):
        cells, reasons = _cells(converting, exact, rounded, at_fault=run.at_fault)
        done = measured.data.samples
        measured = replace(
            measured,
            attribution=_attribution(run, measured, cells, reasons, progress=lambda more: progress(done + more)),
        )
    return Measured(comparison=measured, lite=lite_facts(rounded))


def reached(prepared: Prepared) -> tuple[Layer, ...]:
    """Layers of the forward pass; others, of another output or of training alone, are in no converted file."""
    names = {site.layer for site in prepared.forward.sites}
    return tuple(layer for layer in prepared.layers if layer.name in names)


def _shapes(data: Data) -> Shapes:
    for images, _ in data:
        each = [images] if images.dtype.names is None else [images[name] for name in images.dtype.names]
        return tuple((None, *values.shape[1:]) for values in each)
    raise UsageError(f"{data.description}: holds no samples")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Converting:
    """The model as TFLite files, with its own or with other statistics."""

    tf: Any
    run: Run
    shapes: Shapes

    def exact(self, statistics: Statistics | None = None) -> LiteFile:
        """In float."""
        content = float_model(self.tf, self.run.prepared, statistics=statistics, shapes=self.shapes)
        return read_file(content, "the float model")

    @cached_property
    def given(self) -> LiteFile | None:
        """The file that somebody else converted; None: none was given."""
        path = self.run.asked.quantized
        return None if path is None else _opened(path)

    def rounded(self, exact: LiteFile, statistics: Statistics | None = None) -> LiteFile:
        """`exact` quantized; or the file that was given, where the statistics are its own."""
        asked, scheme = self.run.asked, self.run.asked.scheme
        if self.given is not None:
            if statistics is None:
                return self.given
            scheme = scheme_of(self.given)
            if scheme == FLOAT_SCHEME:
                return exact
        calibration = _first(self.run.data, asked.calibration_batches)
        content = quantized_model(
            self.tf,
            self.run.prepared,
            scheme,
            calibration,
            statistics=statistics,
            shapes=self.shapes,
            exact=exact,
        )
        return read_file(content, "the quantized model")


def _first(data: Data, count: int) -> Iterator[NDArray[Any]]:
    return (images for images, _ in islice(data, count))


def _cells(
    converting: _Converting, exact: LiteFile, rounded: LiteFile, *, at_fault: bool
) -> tuple[dict[Place, Outputs], dict[Place, str]]:
    """What to run besides both modes in float; and why a part of it is left out.

    New statistics only where the stored ones are `at_fault`, for they cost two more conversions.
    """
    run = converting.run
    output = _judged(run.modes)
    cells: dict[Place, Outputs] = {(STORED, QUANTIZED): _outputs(rounded, exact, output)}
    new = reestimated(run.modes, run.prepared.layers) if at_fault else None
    if new is None:
        why = (
            "the stored statistics, or the moments of the data, are NaN or infinite: bncheck repair"
            if at_fault
            else NEEDLESS
        )
        return cells, {(REESTIMATED, FLOAT): why, (REESTIMATED, QUANTIZED): why}
    better = converting.exact(new)
    cells[REESTIMATED, FLOAT] = _outputs(better, exact, output)
    cells[REESTIMATED, QUANTIZED] = _outputs(converting.rounded(better, new), exact, output)
    return cells, {}


def _judged(modes: Comparison) -> int:
    """The place of the output by which losses are divided: that of the labels, or the first with scores of classes."""
    scores = scores_of(modes.outputs)
    return 0 if scores is None else modes.outputs.index(scores)


def _outputs(file: LiteFile, reference: LiteFile, output: int) -> Outputs:
    """A file as a function of a batch: the output that is in that place of the float file `reference`."""
    place = _place(file, reference, output)
    waiting: list[NDArray[Any]] = []

    def fed() -> Iterator[NDArray[Any]]:
        while waiting:
            yield waiting.pop()

    stream: Iterator[tuple[NDArray[Any], ...]] | None = None

    def run(images: NDArray[Any]) -> NDArray[Any]:
        nonlocal stream
        waiting.append(images)
        stream = run_outputs(file, fed(), like=reference) if stream is None else stream
        return next(stream)[place]

    return run


def _place(file: LiteFile, reference: LiteFile, output: int) -> int:
    outputs = file.graph.outputs
    if len(outputs) == 1:
        return 0
    pairs = {theirs: ours for ours, theirs in match(file, reference).outputs}
    return list(outputs).index(pairs.get(reference.graph.outputs[output], outputs[0]))


def _attribution(
    run: Run,
    measured: QuantizedComparison,
    cells: dict[Place, Outputs],
    reasons: dict[Place, str],
    *,
    progress: Progress,
) -> Attribution:
    last: list[ModeOutputs] = []
    both = run.kept.again(run.twins)
    output = _judged(run.modes)
    modes = run.modes.outputs[output]
    rounding = next((one for one in measured.outputs if one.name == modes.name), measured.outputs[0])

    def trained(images: NDArray[Any]) -> NDArray[Any]:
        last[:] = both(images)
        return np.asarray(last[0][output])

    def stored(_: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(last[1][output])

    return attribute(
        trained,
        {(STORED, FLOAT): stored, **cells},
        run.data,
        modes=modes,
        rounding=rounding,
        reasons=reasons,
        progress=progress,
    )


def measure_two_files(
    reference: Path,
    asked: QuantizedAgainst,
    data_of: Callable[[Sequence[ModelInput]], Data],
    *,
    progress: Callable[[int, int | None], None],
) -> Measured:
    """A float TFLite file against a quantized one: no train mode, so nothing tells whether it was broken before.

    The other is a file, or what a recipe of ai-edge-quantizer makes of the first. Raises UsageError for other schemes.
    """
    file = _opened(reference)
    data = data_of([_model_input(*named) for named in zip(file.names, file.inputs, strict=True)])
    quantized, scheme = asked.quantized, GIVEN
    if quantized is None:
        recipe_name = recipe_of(asked.scheme)
        if recipe_name is None:
            raise UsageError(
                f"{reference} is a TFLite file, which bncheck does not quantize again: give the quantized file with "
                f"--quantized, a recipe of ai-edge-quantizer with --scheme {PLACEHOLDER}, or the model that it was "
                "converted from"
            )
        scheme = asked.scheme
        made = by_recipe(file, recipe_name, _first(data, asked.calibration_batches))
        rounded = read_file(made, "the quantized model")
    else:
        rounded = _opened(quantized)
    measured = measure_quantized(
        file,
        rounded,
        layers=(),
        batches=data,
        describe=data.facts,
        scheme=scheme,
        quantized_path="" if quantized is None else str(quantized),
        labels_output=asked.labels_output,
        progress=lambda done: progress(done, data.samples),
    )
    place_of(asked.labels_output, [output.name for output in measured.outputs])
    return Measured(comparison=measured, lite=lite_facts(rounded))


def _opened(path: Path) -> LiteFile:
    return read_file(read_whole(path, limit=LARGEST_LITE), path)


def _model_input(name: str, entry: RawLiteTensor) -> ModelInput:
    shape = entry.shape_signature or entry.shape
    # a file that takes int8 is given real numbers, which are rounded by its scale; bytes may be meant as they are
    dtype = np.dtype(np.float32 if affine(entry) is not None and entry.dtype != "uint8" else entry.dtype)
    short = name.removeprefix("serving_default_").removesuffix(":0")
    return ModelInput(
        shape=(None, *(None if size < 0 else size for size in shape[1:])),
        dtype=dtype,
        names=(name,) if short == name else (short, name),
    )


def lite_facts(file: LiteFile) -> LiteFacts | None:
    """What the quantized file holds of batch norm: for the rules on TFLite files."""
    facts: Facts = recognise(file.raw, Options())
    return facts.lite
