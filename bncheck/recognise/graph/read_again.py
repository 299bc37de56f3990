"""Checkpoints of one run have one graph: it is recognised once, and only what they store is read for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from numpy.typing import NDArray

from bncheck.facts.errors import ReadError
from bncheck.facts.layers import Facts, Layer, Linear, Presence, Vector
from bncheck.facts.record import replace
from bncheck.recognise.graph.by_graph import KnownRun, facts_of_view, found_layers, graph_facts, joined, paired_sites
from bncheck.recognise.graph.trace import FAKE_QUANT, VARIABLES
from bncheck.recognise.graph.view import GraphView, view_graph
from bncheck.recognise.kernel_sizes import linear_before, with_weights
from bncheck.recognise.predicted.graph_wiring import GraphWiring
from bncheck.recognise.stored_vectors import all_with_values, vector
from bncheck.recognise.training_progress import progress_keys, with_starts
from bncheck.settings.options import Options
from bncheck.sources.bundle.checkpoint import Tensors
from bncheck.sources.raw import RawModel, RawTensor

_Arrays: TypeAlias = Mapping[str, NDArray[Any]]
"""Key -> what is stored under it."""


class _Recording(Mapping[str, RawTensor]):
    """Tensors, and which of them were asked for."""

    def __init__(self, tensors: Mapping[str, RawTensor]) -> None:
        self._tensors = tensors
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> RawTensor:
        self.asked.add(key)
        return self._tensors[key]

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class _WithArrays(_Recording):
    """Tensors, some of which were read."""

    def __init__(self, tensors: Mapping[str, RawTensor], stored: _Arrays) -> None:
        super().__init__(tensors)
        self._stored = stored

    def __getitem__(self, key: str) -> RawTensor:
        if key not in self._stored:
            return self._tensors[key]
        values = self._stored[key]
        return replace(self._tensors[key], read=lambda: values)


class SharedGraph:
    """A recognised graph, and the layers of the first checkpoint that it was recognised with."""

    def __init__(self, raw: RawModel, hints: Options) -> None:
        """Recognises the graph of a checkpoint. Raises ReadError where it, or a tensor, is damaged."""
        recording = _Recording(raw.tensors)
        recorded = replace(raw, tensors=recording)
        self._hints = hints
        self._first = raw.tensors
        self._view = view_graph(recorded, hints)
        self._paired = paired_sites(self._view)
        self._layers = found_layers(self._view, self._paired, hints)
        self._whole = graph_facts(self._view)
        wiring = GraphWiring(self._view.flat, self._view.stored)
        self._known = KnownRun(counters=with_starts(progress_keys(raw.tensors), raw.tensors), wiring=wiring)
        self._kernels = self._kernel_keys()
        vectors = [one for one in _vectors(self._layers) if one.key]
        self._others = recording.asked - {one.key for one in vectors} - set(self._kernels.values())
        self._present = [one for one in vectors if one.presence is Presence.PRESENT]
        self._of_vectors = [one.key for one in self._present]
        self._of_kernels = [
            self._kernels[site.linear.kernel]
            for layer in self._layers
            for site in layer.sites
            if site.linear is not None and site.linear.channel_max is not None and site.linear.kernel in self._kernels
        ]
        self._bare = without_kernels(self._layers)
        self._without_kernels = object()
        """`Facts.like` of facts without what kernels tell."""

    def facts(self, raw: RawModel, *, kernels: bool = True) -> Facts:
        """What `recognise_graph` makes of another checkpoint with this graph, bit for bit. Raises ReadError.

        Where the layout of its tensors differs, or the graph lets a value decide what is recognised (a decay, a switch,
        ranges of rounding), only the graph itself is shared. Else `kernels` may be left unread: then no layer has a
        prediction, nor a linear layer the size of its weights.
        """
        view = replace(self._view, stored=self._view.stored.of(raw), raw=raw.graphs[0])
        tensors = raw.tensors
        if isinstance(tensors, Tensors) and self._same_but_for_values(tensors):
            try:
                return self._again(raw, view, tensors, kernels=kernels)
            except ReadError:
                pass  # told below, in the order in which a lone checkpoint is read
        return facts_of_view(raw, view, self._hints)

    def _same_but_for_values(self, tensors: Tensors) -> bool:
        first = self._first
        if not FAKE_QUANT.isdisjoint(self._view.flat.by_op) or self._view.writes.copies:
            return False
        return isinstance(first, Tensors) and tensors.same_layout(first) and tensors.same_values(first, self._others)

    def _again(self, raw: RawModel, view: GraphView, tensors: Tensors, *, kernels: bool) -> Facts:
        stored = tensors.read_all(self._of_vectors + (self._of_kernels if kernels else []))
        view = replace(view, stored=view.stored.of(replace(raw, tensors=_WithArrays(tensors, stored))))
        made = all_with_values(self._present, [stored[one.key] for one in self._present])
        vectors = {id(known): one for known, one in zip(self._present, made, strict=True)}
        known: Iterable[Layer] = self._bare
        if kernels:
            known = [_with_linear(layer, lambda one: self._linear(one, tensors, stored)) for layer in self._layers]
        layers = tuple(self._filled(layer, tensors, vectors) for layer in known)
        whole = replace(self._whole, path=str(view.raw.path))
        found = joined(
            raw, view, self._hints, layers, paired=self._paired, whole=whole, known=self._known, predict=kernels
        )
        return replace(found, like=self._known if kernels else self._without_kernels)

    def _filled(self, layer: Layer, tensors: Tensors, vectors: Mapping[int, Vector]) -> Layer:
        def again(known: Vector) -> Vector:
            if id(known) in vectors or not known.key:
                return vectors.get(id(known), known)
            return vector(known.role, tensors[known.key], name=known.name, initial=known.initial)

        return replace(
            layer,
            mean=again(layer.mean),
            variance=again(layer.variance),
            gamma=again(layer.gamma),
            beta=again(layer.beta),
            shadow_statistics={role: again(v) for role, v in layer.shadow_statistics.items()},
        )

    def _linear(self, linear: Linear | None, tensors: Tensors, stored: _Arrays) -> Linear | None:
        if linear is None or linear.kernel not in self._kernels:
            return linear
        key = self._kernels[linear.kernel]
        if key in stored:
            return with_weights(linear, stored[key])
        return replace(linear_before(linear.name, linear.op, tensors[key]), kernel=linear.kernel)

    def _kernel_keys(self) -> dict[str, str]:
        """Name of a kernel's variable -> its key, of those that are stored as variables."""
        view = self._view
        kernels = {site.linear.kernel for layer in self._layers for site in layer.sites if site.linear is not None}
        nodes = [node for op in sorted(VARIABLES) for node in view.flat.by_op.get(op, ())]
        named = {view.stored.name(node): node for node in nodes if view.stored.name(node) in kernels}
        found = {name: view.stored.tensor(node) for name, node in named.items()}
        return {name: tensor.name for name, tensor in found.items() if tensor is not None}


def without_kernels(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Layers as they are where kernels stay unread."""
    return tuple(replace(_with_linear(layer, _unread), predicted=None) for layer in layers)


def _with_linear(layer: Layer, made: Callable[[Linear | None], Linear | None]) -> Layer:
    """A layer with what is made of the linear operators before it; of one that it shares with a site, once."""
    linears = [made(site.linear) for site in layer.sites]
    place = next((n for n, site in enumerate(layer.sites) if site.linear is layer.linear), None)
    return replace(
        layer,
        sites=tuple(replace(site, linear=linear) for site, linear in zip(layer.sites, linears, strict=True)),
        linear=made(layer.linear) if place is None else linears[place],
    )


def _unread(linear: Linear | None) -> Linear | None:
    return None if linear is None else replace(linear, channel_max=None, channel_rms=None, channel_mean=None)


def _vectors(layers: Iterable[Layer]) -> Iterator[Vector]:
    for layer in layers:
        yield from (layer.mean, layer.variance, layer.gamma, layer.beta, *layer.shadow_statistics.values())
