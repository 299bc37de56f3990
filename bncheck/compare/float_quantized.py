"""Float against quantized on the same data: two TFLite files in LiteRT, operator by operator."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.litert.inputs import fed_alike
from bncheck.compare.litert.interpreter import (
    LiteFile,
    Runner,
    affine,
    batching,
    feeds_of,
    portions,
    real_values,
)
from bncheck.compare.litert.layers import FoldedInto, folded_layers
from bncheck.compare.litert.local_errors import LossPart
from bncheck.compare.litert.match import Matching, match
from bncheck.compare.litert.net import Kernel
from bncheck.compare.litert.outputs import OutputSums
from bncheck.compare.litert.pair import FilePair
from bncheck.compare.litert.rounded import rounded
from bncheck.compare.litert.sums import TensorSums
from bncheck.compare.outputs import Kind, OutputKind
from bncheck.facts.errors import BncheckError
from bncheck.facts.layers import Layer, PerChannel
from bncheck.facts.measurements import (
    GIVEN,
    Accuracy,
    DataFacts,
    OperatorLoss,
    Precision,
    QuantizedComparison,
    Unmatched,
)
from bncheck.facts.ratios import informed_accuracy
from bncheck.numerics import metrics

Batch = tuple[NDArray[Any], NDArray[Any] | None]
"""Images (samples, ...) and, where there are any, labels (samples,)."""

_WORST = 5
_HALF_STEP = 0.51
"""Of a step: the quotient that is rounded has itself been rounded in float32."""


def measure_quantized(
    reference: LiteFile,
    quantized: LiteFile,
    *,
    layers: Sequence[Layer],
    batches: Iterable[Batch],
    describe: Callable[[int, int, int], DataFacts],
    scheme: str = GIVEN,
    quantized_path: str = "",
    input_name: str = "",
    output_names: Sequence[str] = (),
    output_kinds: Sequence[Kind] = (),
    labels_output: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> QuantizedComparison:
    """Runs every batch through a float file and the quantized one. Memory does not grow with their number.

    Cumulative errors and outputs are of all samples, local ones of the first `local_samples`.

    `layers` are those folded into the float file, with the statistics that it was made with; empty where none are
    known. `describe(samples, batch_size, batches)` gives the facts of the data once they are known; `output_names` and
    `output_kinds` are the model's own, in the float file's order, and `labels_output` the name of the one that labels
    belong to. Raises UsageError for an output that is not there, BncheckError for a
    quantized file of another model, for one that LiteRT refuses, and where there is no data.
    """
    start = time.perf_counter()
    quantized = fed_alike(quantized, reference)
    matching = match(quantized, reference)
    folded = folded_layers(matching.reference, layers)
    pair: FilePair | None = None
    count, largest = 0, 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for images, labels in batches:
            if pair is None:
                pair = FilePair(reference, quantized, matching, images, pool, kinds=_kinds(matching, output_kinds))
            pair.run(images, labels)
            count, largest = count + 1, max(largest, len(images))
            progress(pair.samples)
    if pair is None or not pair.samples:
        raise BncheckError("the data hold no samples")
    output_names = _output_names(matching, output_names)
    theirs = pair.outputs[output_names.index(labels_output)] if labels_output in output_names else None
    judged = _scores(pair.outputs)
    if theirs is not None:
        judged = [theirs, *(sums for sums in judged if sums is not theirs)]
    names = _names(pair.local.parts, matching, folded)
    return QuantizedComparison(
        scheme=scheme,
        quantized=quantized_path,
        data=describe(pair.samples, largest, count),
        input=input_name or ", ".join(reference.names),
        operators=tuple(
            _loss(part, sums, matching, folded, name)
            for part, sums, name in zip(pair.local.parts, pair.sums, names, strict=True)
            if sums is not None
        ),
        outputs=tuple(
            replace(sums.difference(name, scores=sums in judged), labelled=sums is theirs)
            for sums, name in zip(pair.outputs, output_names, strict=True)
        ),
        accuracy=_accuracy(judged),
        apart=_apart(matching),
        unmatched=(*matching.unmatched, *_unlike(pair, matching), *_without_operator(folded)),
        float_bytes=reference.size,
        quantized_bytes=quantized.size,
        rounded=rounded(matching.quantized),
        local_samples=min(pair.samples, pair.local_samples),
        seconds=time.perf_counter() - start,
    )


def run_outputs(
    file: LiteFile, batches: Iterable[NDArray[Any]], *, like: LiteFile | None = None
) -> Iterator[tuple[NDArray[Any], ...]]:
    """The outputs of a file, in real numbers, for each batch of images; errors as `measure_quantized`.

    Batches for several inputs have their fields in the order of the file `like`.
    """
    if like is not None:
        file = fed_alike(file, like)
    runner: Runner | None = None
    size: int | None = None
    for images in batches:
        if runner is None:
            how = batching(file, images)
            runner, size = Runner(how.content, file.path), how.size
        parts = []
        for samples in portions(images, size or len(images)):
            runner.run(feeds_of(file, images[samples]))
            parts.append([_copied(file, runner, number) for number in file.graph.outputs])
        yield tuple(np.concatenate(each) for each in zip(*parts, strict=True))


def _copied(file: LiteFile, runner: Runner, number: int) -> NDArray[Any]:
    return np.array(real_values(file.graph.tensors[number], runner.tensor(number)))


def _names(parts: Sequence[LossPart], matching: Matching, folded: FoldedInto) -> list[str]:
    """The layer where one is folded in, else the output tensor's own name; a name that comes again is numbered."""
    last = {layer: operator for operator, layer in sorted(folded.operators.items())}
    names, seen = [], Counter[str]()
    for part in parts:
        layer = None if part.counterpart is None else folded.operators.get(part.counterpart)
        # Of the MUL and the ADD of a layer that was not folded, the ADD gives what the layer gives.
        own = layer if layer is not None and last[layer] == part.counterpart else None
        name = own or _own_name(part, matching)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _own_name(part: LossPart, matching: Matching) -> str:
    """Of the names that the converter joined with semicolons the first, which is the last operation's."""
    quantize = part.counterpart is None
    name = matching.reference.tensor(part.reference).name if quantize else matching.quantized.tensor(part.output).name
    joined = [piece for piece in name.split(";") if piece and "ReadVariableOp" not in piece]
    first = next((piece for piece in joined if not piece.startswith("weights/")), name or f"tensor {part.output}")
    return f"{first} (quantized)" if quantize else first


