"""Which tensor of a quantized TFLite file is which tensor of the float one: by wiring and kernels, not by names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bncheck.compare.litert.inputs import fed_alike
from bncheck.compare.litert.interpreter import LiteFile
from bncheck.compare.litert.net import CARRIERS, VIEWS, Kernel, Net, scaling_operators
from bncheck.facts.errors import BncheckError
from bncheck.facts.measurements import Precision, Unmatched
from bncheck.numerics.channels import median
from bncheck.recognise.lite.by_lite import LINEAR
from bncheck.sources.raw import RawLiteOperator

FUSABLE = frozenset({"RELU", "RELU6", "RELU_N1_TO_1", "TANH", "SIGN_BIT"})
_FAMILIES = {
    "CONV_2D": "linear",
    "FULLY_CONNECTED": "linear",
    "AVERAGE_POOL_2D": "mean",
    "MEAN": "mean",
    "PADV2": "PAD",
}
_SCORES = frozenset({"SOFTMAX", "LOGISTIC"})
"""Operators that people put behind a model, or take away, when they export it."""
_ONE_SIZE = 0.1
_COMMUTES = frozenset({"ADD", "MUL", "MAXIMUM", "MINIMUM"})
SAME_KERNEL = 0.5
"""Cosine from which a kernel is taken for the quantized form of another; of unrelated ones it is near 0."""
SURE_KERNEL = 0.8
"""The same where nothing but the kernel tells."""


@dataclass(frozen=True, kw_only=True)
class OperatorPair:
    """An operator of the quantized file and the one of the float file that computes the same."""

    quantized: int
    reference: int | None
    """None for a QUANTIZE, which has no counterpart: it gives what it is given."""
    likeness: float | None = None
    """Cosine of the two kernels; None where there is none to compare."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Matching:
    """Two files, tensor by tensor."""

    quantized: Net
    reference: Net
    tensors: Mapping[int, int]
    """Tensor of the quantized file -> the one of the float file that it stands for."""
    pairs: tuple[OperatorPair, ...]
    """In the quantized file's order."""
    outputs: tuple[tuple[int, int], ...]
    """(output of the quantized file, output of the float file), in the float file's order."""
    compared: tuple[tuple[int, int], ...]
    """The tensors that are compared for each: the outputs, or what only one of the files applies a SOFTMAX to."""
    unmatched: tuple[Unmatched, ...]


@dataclass(kw_only=True, eq=False)
class _PairSearch:
    """The matching as it grows."""

    quantized: Net
    reference: Net
    tensors: dict[int, int] = field(default_factory=dict)
    pairs: list[OperatorPair] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    """Operators of the float file that are taken."""
    before_activation: dict[int, RawLiteOperator] = field(default_factory=dict)
    """Tensor of the quantized file before its activation -> the float operator that it is fused into."""
    why: dict[int, str] = field(default_factory=dict)
    """Tensor of the quantized file without counterpart -> reason."""
    fused: dict[int, str] = field(default_factory=dict)
    """Tensor of the float file that the quantized one has only after its activation -> reason."""
    readers: dict[int, list[RawLiteOperator]] = field(default_factory=lambda: defaultdict(list))
    """Tensor of the float file -> operators that read it, through carriers."""
    kernels: dict[tuple[bool, int], Kernel | None] = field(default_factory=dict)
    """(is the quantized file, operator) -> its kernel."""


def match(quantized: LiteFile, reference: LiteFile) -> Matching:
    """Matches two files of one model. Raises BncheckError where they are of different models."""
    quantized = fed_alike(quantized, reference)
    search = _PairSearch(quantized=Net.of(quantized.graph), reference=Net.of(reference.graph))
    for operator in reference.graph.operators:
        if operator.kind not in CARRIERS:
            for number in search.reference.data_inputs(operator):
                search.readers[search.reference.behind(number, CARRIERS)].append(operator)
    theirs = dict(zip(reference.fields, reference.graph.inputs, strict=True))
    for number, place in zip(quantized.graph.inputs, quantized.fields, strict=True):
        search.tensors[number] = theirs[place]
    for operator in quantized.graph.operators:
        _match_operator(search, operator)
    outputs = _match_outputs(search)
    _same_model(search, quantized, reference)
    _same_preparation(search, quantized.path)
    return Matching(
        quantized=search.quantized,
        reference=search.reference,
        tensors=search.tensors,
        pairs=tuple(search.pairs),
        outputs=outputs,
        compared=tuple(_before_scores(search, *pair) for pair in outputs),
        unmatched=tuple(_unmatched(search)),
    )


