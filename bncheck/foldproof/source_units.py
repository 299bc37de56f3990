"""What a model's own files say should be folded: each layer's kernel, bias, gamma, beta, statistics."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Facts, Layer, Linear, Mode, Presence, Role, Site, Vector
from bncheck.foldproof.neighbours import ANYWHERE, Arithmetic, Neighbours, nothing_known, of_configuration, of_graph
from bncheck.numerics.fold import gamma_and_beta
from bncheck.numerics.kernel_layouts import DEPTHWISE, TRANSPOSED
from bncheck.recognise import recognise
from bncheck.recognise.auxiliary import SHADOW
from bncheck.recognise.channels_last import channels_last
from bncheck.recognise.graph.flat import node_of
from bncheck.recognise.kernel_sizes import MAX_KERNEL, kernel_bytes
from bncheck.recognise.named.slots import ATTRIBUTE, is_slot
from bncheck.recognise.onnx.values import OnnxWiring, real_constants
from bncheck.recognise.stored_vectors import per_channel
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel, RawTensor

Array = NDArray[np.float64]
Find = Callable[[str], "RawTensor | None"]
"""Name of a variable, constant or key -> what is stored of it."""
Tensors = Callable[[], Iterator[RawTensor]]
"""All stored floats that can be read, but an optimizer's."""