def _loss(part: LossPart, sums: TensorSums, matching: Matching, folded: FoldedInto, name: str) -> OperatorLoss:
    ours, theirs = matching.quantized, matching.reference
    operator = ours.graph.operators[part.operator]
    tensor = ours.tensor(part.output)
    how = affine(tensor)
    signal, error = float(np.sum(sums.signal)), float(np.sum(sums.error))
    rounding, clipping, bias = sums.parts
    r2, t2, e2 = (float(value) for value in sums.chain)
    weights = _weights(part, matching)
    return OperatorLoss(
        name=name,
        layer=None if part.counterpart is None else folded.operators.get(part.counterpart),
        kind=operator.kind,
        tensor=tensor.name,
        reference=theirs.tensor(part.reference).name,
        local_nmse=metrics.nmse(signal, error),
        cumulative_nmse=metrics.nmse(r2, e2),
        cumulative_cosine=metrics.cosine(r2, t2, e2),
        rounding_nmse=metrics.nmse(signal, rounding),
        clipping_nmse=metrics.nmse(signal, clipping),
        bias_nmse=metrics.nmse(signal, bias),
        rmse_over_scale=None if how is None else math.sqrt(error / sums.count) / how.scale,
        scale=None if how is None else how.scale,
        zero_point=None if how is None else how.zero_point,
        channel_nmse=_each(sums.signal, sums.error),
        weight_nmse=weights.nmse,
        weight_per_channel=weights.per_channel,
        weights_beyond=weights.beyond,
        worst_channels=tuple(
            int(c)
            for c in np.argsort(-np.nan_to_num(sums.error, nan=np.inf), kind="stable")[:_WORST]
            if sums.error[c] != 0
        ),
        non_finite=sums.non_finite,
    )


def _each(signal: PerChannel, error: PerChannel) -> PerChannel:
    """`metrics.nmse` of each channel."""
    with np.errstate(all="ignore"):
        return np.where(error == 0, 0.0, np.where(signal == 0, math.nan, error / signal))


@dataclass(frozen=True, kw_only=True)
class _KernelLoss:
    """What became of a kernel, as `OperatorLoss` has it."""

    nmse: float | None = None
    per_channel: bool | None = None
    beyond: float | None = None


