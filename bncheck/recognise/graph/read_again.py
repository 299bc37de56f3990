"""Checkpoints of one run have one graph: it is recognised once, and only what they store is read for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from bncheck.facts.layers import Facts, Layer, Linear, Vector
from bncheck.recognise.graph.by_graph import facts_of_view, found_layers, graph_facts, joined, paired_sites
from bncheck.recognise.graph.trace import FAKE_QUANT, VARIABLES
from bncheck.recognise.graph.view import view_graph
from bncheck.recognise.kernel_sizes import linear_before
from bncheck.recognise.stored_vectors import vector
from bncheck.settings.options import Options
from bncheck.sources.bundle.checkpoint import Tensors
from bncheck.sources.raw import RawModel, RawTensor


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
        self._read = frozenset(_keys(self._layers))
        self._kernels = self._kernel_keys()
        self._others = recording.asked - self._read - set(self._kernels.values())

    def facts(self, raw: RawModel) -> Facts:
        """What `recognise_graph` makes of another checkpoint with this graph, bit for bit. Raises ReadError.

        Where the layout of its tensors differs, or the graph lets a value decide what is recognised (a decay, a switch,
        ranges of rounding), only the graph itself is shared.
        """
        view = replace(self._view, stored=self._view.stored.of(raw), raw=raw.graphs[0])
        if not self._same_but_for_values(raw.tensors):
            return facts_of_view(raw, view, self._hints)
        layers = tuple(self._again(layer, raw.tensors) for layer in self._layers)
        whole = replace(self._whole, path=str(view.raw.path))
        return joined(raw, view, self._hints, layers, paired=self._paired, whole=whole)

    def _same_but_for_values(self, tensors: Mapping[str, RawTensor]) -> bool:
        first = self._first
        if not isinstance(first, Tensors) or not isinstance(tensors, Tensors):
            return False
        if not FAKE_QUANT.isdisjoint(self._view.flat.by_op) or self._view.writes.copies:
            return False
        changed = tensors.changed_since(first)
        return changed is not None and changed.isdisjoint(self._others)

    def _again(self, layer: Layer, tensors: Mapping[str, RawTensor]) -> Layer:
        sites = tuple(replace(site, linear=self._linear(site.linear, tensors)) for site in layer.sites)
        shared = [site.linear for site in layer.sites]
        place = next((n for n, one in enumerate(shared) if one is layer.linear), None)
        return replace(
            layer,
            mean=_vector(layer.mean, tensors),
            variance=_vector(layer.variance, tensors),
            gamma=_vector(layer.gamma, tensors),
            beta=_vector(layer.beta, tensors),
            sites=sites,
            linear=layer.linear if place is None else sites[place].linear,
            shadow_statistics={role: _vector(v, tensors) for role, v in layer.shadow_statistics.items()},
        )

    def _linear(self, linear: Linear | None, tensors: Mapping[str, RawTensor]) -> Linear | None:
        if linear is None or linear.kernel not in self._kernels:
            return linear
        key = self._kernels[linear.kernel]
        return replace(linear_before(linear.name, linear.op, tensors[key]), kernel=linear.kernel)

    def _kernel_keys(self) -> dict[str, str]:
        """Name of a kernel's variable -> its key, of those that are stored as variables."""
        view = self._view
        kernels = {site.linear.kernel for layer in self._layers for site in layer.sites if site.linear is not None}
        nodes = [node for op in sorted(VARIABLES) for node in view.flat.by_op.get(op, ())]
        named = {view.stored.name(node): node for node in nodes if view.stored.name(node) in kernels}
        found = {name: view.stored.tensor(node) for name, node in named.items()}
        return {name: tensor.name for name, tensor in found.items() if tensor is not None}


def _keys(layers: tuple[Layer, ...]) -> Iterator[str]:
    for layer in layers:
        for one in (layer.mean, layer.variance, layer.gamma, layer.beta, *layer.shadow_statistics.values()):
            if one.key:
                yield one.key


def _vector(known: Vector, tensors: Mapping[str, RawTensor]) -> Vector:
    if not known.key:
        return known
    return vector(known.role, tensors[known.key], name=known.name, initial=known.initial)