def _match_operator(search: _PairSearch, operator: RawLiteOperator) -> None:
    ours = search.quantized
    outputs = ours.data_outputs(operator)
    data = ours.data_inputs(operator)
    if operator.kind in VIEWS | {"DEQUANTIZE"} or operator.index in ours.turning or not outputs or not data:
        return
    behind = [ours.behind(ours.before_rotation(operator, number)) for number in data]
    images = [search.tensors.get(number) for number in behind]
    if operator.kind == "QUANTIZE":
        if images[0] is not None:
            search.tensors[outputs[0]] = images[0]
            search.pairs.append(OperatorPair(quantized=operator.index, reference=None))
        else:
            search.why[outputs[0]] = f"it reads {ours.tensor(behind[0]).name}, which has no counterpart"
        return
    if operator.kind in FUSABLE and behind[0] in search.before_activation:
        fused = search.before_activation[behind[0]]
        search.tensors[outputs[0]] = fused.outputs[0]
        search.pairs.append(OperatorPair(quantized=operator.index, reference=fused.index))
        return
    known = [search.reference.behind(image, CARRIERS) for image in images if image is not None]
    found = _counterpart(search, operator, known if len(known) == len(data) else None)
    if found is None:
        lost = next((number for number, image in zip(behind, images, strict=True) if image is None), None)
        reason = (
            f"no {operator.kind} of the float file reads the same"
            if lost is None
            else f"it reads {ours.tensor(lost).name}, which has no counterpart"
        )
        search.why.update(dict.fromkeys(outputs, reason))
        return
    partner, likeness = found
    search.used.add(partner.index)
    search.pairs.append(OperatorPair(quantized=operator.index, reference=partner.index, likeness=likeness))
    _infer_inputs(search, behind, images, partner)
    _match_results(search, operator, partner)


def _counterpart(
    search: _PairSearch, operator: RawLiteOperator, images: list[int] | None
) -> tuple[RawLiteOperator, float | None] | None:
    """The float operator that computes the same, with the likeness of kernels; by wiring, else by kernel alone."""
    wired = [] if not images else _wired(search, operator, images)
    scored = [(candidate, _likeness(search, operator, candidate)) for candidate in wired]
    alike = [pair for pair in scored if pair[1] is None or pair[1] >= SAME_KERNEL]
    if alike:
        return max(alike, key=lambda pair: (pair[1] or 0.0, _same_name(search, operator, pair[0]), -pair[0].index))
    sure = _by_kernel(search, operator)
    if sure is not None:
        return sure
    return scored[0] if len(scored) == 1 else None


def _wired(search: _PairSearch, operator: RawLiteOperator, images: list[int]) -> list[RawLiteOperator]:
    """Free operators of the same kind that read the same tensors and give as many numbers."""
    order = sorted if operator.kind in _COMMUTES else list
    return [
        candidate
        for candidate in dict.fromkeys(search.readers[images[0]])
        if candidate.index not in search.used
        and _family(candidate) == _family(operator)
        and order(search.reference.behind(n, CARRIERS) for n in search.reference.data_inputs(candidate))
        == order(images)
        and _same_size(search, operator.outputs, candidate.outputs)
    ]


def _by_kernel(search: _PairSearch, operator: RawLiteOperator) -> tuple[RawLiteOperator, float] | None:
    if operator.kind not in LINEAR:
        return None
    best: tuple[RawLiteOperator, float] | None = None
    for candidate in search.reference.graph.operators:
        if candidate.index in search.used or _family(candidate) != _family(operator):
            continue
        likeness = _likeness(search, operator, candidate)
        if likeness is not None and likeness >= SURE_KERNEL and (best is None or likeness > best[1] + 1e-6):
            best = (candidate, likeness)
    return best


