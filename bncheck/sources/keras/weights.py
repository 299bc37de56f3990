"""Which stored weights belong to which layer: by group name (HDF5 of Keras 1 and 2) or by position (Keras 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bncheck.sources.keras.config import Entry, walk
from bncheck.sources.keras.variable_groups import VariableGroup
from bncheck.sources.raw import RawKerasLayer, RawTensor

NOT_LAYERS = frozenset(
    {
        "optimizer",
        "_optimizer",
        "metrics",
        "_metrics",
        "compiled_metrics",
        "_compile_metrics",
        "loss",
        "_compile_loss",
        "loss_tracker",
        "_loss_tracker",
    }
)
"""Attributes of a model whose variables belong to training, not to layers."""

_LAYERS = "layers"
_LAYERS_2_13 = "_layer_checkpoint_dependencies"
_NUMBERED = re.compile(r"(.*?)(?:_(\d+))?")


@dataclass(kw_only=True)
class Attached:
    """Weights by the path of their layer, and layers that the file holds but no configuration names."""

    weights: dict[str, tuple[RawTensor, ...]] = field(default_factory=dict)
    extras: list[RawKerasLayer] = field(default_factory=list)

    def give(self, path: str, tensors: Iterable[RawTensor]) -> None:
        """Adds weights to a layer."""
        self.weights[path] = (*self.weights.get(path, ()), *tensors)


def attach_named(model: Entry | None, groups: Sequence[tuple[str, Sequence[RawTensor]]]) -> Attached:
    """The layout of Keras 1 and 2 (and of `.h5` from Keras 3): one group a top-level layer, its weights named.

    A nested model's weights lie together in its group, trainable ones first; they are told apart by the layer's name
    inside the weight's ("block/bn/gamma:0"). Weights whose name tells no layer stay with the model that holds them.
    """
    done = Attached()
    top = {child.name: child for child in model.children} if model else {}
    for name, tensors in groups:
        entry = top.get(name)
        if entry is None:
            done.extras.append(RawKerasLayer(path=name, class_name="", config={}, weights=_unprefixed(name, tensors)))
            continue
        below = [entry, *walk(entry)]
        common = "" if entry.children else _common_scope(tensors)
        for tensor in tensors:
            owner, short = _owner(entry, below, _plain(tensor.name)[len(common) :])
            done.give(owner.path, [replace(tensor, name=f"{owner.path}/{short}")])
    return done


def _common_scope(tensors: Sequence[RawTensor]) -> str:
    """What all names of one layer's weights begin with, up to a "/": its scope, often numbered anew ("bn_1_1/")."""
    scopes = [_plain(tensor.name).split("/")[:-1] for tensor in tensors]
    length = _common_start(scopes)
    return "/".join(scopes[0][:length]) + "/" if length else ""


def _common_start(scopes: Sequence[Sequence[str]]) -> int:
    length = 0
    for parts in zip(*scopes, strict=False):
        if len(set(parts)) > 1:
            break
        length += 1
    return length


def _owner(entry: Entry, below: Sequence[Entry], name: str) -> tuple[Entry, str]:
    """(the layer that this weight belongs to, the weight's name inside it)."""
    *scopes, last = name.split("/")
    for position in range(len(scopes) - 1, -1, -1):
        named = [candidate for candidate in below if candidate.name == scopes[position]]
        if named:
            owner = max(named, key=lambda candidate: _common_end(candidate.path.split("/"), scopes[: position + 1]))
            return _held_alone(owner), "/".join((*scopes[position + 1 :], last))
    if not scopes:  # Keras 1: "<layer>_gamma"
        prefixed = [candidate for candidate in below if last.startswith(candidate.name + "_")]
        if prefixed:
            owner = max(prefixed, key=lambda candidate: len(candidate.name))
            return _held_alone(owner), last[len(owner.name) + 1 :]
    return _held_alone(entry), "/".join((*scopes, last))


def _held_alone(entry: Entry) -> Entry:
    """The one layer that a wrapper holds: it is named as the wrapper (TimeDistributed in Keras 2)."""
    while len(entry.children) == 1 and not (entry.functional or entry.sequential):
        entry = entry.children[0]
    return entry


def _common_end(path: Sequence[str], scopes: Sequence[str]) -> int:
    length = 0
    for own, scope in zip(reversed(path), reversed(scopes), strict=False):
        if own != scope:
            break
        length += 1
    return length


def _plain(name: str) -> str:
    """Without TensorFlow's output number."""
    return name.removesuffix(":0")


def _unprefixed(layer: str, tensors: Sequence[RawTensor]) -> tuple[RawTensor, ...]:
    """Weights of a layer without configuration: "<layer>/..." whatever their own prefix repeats of it."""
    renamed = []
    for tensor in tensors:
        plain = _plain(tensor.name)
        short = next((plain[len(layer) + 1 :] for mark in "/_" if plain.startswith(layer + mark)), plain)
        renamed.append(replace(tensor, name=f"{layer}/{short}"))
    return tuple(renamed)


