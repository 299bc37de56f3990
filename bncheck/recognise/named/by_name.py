"""Stored tensors -> layers by the names of their variables, for bare checkpoints and weight files."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from bncheck.facts.formats import FileKind
from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Debias, DecaySource, Facts, Layer, Origin, Role, Vector
from bncheck.facts.record import replace
from bncheck.recognise.auxiliary import SHADOW
from bncheck.recognise.named.flax_layers import as_flax_trains, by_module
from bncheck.recognise.named.kernel_names import with_kernels
from bncheck.recognise.named.name_families import Group, find_groups, without_statistics
from bncheck.recognise.named.pytorch_copies import with_average_copies
from bncheck.recognise.named.pytorch_layers import as_pytorch_trains, is_another_norm, with_linear_layers
from bncheck.recognise.named.slots import ATTRIBUTE, is_slot
from bncheck.recognise.stored_vectors import absent, declared, missing, with_stored
from bncheck.recognise.training_progress import run_facts
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel, RawTensor

_FLOATS = frozenset({"bfloat16", "float16", "float32", "float64"})
_STATISTICS = (Role.MEAN, Role.VARIANCE)
_SLOT_OF_BATCH_NORM = re.compile(r"[^/]+/(?:(.+)_)?(batch_normalization(?:_\d+)?)_(gamma|beta)_[a-z_]+")
"""How Keras 3 names a slot: optimizer, path of the variable with underscores, and what it is."""


def recognise_names(raw: RawModel, hints: Options) -> Facts:
    """The layers that the names of the stored tensors tell of. Raises ReadError where the file is damaged.

    An object-based checkpoint is read by its object graph first (which variables belong to one object, by the names of
    its attributes), then by the paths that are its keys, then by the variables' own names, within an object and at all.
    """
    full = _full_names(raw)
    paths = {path: key for key in raw.tensors if (path := _path(key))}
    own = {name: key for key, name in reversed(full.items())}
    namings: tuple[tuple[Mapping[str, str], Origin], ...] = (
        (_of_objects(raw), Origin.OBJECT_GRAPH),
        (paths, Origin.NAME),
        (_own_names_of_objects(raw, full), Origin.OBJECT_GRAPH),
        (own, Origin.OBJECT_GRAPH),
        (_trained_by_optimizers(raw, full), Origin.OBJECT_GRAPH),
    )
    if raw.format.kind is FileKind.FLAX:
        namings = ((by_module(raw.tensors), Origin.NAME),)
    used: set[str] = set()
    layers: list[Layer] = []
    gaps: list[Gap] = []
    for search in (find_groups, without_statistics):
        for naming, origin in namings:
            for group in search({path: key for path, key in naming.items() if key not in used}):
                keys = {role: naming[name] for role, name in group.names.items()}
                # an optimizer's copies of gamma and beta have names like a layer without statistics
                copies = search is without_statistics and any(is_slot(key, raw.tensors) for key in keys.values())
                if copies or not used.isdisjoint(keys.values()):
                    continue
                used.update(keys.values())
                if raw.format.is_pytorch and is_another_norm(raw, keys):
                    continue
                found = _layer(raw, group, keys, _label(group, keys, full), hints)
                if isinstance(found, Layer) and group.family.counter and raw.format.is_pytorch:
                    found = as_pytorch_trains(found, raw, naming.get(group.counter, ""))
                if isinstance(found, Layer) and raw.format.kind is FileKind.FLAX:
                    found = as_flax_trains(found)
                if isinstance(found, Layer):
                    layers.append(found if found.origin is origin else replace(found, origin=origin))
                elif found is not None:
                    gaps.append(found)
    layers = with_stored(_with_averages(raw.tensors, paths, _unique(layers)), raw.tensors)
    if raw.format.is_pytorch:
        in_order = raw.format.kind is FileKind.PYTORCH
        layers = with_average_copies(with_linear_layers(layers, raw.tensors, in_order=in_order), raw.tensors)
    else:
        layers = with_kernels(layers, raw.tensors, own | paths)
    return Facts(
        path=str(raw.path),
        format=raw.format,
        layers=tuple(replace(layer, order=order) for order, layer in enumerate(layers)),
        run=run_facts(raw, hints),
        gaps=tuple(gaps),
        notes=raw.notes,
    )


def _path(key: str) -> str:
    """A key without what its format adds; "" for a key that is no variable's."""
    if "/.OPTIMIZER_SLOT/" in key or key.startswith("_CHECKPOINTABLE"):
        return ""
    return key.removesuffix(ATTRIBUTE).removesuffix(":0")