def _likeness(search: _PairSearch, operator: RawLiteOperator, candidate: RawLiteOperator) -> float | None:
    """Cosine of two kernels: of the whole, or the median over channels, which other fold scales leave as it is.

    0 where their shapes differ; None where one of them has none.
    """
    ours = _kernel(search, operator, quantized=True)
    theirs = _kernel(search, candidate, quantized=False)
    if ours is None or theirs is None:
        return None
    if ours.shape != theirs.shape:
        return 0.0
    with np.errstate(all="ignore"):
        product = np.sum(ours * theirs, axis=1)
        norms = np.sqrt(np.sum(ours**2, axis=1) * np.sum(theirs**2, axis=1))
        whole = float(np.sum(product) / np.sqrt(np.sum(ours**2) * np.sum(theirs**2)))
        each = product[norms > 0] / norms[norms > 0]
    usual = median(each) if each.size and ours.shape[1] >= 4 else whole
    likenesses = [value for value in (whole, usual) if np.isfinite(value)]
    return max(likenesses, default=None)


def _kernel(search: _PairSearch, operator: RawLiteOperator, *, quantized: bool) -> Kernel | None:
    key = (quantized, operator.index)
    if key not in search.kernels:
        search.kernels[key] = (search.quantized if quantized else search.reference).kernel(operator)
    return search.kernels[key]


def _infer_inputs(search: _PairSearch, behind: list[int], images: list[int | None], partner: RawLiteOperator) -> None:
    """What two operators with one kernel read is the same, even where it was computed in other ways."""
    theirs = search.reference.data_inputs(partner)
    if len(theirs) != len(behind):
        return
    taken = set(search.tensors.values())
    for number, image, other in zip(behind, images, theirs, strict=True):
        source = search.reference.behind(other, CARRIERS)
        if image is None and source not in taken and _same_elements(search, number, source):
            search.tensors[number] = source
            search.why.pop(number, None)


def _match_results(search: _PairSearch, operator: RawLiteOperator, partner: RawLiteOperator) -> None:
    ours, theirs = search.quantized, search.reference
    out, other = operator.outputs[0], partner.outputs[0]
    if operator.activation != partner.activation and len(operator.outputs) == 1:
        if partner.activation == "NONE":
            follower = _only_reader(theirs, other)
            if follower is None or follower.kind != operator.activation:
                search.why[out] = f"{operator.activation} is fused into it; the float file has none there"
                return
            search.used.add(follower.index)
            search.fused[other] = f"the quantized file has it after its {operator.activation} only"
            other = follower.outputs[0]
        elif operator.activation == "NONE":
            follower = _only_reader(ours, out)
            if follower is not None and follower.kind == partner.activation:
                search.before_activation[out] = partner
                search.why[out] = f"the float file has it after its {partner.activation} only"
                return
    search.tensors[out] = other
    for rest, other_rest in zip(operator.outputs[1:], partner.outputs[1:], strict=False):
        search.tensors[rest] = other_rest


def _only_reader(wiring: Net, number: int) -> RawLiteOperator | None:
    found = wiring.readers.get(number, ())
    while len(found) == 1 and found[0].kind in CARRIERS:
        found = wiring.readers.get(found[0].outputs[0], ())
    return found[0] if len(found) == 1 else None


def _match_outputs(search: _PairSearch) -> tuple[tuple[int, int], ...]:
    """The outputs that go together: by their wiring, the rest by their order where they are of one size."""
    ours, theirs = search.quantized.graph.outputs, search.reference.graph.outputs
    left = list(ours)
    found: dict[int, int] = {}
    for other in theirs:
        source = search.reference.behind(other, CARRIERS)
        for number in left:
            image = search.tensors.get(search.quantized.behind(number))
            if image is not None and search.reference.behind(image, CARRIERS) == source:
                found[other] = number
                left.remove(number)
                break
    if len(ours) == len(theirs):
        for number, other in zip(ours, theirs, strict=True):
            if other not in found and number in left and _same_elements(search, number, other):
                found[other] = number
                left.remove(number)
                search.tensors.setdefault(search.quantized.behind(number), search.reference.behind(other, CARRIERS))
                search.why.pop(search.quantized.behind(number), None)
    return tuple((found[other], other) for other in theirs if other in found)


def _before_scores(search: _PairSearch, number: int, other: int) -> tuple[int, int]:
    """Two outputs as far as both files compute them: where one of them ends in a SOFTMAX, its input."""
    ours, theirs = search.quantized, search.reference
    computed, source = ours.behind(number), theirs.behind(other, CARRIERS)
    maker, their_maker = ours.makers.get(computed), theirs.makers.get(source)
    if maker is not None and maker.kind in _SCORES:
        before = ours.behind(maker.inputs[0])
        image = search.tensors.get(before)
        if image is not None and theirs.behind(image, CARRIERS) == source:
            return before, other
    if their_maker is not None and their_maker.kind in _SCORES:
        before = theirs.behind(their_maker.inputs[0], CARRIERS)
        image = search.tensors.get(computed)
        if image is not None and theirs.behind(image, CARRIERS) == before:
            return number, before
    return number, other