def attach_positional(model: Entry | None, groups: Mapping[str, VariableGroup]) -> Attached:
    """The layout of Keras 3 (and of `.keras` from 2.12 on): `vars` groups at the attribute paths of their owners.

    Members of a model's `layers` are called by their class in snake case with a counter, not by their name; the
    name, where the file records it, decides, else the counter is computed as `keras.saving` does.
    """
    done = Attached()
    claimed: dict[str, str] = {}
    if model is not None:
        _claim(_Placing(done=done, groups=groups, members=_members(groups), claimed=claimed), model, "")
    for place, group in groups.items():
        if place in claimed or not group.variables or place.split("/")[0] in NOT_LAYERS:
            continue
        path = _path(place, groups, claimed)
        hint = _base(place.rpartition("/")[2])
        done.extras.append(
            RawKerasLayer(path=path, class_name=hint, config={}, weights=tuple(_positional(path, group)))
        )
    return done


@dataclass(kw_only=True)
class _Placing:
    """The file's groups, and which of them are taken."""

    done: Attached
    groups: Mapping[str, VariableGroup]
    members: Mapping[str, list[str]]
    """Group -> names directly below it."""
    claimed: dict[str, str]
    """Group -> path of its layer."""
    seen: set[str] = field(default_factory=set)
    """Paths of the layers that have their group."""


def _members(groups: Mapping[str, VariableGroup]) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {}
    for place in groups:
        parts = place.split("/")
        for length in range(len(parts)):
            found.setdefault("/".join(parts[:length]), {})[parts[length]] = None
    return {place: list(names) for place, names in found.items()}


def _claim(state: _Placing, entry: Entry, place: str) -> None:
    """Gives an entry the group at `place`, and what it holds the groups below."""
    if entry.path in state.seen:  # shared with another model: stored where it was met first
        return
    state.seen.add(entry.path)
    state.claimed[place] = entry.path
    group = state.groups.get(place)
    if group is not None and group.variables:
        state.done.give(entry.path, _positional(entry.path, group))
    lists: dict[str, list[Entry]] = {}
    for child in entry.children:
        if child.listed:
            lists.setdefault(child.slot, []).append(child)
        else:
            _claim(state, child, _join(place, child.slot))
    for slot, members in lists.items():
        layers = [child for child in members if not child.operation]
        for child, member in _places(state, layers, _join(place, slot)):
            _claim(state, child, member)


def _places(state: _Placing, layers: Sequence[Entry], container: str) -> list[tuple[Entry, str]]:
    """(layer, its group's path) for the members of one list, as far as they can be told."""
    if container not in state.members and container.rpartition("/")[2] == _LAYERS:
        container = _join(container.rpartition("/")[0], _LAYERS_2_13)
    present = state.members.get(container, [])
    recorded = {m: g.name for m in present if (g := state.groups.get(_join(container, m))) is not None and g.name}
    names = {name: member for member, name in recorded.items()}
    if names and len(names) == len(present):
        pairs = [(layer, names[layer.name]) for layer in layers if layer.name in names]
    else:
        by_class: dict[str, list[Entry]] = {}
        for layer in layers:
            base = snake_case(layer.class_name)
            private = f"private{base}"  # tf.keras calls groups of classes with an underscore so
            by_class.setdefault(private if private in present else base, []).append(layer)
        pairs = [
            pair
            for base, alike in by_class.items()
            for pair in _counted(state, base, alike, [m for m in present if base in (m, _base(m))])
        ]
    return [(layer, _join(container, member)) for layer, member in pairs]


def _counted(state: _Placing, base: str, alike: Sequence[Entry], members: Sequence[str]) -> list[tuple[Entry, str]]:
    """Pairs layers of one class with the groups "base", "base_1", ..., of which those met before have none.

    Keras 3 counts a layer that was met before, tf.keras does not; TensorFlow 2.12 counted layers with weights twice.
    """
    names = [base if not index else f"{base}_{index}" for index in range(len(alike))]
    everyone = [(layer, name) for layer, name in zip(alike, names, strict=True) if layer.path not in state.seen]
    fresh = [(layer, name) for (layer, _), name in zip(everyone, names, strict=False)]
    for pairs in (everyone, fresh):
        if {name for _, name in pairs} == set(members):
            return pairs
    if len(members) == len(fresh):
        return [(layer, name) for (layer, _), name in zip(fresh, sorted(members, key=_number), strict=True)]
    return everyone


def _positional(path: str, group: VariableGroup) -> Iterator[RawTensor]:
    for key, tensor in group.variables:
        yield replace(tensor, name=f"{path}/vars/{key}" if key.isdecimal() else f"{path}/{key}")


def _path(place: str, groups: Mapping[str, VariableGroup], claimed: Mapping[str, str]) -> str:
    """A layer's path for users: names where the file records them, else attributes; containers left out."""
    parts = place.split("/")
    path: list[str] = []
    for length in range(1, len(parts) + 1):
        here = "/".join(parts[:length])
        if here in claimed:
            path = [claimed[here]]
        elif here in groups:
            path.append(groups[here].name or parts[length - 1])
        elif parts[length - 1] not in (_LAYERS, _LAYERS_2_13):
            path.append(parts[length - 1])
    return "/".join(part for part in path if part)


def _join(place: str, part: str) -> str:
    return f"{place}/{part}" if place else part


def _base(member: str) -> str:
    found = _NUMBERED.fullmatch(member)
    return found[1] if found else member


def _number(member: str) -> int:
    found = _NUMBERED.fullmatch(member)
    return int(found[2][:9]) if found and found[2] else 0


def snake_case(class_name: str) -> str:
    """`keras.saving`'s name for a class: "Conv2DTranspose" -> "conv2d_transpose", "ReLU" -> "re_lu"."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