def _full_names(raw: RawModel) -> dict[str, str]:
    """Key -> the variable's own name, from the object graph."""
    if raw.object_graph is None:
        return {}
    return {
        attribute.checkpoint_key: attribute.full_name
        for node in raw.object_graph.nodes
        for attribute in node.attributes
        if attribute.full_name and attribute.checkpoint_key in raw.tensors
    }


def _of_objects(raw: RawModel) -> dict[str, str]:
    """Path "<object>/<attribute>" -> key, for every variable that is an attribute of a tracked object."""
    return {f"{number}/{attribute}": key for number, attribute, key in _attributes(raw)}


def _own_names_of_objects(raw: RawModel, full: Mapping[str, str]) -> dict[str, str]:
    """As `_of_objects` by the variables' own names: modules of one class give theirs the same names without a scope.

    A name that two variables of an object have is left out.
    """
    named = [(f"{number}/{full[key].rpartition('/')[2]}", key) for number, _, key in _attributes(raw) if key in full]
    count = Counter(name for name, _ in named)
    return {name: key for name, key in named if count[name] == 1}


def _trained_by_optimizers(raw: RawModel, full: Mapping[str, str]) -> dict[str, str]:
    """Path "<layer>/gamma" -> key, for what a Keras 3 optimizer trains, by the names of its slots.

    Keras 3 keeps layers in a Python list of a model's from TensorFlow's checkpoints: their gamma and beta are then in
    the file through the optimizer alone, under names without the layer's, and their statistics are not.
    """
    children: dict[int, dict[str, str]] = {}
    for number, attribute, key in _attributes(raw):
        children.setdefault(number, {})[attribute] = key
    found: dict[str, str] = {}
    for node in raw.object_graph.nodes if raw.object_graph is not None else ():
        lists = {child.local_name: children.get(child.node_id, {}) for child in node.children}
        for place, key in lists.pop("_trainable_variables", {}).items():
            slots = (
                variables[place] for name, variables in lists.items() if name != "_variables" and place in variables
            )
            matches = (_SLOT_OF_BATCH_NORM.fullmatch(full.get(slot, "")) for slot in slots)
            found.update({"/".join(filter(None, match.groups())): key for match in matches if match})
    return found


def _attributes(raw: RawModel) -> Iterator[tuple[int, str, str]]:
    """(object, attribute, key) of every variable that is an attribute of a tracked object."""
    nodes = raw.object_graph.nodes if raw.object_graph is not None else ()
    for number, node in enumerate(nodes):
        for child in node.children:
            if 0 <= child.node_id < len(nodes):
                keys = [a.checkpoint_key for a in nodes[child.node_id].attributes if a.name == "VARIABLE_VALUE"]
                if len(keys) == 1 and keys[0] in raw.tensors:
                    yield number, child.local_name, keys[0]


def _layer(raw: RawModel, group: Group, keys: Mapping[Role, str], label: str, hints: Options) -> Layer | Gap | None:
    """The layer of a group of names; None where shapes say that the names mislead, a gap where they contradict."""
    stored = {role: raw.tensors[key] for role, key in keys.items()}
    statistics = [stored[role] for role in _STATISTICS if role in stored]
    reference = (statistics or list(stored.values()))[0]
    sizes = {math.prod(tensor.shape) for tensor in statistics}
    if any(tensor.dtype not in _FLOATS for tensor in statistics) or len(sizes) > 1:
        shapes = ", ".join(f"{tensor.name}: {tensor.dtype} {list(tensor.shape)}" for tensor in statistics)
        return Gap(kind=GapKind.LAYER, where=label, why=f"its statistics do not fit each other ({shapes})")
    channels = math.prod(reference.shape)
    affine = {role: stored[role] for role in (Role.GAMMA, Role.BETA) if role in stored}
    fitting = {role: tensor for role, tensor in affine.items() if _fits(tensor, channels)}
    if not group.family.distinct and (not fitting or any(len(tensor.shape) != 1 for tensor in statistics)):
        return None
    if not statistics and (not fitting or len(reference.shape) != 1):
        return None
    initial = 0.0 if group.family.starts_at_zero else None
    vectors = {role: declared(role, tensor, initial=initial) for role, tensor in stored.items() if role in _STATISTICS}
    vectors |= {role: declared(role, tensor) for role, tensor in fitting.items()}
    beside = "the statistics" if statistics else "the other"
    return Layer(
        name=label,
        origin=Origin.NAME,
        mean=vectors.get(Role.MEAN) or _missing(Role.MEAN, group, label, reference.shape),
        variance=vectors.get(Role.VARIANCE) or _missing(Role.VARIANCE, group, label, reference.shape),
        gamma=vectors.get(Role.GAMMA) or absent(Role.GAMMA, f"no gamma is stored beside {beside}"),
        beta=vectors.get(Role.BETA) or absent(Role.BETA, f"no beta is stored beside {beside}"),
        channels=channels,
        decay=hints.decay,
        decay_from=DecaySource.OPTION if hints.decay is not None else None,
    )