def _same_model(search: _PairSearch, quantized: LiteFile, reference: LiteFile) -> None:
    """Raises BncheckError where too few operators go together, or their kernels are not alike."""
    linear = [o for o in quantized.graph.operators if search.quantized.kernel_tensor(o) is not None]
    theirs = sum(search.reference.kernel_tensor(o) is not None for o in reference.graph.operators)
    matched = {pair.quantized: pair for pair in search.pairs}
    pairs = [matched[operator.index] for operator in linear if operator.index in matched]
    if not search.pairs or 2 * len(pairs) < max(len(linear), theirs):
        raise BncheckError(
            f"{quantized.path} is not a quantized form of this model: {len(pairs)} of its {len(linear)} convolution "
            f"and dense operators have a counterpart among the model's {theirs}"
        )
    likenesses = [pair.likeness for pair in pairs if pair.likeness is not None]
    if likenesses and (usual := median(np.array(likenesses))) < SAME_KERNEL:
        raise BncheckError(
            f"{quantized.path} has this model's operators but other weights: the median kernel has a cosine of "
            f"{usual:.2f} with the model's: it was converted from another model or checkpoint"
        )


def _same_preparation(search: _PairSearch, path: str) -> None:
    """Raises BncheckError where one file scales its input before the first layer and the other has nothing for it.

    Where the kernel behind it took the scale in, both give the same all the same.
    """
    first = next((pair for pair in search.pairs if pair.likeness is not None and pair.reference is not None), None)
    if first is None or not _as_large(search, first):
        return
    matched = {pair.quantized for pair in search.pairs}
    sides = ((search.quantized, matched, path, "the model"), (search.reference, search.used, "the model", path))
    for wiring, known, one, other in sides:
        kinds = scaling_operators(wiring, known)
        if kinds:
            raise BncheckError(
                f"{one} scales its input itself ({', '.join(kinds)}), {other} does not, so the same data mean "
                f"different things to each: give the model that {path} was converted from"
            )


def _as_large(search: _PairSearch, pair: OperatorPair) -> bool:
    """Whether the kernels of a pair are of one size, so that neither holds a scale that the other lacks."""
    ours, theirs = search.kernels.get((True, pair.quantized)), search.kernels.get((False, pair.reference or 0))
    if ours is None or theirs is None:
        return False
    with np.errstate(all="ignore"):
        ratio = float(np.sqrt(np.sum(ours**2) / np.sum(theirs**2)))
    return abs(ratio - 1) < _ONE_SIZE


def _unmatched(search: _PairSearch) -> Iterable[Unmatched]:
    for number, why in sorted(search.why.items()):
        if number not in search.tensors:
            yield Unmatched(name=search.quantized.tensor(number).name, side=Precision.QUANTIZED, why=why)
    images = {search.reference.behind(image, CARRIERS) for image in search.tensors.values()}
    for operator in search.reference.graph.operators:
        if operator.kind in CARRIERS or not search.reference.data_inputs(operator):
            continue
        for number in search.reference.data_outputs(operator):
            if number not in images:
                why = search.fused.get(number, f"no {operator.kind} of the quantized file computes it")
                yield Unmatched(name=search.reference.tensor(number).name, side=Precision.FLOAT, why=why)


def _family(operator: RawLiteOperator) -> str:
    return _FAMILIES.get(operator.kind, operator.kind)


def _same_name(search: _PairSearch, operator: RawLiteOperator, candidate: RawLiteOperator) -> bool:
    ours, theirs = search.quantized.tensor(operator.outputs[0]), search.reference.tensor(candidate.outputs[0])
    return ours.name == theirs.name


def _same_size(search: _PairSearch, ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    return len(ours) == len(theirs) and all(_same_elements(search, a, b) for a, b in zip(ours, theirs, strict=True))


def _same_elements(search: _PairSearch, number: int, other: int) -> bool:
    ours, theirs = search.quantized.elements(number), search.reference.elements(other)
    return ours is None or theirs is None or ours == theirs