_FLOATS = frozenset({"bfloat16", "float16", "float32", "float64"})
_MATRICES = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"})
_BIAS_LEAVES = ("bias", "biases", "b")
_LEAF = re.compile(r"[^/.]+$")
"""The last part of a name; PyTorch puts dots between them."""
_NUMBERED = re.compile(r"(.*/(?:vars/|param_))(\d+)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Kernel:
    """A stored kernel, and the forms (channels, fan-in) that its op may give it."""

    tensor: RawTensor
    op: str
    """Empty where it is not known: every form that its rank allows is tried."""

    def forms(self, channels: int) -> Iterator[NDArray[Any]]:
        """In the type that is stored. Raises ReadError where it is damaged."""
        values = self.tensor.read()
        for axis, depthwise in _layouts(self.op, values.shape, channels):
            joined = values.reshape(*values.shape[:-2], -1) if depthwise else values
            moved = np.moveaxis(joined, axis, 0)
            yield moved.reshape(moved.shape[0], -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Kernel, convolution bias, gamma and beta that belong together."""

    told: str
    """"stored", "shadow" or "reference"."""
    kernel: Kernel | None
    bias: Array
    gamma: Array
    beta: Array
    bias_terms: Array | None = None
    """Sum of the magnitudes that `bias` is the difference of; None: it is one number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """A mean and a variance that may have been folded."""

    folded: str
    """As in `FoldedLayer.folded`."""
    mean: Array
    variance: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit:
    """One layer as it should be found."""

    layer: Layer
    number: int
    """Position among the model's layers."""
    channels: int
    weights: tuple[Weights, ...] = ()
    """The stored ones first."""
    statistics: tuple[Statistics, ...] = ()
    epsilons: tuple[float, ...] = ()
    """As the model says; empty where it does not."""
    never_moved: bool = False
    """The stored statistics are the initial ones, though gamma or beta moved."""
    linear: Linear | None = None
    problem: str = ""
    """Why the layer cannot be computed; empty where it can."""
    beside: Arithmetic = ANYWHERE
    """Where the converter may have found something to take in."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A model with what the proof asks of it."""

    facts: Facts
    units: tuple[Unit, ...]
    find: Find
    tensors: Tensors
    ordered: bool
    """Whether layers come in forward order."""

    def kernels(self) -> Iterator[Kernel]:
        """Kernels of a model that does not tell which layer has which: matrices of floats that no optimizer keeps."""
        for tensor in self.tensors():
            if len(tensor.shape) >= 2 and 0 not in tensor.shape and kernel_bytes(tensor) <= MAX_KERNEL:
                yield Kernel(tensor=tensor, op="")

    def vectors(self, channels: int) -> Iterator[tuple[str, Array]]:
        """(name, values) of every stored vector of floats of that length. Raises ReadError."""
        for tensor in self.tensors():
            if tensor.shape == (channels,):
                yield tensor.name, per_channel(tensor)


def source_of(raw: RawModel, facts: Facts | None = None, reference: RawModel | None = None) -> Source:
    """Reads everything but the kernels. Raises ReadError where a file is damaged."""
    opened = _opened(raw, facts)
    other = None if reference is None else _opened(reference, None)
    known = {} if other is None else {layer.name: layer for layer in other.facts.layers}
    units = []
    for number, layer in enumerate(opened.facts.layers):
        twin = known.get(layer.name)
        unit = _unit(number, layer, opened.find, twin, None if other is None else other.find)
        units.append(replace(unit, beside=opened.neighbours(layer)))
    return Source(
        facts=opened.facts,
        units=tuple(units),
        find=opened.find,
        tensors=opened.tensors,
        ordered=not raw.format.is_pytorch and any(layer.sites for layer in opened.facts.layers),
    )


def bias_beside(kernel: RawTensor, find: Find, channels: int) -> Array | None:
    """The bias beside a kernel, by the names in use or, in Keras 3, the number behind it. Raises ReadError."""
    name, suffix = kernel.name, ""
    for ending in (ATTRIBUTE, ":0", SHADOW):
        if name.endswith(ending):
            name, suffix = name.removesuffix(ending), ending
    numbered = _NUMBERED.fullmatch(name)
    if numbered is not None:
        return _vector_of(find(f"{numbered[1]}{int(numbered[2]) + 1}"), channels)
    found = (_vector_of(find(_LEAF.sub(leaf, name) + suffix), channels) for leaf in _BIAS_LEAVES)
    return next((bias for bias in found if bias is not None), None)


class _Opened(NamedTuple):
    facts: Facts
    find: Find
    tensors: Tensors
    neighbours: Neighbours


def _opened(raw: RawModel, facts: Facts | None) -> _Opened:
    """Facts of a model, recognised where they are not at hand, and ways to its stored tensors."""

    def stored() -> Iterator[RawTensor]:
        for key in raw.tensors:
            tensor = raw.tensors[key]
            if tensor.dtype in _FLOATS and tensor.unavailable is None and not is_slot(key, raw.tensors):
                yield tensor

    if raw.onnx is not None or raw.format.is_pytorch:
        return _of_other_layout(raw, facts)
    if not raw.graphs:
        own = {tensor.name: tensor for layer in raw.keras.layers for tensor in layer.weights} if raw.keras else {}
        beside = nothing_known if raw.keras is None else of_configuration(raw.keras)
        known = facts or recognise(raw, Options())
        return _Opened(known, lambda name: own.get(name) or raw.tensors.get(name), stored, beside)
    from bncheck.recognise.graph.by_graph import facts_of_view  # noqa: PLC0415 - only for graphs
    from bncheck.recognise.graph.trace import VARIABLES, variable_name  # noqa: PLC0415 - as above
    from bncheck.recognise.graph.view import view_graph  # noqa: PLC0415 - as above

    view = view_graph(raw, Options())
    flat = view.flat
    variables = {variable_name(flat, node): node for op in sorted(VARIABLES) for node in flat.by_op.get(op, ())}

    def by_node(name: str) -> RawTensor | None:
        edge = flat.lookup(name)
        node = variables.get(name, None if edge is None else node_of(edge))
        found = None if node is None else view.stored.tensor(node)
        return found or raw.tensors.get(name)

    def constants() -> Iterator[RawTensor]:
        for node in flat.by_op.get("Const", ()):
            tensor = view.stored.tensor(node)
            if tensor is not None and tensor.dtype in _FLOATS and tensor.unavailable is None:
                yield tensor

    known = facts or facts_of_view(raw, view, Options())
    return _Opened(known, by_node, stored if raw.tensors else constants, of_graph(view))


def _of_other_layout(raw: RawModel, facts: Facts | None) -> _Opened:
    """Of PyTorch and ONNX, with convolutions' kernels in TensorFlow's order of axes."""
    held = raw.tensors if raw.onnx is None else real_constants(OnnxWiring.of(raw))

    def laid_out(name: str) -> RawTensor | None:
        tensor = held.get(name)
        return channels_last(tensor) if tensor is not None and len(tensor.shape) > 2 else tensor

    def stored() -> Iterator[RawTensor]:
        for name in held:
            tensor = laid_out(name)
            if tensor is not None and tensor.dtype in _FLOATS and tensor.unavailable is None:
                yield tensor

    return _Opened(facts or recognise(raw, Options()), laid_out, stored, nothing_known)


def _unit(number: int, layer: Layer, find: Find, twin: Layer | None, find_twin: Find | None) -> Unit:
    site = _site(layer)
    channels = layer.channels or 0
    linear = layer.linear if site is None or site.linear is None else site.linear
    bare = Unit(layer=layer, number=number, channels=channels, linear=linear)
    problem = _problem(layer)
    if problem:
        return replace(bare, problem=problem)
    sets = list(_weights(layer, site, linear, find, channels))
    moved = [*_statistics(layer, channels)]
    if twin is not None and find_twin is not None and not _problem(twin) and twin.channels == channels:
        twin_site = _site(twin)
        twin_linear = twin.linear or linear
        found = next(iter(_weights(twin, twin_site, twin_linear, find_twin, channels)))
        sets.append(replace(found, told="reference"))
        moved += [Statistics(folded="reference", mean=s.mean, variance=s.variance) for s in [*_stored(twin)]]
    epsilons = [layer.epsilon, *(one.epsilon for one in layer.sites)]
    return replace(
        bare,
        weights=tuple(sets),
        statistics=tuple(moved),
        epsilons=tuple(dict.fromkeys(e for e in epsilons if e is not None)),
        never_moved=all(v.moved is False for v in layer.statistics) and layer.affine_moved is not False,
    )


def _site(layer: Layer) -> Site | None:
    """The one that serves."""
    steady = [site for site in layer.sites if site.mode in (Mode.EVAL, Mode.SWITCHED)] or list(layer.sites)
    return next((site for site in steady if site.linear is not None), steady[0] if steady else None)


def _problem(layer: Layer) -> str:
    if not layer.channels:
        return "its number of channels is not known"
    for vector in (layer.mean, layer.variance, layer.gamma, layer.beta):
        if vector.presence is Presence.ABSENT and vector.role in (Role.GAMMA, Role.BETA):
            continue
        if vector.values is None or vector.values.size != layer.channels:
            why = f" ({vector.reason})" if vector.reason else ""
            return f"its {vector.role.value} is {vector.presence.value}{why}"
    return ""


def _weights(layer: Layer, site: Site | None, linear: Linear | None, find: Find, channels: int) -> Iterator[Weights]:
    """The stored weights and, where the file has averages of any of them, those."""
    tensor = find(linear.kernel) if linear is not None and linear.kernel else None
    kernel = None if tensor is None or linear is None else Kernel(tensor=tensor, op=linear.op)
    bias_name = None if site is None else site.bias
    bias = _vector_of(find(bias_name), channels) if bias_name else None
    by_names = site is None or site.linear is None
    if bias is None and kernel is not None and by_names:
        bias = bias_beside(kernel.tensor, find, channels)
    bias = np.zeros(channels) if bias is None else bias
    gamma, beta = gamma_and_beta(layer.gamma.values, layer.beta.values, bias)
    yield Weights(told="stored", kernel=kernel, bias=bias, gamma=gamma, beta=beta)
    averaged = {role: find(key) for role, key in layer.averaged.items()}
    average = averaged.get("kernel")
    if average is None and kernel is not None:
        average = find(kernel.tensor.name + SHADOW)
    if any(found is not None for found in averaged.values()) or average is not None:
        of_bias = _vector_of(find(bias_name + SHADOW), channels) if bias_name else None
        if bias_name is None and average is not None and by_names:
            of_bias = bias_beside(average, find, channels)
        of_gamma = _vector_of(averaged.get("gamma"), channels)
        of_beta = _vector_of(averaged.get("beta"), channels)
        yield Weights(
            told="shadow",
            kernel=kernel if average is None or kernel is None else Kernel(tensor=average, op=kernel.op),
            bias=bias if of_bias is None else of_bias,
            gamma=gamma if of_gamma is None else of_gamma,
            beta=beta if of_beta is None else of_beta,
        )


def _statistics(layer: Layer, channels: int) -> Iterator[Statistics]:
    """The stored ones first, then those that a fault may have put there."""
    stored = list(_stored(layer))
    yield from stored
    shadows = layer.shadow_statistics
    if shadows:
        mean, variance = (_values(shadows.get(role.value)) for role in (Role.MEAN, Role.VARIANCE))
        yield Statistics(
            folded="shadow",
            mean=stored[0].mean if mean is None else mean,
            variance=stored[0].variance if variance is None else variance,
        )
    yield Statistics(
        folded="initial",
        mean=np.full(channels, layer.mean.starts_at),
        variance=np.full(channels, layer.variance.starts_at),
    )


def _stored(layer: Layer) -> Iterable[Statistics]:
    if layer.mean.values is not None and layer.variance.values is not None:
        yield Statistics(folded="stored", mean=layer.mean.values, variance=layer.variance.values)


def _values(vector: Vector | None) -> Array | None:
    return None if vector is None else vector.values


def _vector_of(tensor: RawTensor | None, channels: int) -> Array | None:
    if tensor is None or tensor.unavailable is not None or tensor.dtype not in _FLOATS:
        return None
    return per_channel(tensor) if int(np.prod(tensor.shape, dtype=np.int64)) == channels else None


def _layouts(op: str, shape: tuple[int, ...], channels: int) -> Iterator[tuple[int, bool]]:
    """(output channel axis, whether the last two axes are joined first), of those that give so many channels."""
    if len(shape) < 2:
        return
    depthwise, transposed = (-1, True), (-2, False)
    if op in DEPTHWISE:
        layouts = [depthwise]
    elif op in TRANSPOSED:
        layouts = [transposed]
    elif op in _MATRICES or (not op and len(shape) == 2):
        layouts = [(-1, False), transposed]
    elif op:
        layouts = [(-1, False)]
    else:
        layouts = [(-1, False), depthwise, transposed]
    for axis, joined in layouts:
        size = shape[-1] * shape[-2] if joined else shape[axis]
        if size == channels:
            yield axis, joined