def _fits(tensor: RawTensor, channels: int) -> bool:
    return tensor.dtype in _FLOATS and math.prod(tensor.shape) == channels


def _label(group: Group, keys: Mapping[Role, str], full: Mapping[str, str]) -> str:
    """The layer's name: what its variables' own names share, else the path they stand under."""
    if not group.scope.isdecimal():
        return group.label
    key = next(iter(keys.values()))
    return full.get(key, "").rpartition("/")[0] or _path(key).rpartition("/")[0] or group.label


def _missing(role: Role, group: Group, label: str, shape: tuple[int, ...]) -> Vector:
    leaf = group.expected[role].rpartition("/")[2]
    name = group.expected[role] if label == group.label else f"{label}/{leaf}"
    other = "its pair is" if any(role in group.names for role in _STATISTICS) else "gamma or beta are"
    return missing(role, name, f"not in the file, where {other}", shape)


def _unique(layers: list[Layer]) -> list[Layer]:
    """Layers of which no two have one name: variables' own names may repeat, keys do not."""
    counts = Counter(layer.name for layer in layers)
    by_key = [
        replace(layer, name=_path(next(v.name for v in _vectors(layer) if v.shape is not None)).rpartition("/")[0])
        if counts[layer.name] > 1 and layer.origin is Origin.OBJECT_GRAPH
        else layer
        for layer in layers
    ]
    seen: Counter[str] = Counter()
    unique = []
    for layer in by_key:
        seen[layer.name] += 1
        again = seen[layer.name]
        unique.append(replace(layer, name=f"{layer.name} ({again})") if again > 1 else layer)
    return unique


def _vectors(layer: Layer) -> tuple[Vector, ...]:
    return (layer.mean, layer.variance, layer.gamma, layer.beta)


def _with_averages(tensors: Mapping[str, RawTensor], paths: Mapping[str, Any], layers: list[Layer]) -> list[Layer]:
    """Layers with the auxiliaries of zero-debias and the averages of their vectors."""
    debiased = _debiased(paths, {vector.name for layer in layers for vector in layer.statistics})
    return [_with_average(tensors, layer, debiased) for layer in layers]


def _with_average(tensors: Mapping[str, RawTensor], layer: Layer, debiased: set[str]) -> Layer:
    averages = {v.role: v.name + SHADOW for v in _vectors(layer) if v.name + SHADOW in tensors}
    mean, variance = (v.name in debiased for v in layer.statistics)
    if not (averages or mean or variance):
        return layer
    return replace(
        layer,
        debias=Debias(mean=mean, variance=variance) if mean or variance else None,
        averaged={role.value: key for role, key in averages.items() if role not in _STATISTICS},
        shadow_statistics={
            role.value: declared(role, tensors[key]) for role, key in averages.items() if role in _STATISTICS
        },
    )


def _debiased(paths: Mapping[str, Any], statistics: set[str]) -> set[str]:
    """Statistics with zero-debias auxiliaries, "<scope>/<name>/biased": a scope may stand doubled before the name."""
    found = set()
    for path in paths:
        base, _, leaf = path.rpartition("/")
        if leaf not in ("biased", "local_step"):
            continue
        while base and base not in statistics:
            base = base.partition("/")[2]
        found.add(base)
    return found - {""}