def _weights(part: LossPart, matching: Matching) -> _KernelLoss:
    ours, theirs = matching.quantized, matching.reference
    operator = ours.graph.operators[part.operator]
    stored = ours.kernel_tensor(operator)
    integer = stored is not None and stored.quantization is not None and stored.dtype.startswith(("int", "uint"))
    how = stored.quantization if integer and stored is not None else None
    test = ours.kernel(operator)
    # the one scale of a kernel of one filter is that of its channel
    per_channel = None if how is None or (test is not None and len(test) == 1) else how.scales.size > 1
    reference = None if part.counterpart is None else theirs.kernel(theirs.graph.operators[part.counterpart])
    if test is None or reference is None or test.shape != reference.shape:
        return _KernelLoss(per_channel=per_channel)
    return _KernelLoss(
        nmse=metrics.nmse(float(np.sum(reference**2)), float(np.sum((test - reference) ** 2))),
        per_channel=per_channel,
        beyond=_beyond(test, reference, how.scales)
        if how is not None
        and not how.block
        and operator.index not in ours.rotations
        and how.scales.size in (1, len(test))
        else None,
    )


def _beyond(test: Kernel, reference: Kernel, scales: NDArray[Any]) -> float:
    """Share of the weights that rounding cannot have moved so far; what the ends of the type cut off does not count."""
    steps = np.abs(np.asarray(scales, np.float64)).reshape(-1, 1)
    ends = np.abs(test) >= (np.max(np.abs(test), axis=1, keepdims=True) if scales.size > 1 else np.max(np.abs(test)))
    far = np.abs(test - reference) > _HALF_STEP * steps + 1e-6 * np.abs(reference)
    return float(np.mean(far & ~ends))


def _output_names(matching: Matching, given: Sequence[str]) -> list[str]:
    order = matching.reference.graph.outputs
    if len(given) == len(order):
        return [given[order.index(number)] for _, number in matching.outputs]
    return [matching.reference.tensor(number).name for _, number in matching.outputs]


def _apart(matching: Matching) -> tuple[int, int] | None:
    """Last axes of the first outputs, float and quantized, where no output of the one is one of the other's."""
    theirs, ours = (file.tensor(file.graph.outputs[0]).shape for file in (matching.reference, matching.quantized))
    return None if matching.outputs or not theirs or not ours else (theirs[-1], ours[-1])


def _kinds(matching: Matching, given: Sequence[Kind]) -> dict[int, Kind]:
    order = matching.reference.graph.outputs
    return dict(zip(order, given, strict=True)) if len(given) == len(order) else {}


def _scores(outputs: Sequence[OutputSums]) -> list[OutputSums]:
    """Those of classes; of several only those with a class for every label, where one has: others may be boxes.

    Among these such as add up to 1 come first, then those that meet the labels, then those with as many classes as
    labels count.
    """
    fitting = [sums for sums in outputs if sums.fits]
    single = [sums for sums in fitting if sums.single is not OutputKind.NONE]
    if not single and fitting:
        best = min(fitting, key=_against_labels)
        return [best, *(sums for sums in fitting if sums is not best and sums.classes == best.classes)]
    return single or [sums for sums in outputs if sums.classes]


def _against_labels(sums: OutputSums) -> tuple[bool, bool, bool]:
    """What speaks against it that the labels are of this output, the strongest first."""
    met = max(sums.top.accuracy or (0.0, 0.0)) >= informed_accuracy(sums.classes)
    return not sums.probabilities, not met, sums.classes != sums.highest + 1


def _accuracy(scores: Sequence[OutputSums]) -> Accuracy:
    stored, quantized = next((found for sums in scores if (found := sums.top.accuracy) is not None), (None, None))
    return Accuracy(eval=stored, quantized=quantized)


def _unlike(pair: FilePair, matching: Matching) -> Iterator[Unmatched]:
    """Tensors that turned out to be of different sizes."""
    for part, sums in zip(pair.local.parts, pair.sums, strict=True):
        if sums is None:
            yield Unmatched(
                name=matching.quantized.tensor(part.output).name,
                side=Precision.QUANTIZED,
                why=f"it has another size than {matching.reference.tensor(part.reference).name} of the float file",
            )


def _without_operator(folded: FoldedInto) -> Iterator[Unmatched]:
    for layer, why in folded.missing.items():
        yield Unmatched(name=layer, side=Precision.FLOAT, why=why, layer=layer)
