"""A Keras file -> layers by its configuration; by names and positions of weights where it has none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import DecaySource, Facts, Layer, Mode, Origin, Role, Site, Vector
from bncheck.facts.norm_kinds import KERAS_1_MODE_2, NormKind
from bncheck.recognise.named.by_position import kernel_channels, recognise_positional
from bncheck.recognise.named.config_sites import ConfigWiring, sites_of
from bncheck.recognise.named.name_families import Group, find_groups, without_statistics
from bncheck.recognise.norm_kinds import kind_of_config
from bncheck.recognise.optimizer_averages import TOLD, served_weights
from bncheck.recognise.predicted.after_batch_norm import worth_predicting
from bncheck.recognise.stored_vectors import absent, missing, unread, vector
from bncheck.recognise.training_progress import run_facts
from bncheck.settings.options import Options
from bncheck.sources.raw import RawKeras, RawKerasLayer, RawModel, RawTensor

CLASSES = frozenset(
    {
        "BatchNormalization",
        "BatchNormalizationBase",
        "BatchNormalizationV1",
        "BatchNormalizationV2",
        "SyncBatchNormalization",
    }
)
"""Keras' own, as configurations name them."""

_OTHER_NORMS = re.compile(r"layer_?norm|group_?norm|instance_?norm|rms_?norm|unit_?norm|spectral_?norm", re.IGNORECASE)
_CALLED_BATCH_NORM = re.compile(r"batch_?norm", re.IGNORECASE)
_POSITIONAL = re.compile(r"/(vars/|param_)(\d+)$")
_RUNNING_STD = re.compile(r"running_std(?=(_\d+)?$)")
_LEAF = re.compile(
    r"(?:^|[/_])(gamma|beta|moving_mean|moving_variance|moving_var|running_mean|running_std|running_variance"
    r"|running_var)(?:_\d+)?$"
)
_ROLES = {
    "gamma": Role.GAMMA,
    "beta": Role.BETA,
    "moving_mean": Role.MEAN,
    "running_mean": Role.MEAN,
    "moving_variance": Role.VARIANCE,
    "moving_var": Role.VARIANCE,
    "running_variance": Role.VARIANCE,
    "running_var": Role.VARIANCE,
    "running_std": Role.VARIANCE,
}
"""Keras 1 kept the variance under the name `running_std` (keras#3248)."""
_AFFINE_SWITCH = {Role.GAMMA: "scale", Role.BETA: "center"}
_NAMES = {Role.GAMMA: "gamma", Role.BETA: "beta", Role.MEAN: "moving_mean", Role.VARIANCE: "moving_variance"}
_CONSTANTS = {"zeros": 0.0, "zero": 0.0, "ones": 1.0, "one": 1.0}


@dataclass(frozen=True, kw_only=True)
class _StoredWeights:
    """A layer's vectors as far as the file tells them apart; `problem` says why it does not."""

    vectors: Mapping[Role, RawTensor]
    problem: str = ""


def recognise_config(raw: RawModel, hints: Options) -> Facts:
    """The batch norm layers of a Keras file, in forward order where its configuration tells one.

    Raises ReadError where a weight that is looked at is damaged.
    """
    assert raw.keras is not None
    keras = raw.keras
    wiring = ConfigWiring.of(keras)
    strays = _strays(keras)
    holders = {layer.path.rpartition("/")[0] for layer in keras.layers}
    channels = kernel_channels(keras.layers)
    layers: list[Layer] = []
    gaps: list[Gap] = []
    for stored in keras.layers:
        found: Iterable[Layer | Gap]
        if _is_batch_norm(stored, has_config=keras.has_config):
            found = _configured(raw, stored, strays, wiring, hints)
        elif any(_POSITIONAL.search(tensor.name) for tensor in stored.weights):
            found = recognise_positional(stored, channels)
        else:
            found = () if stored.path in holders else _named(stored, hints)
        for item in found:
            if isinstance(item, Layer):
                layers.append(item)
            else:
                gaps.append(item)
    layers.sort(key=lambda layer: layer.sites[0].order if layer.sites else len(keras.calls))
    if worth_predicting(tuple(layers)):
        from bncheck.recognise.predicted.in_config import with_predictions  # noqa: PLC0415 - start-up

        layers = with_predictions(wiring, layers)
    return Facts(
        path=str(raw.path),
        format=raw.format,
        layers=tuple(replace(layer, order=order) for order, layer in enumerate(layers)),
        run=run_facts(raw, hints),
        gaps=tuple(gaps),
        notes=(*raw.notes, *((TOLD[served],) if (served := served_weights(raw)) else ())),
    )


def _is_batch_norm(stored: RawKerasLayer, *, has_config: bool) -> bool:
    """By class; a class of the user's by what it is called or configured with, if its weights agree."""
    if not has_config or not stored.class_name or not stored.config:
        return False
    if stored.class_name in CLASSES:
        return True
    if _OTHER_NORMS.search(stored.class_name):
        return False
    config = stored.config
    configured = _number(config.get("momentum")) is not None and _number(config.get("epsilon")) is not None
    if not configured and not _CALLED_BATCH_NORM.search(stored.class_name):
        return False
    roles = _weights(stored, {}).vectors
    return Role.MEAN in roles and Role.VARIANCE in roles


def _configured(
    raw: RawModel, stored: RawKerasLayer, strays: Mapping[str, _StoredWeights], wiring: ConfigWiring, hints: Options
) -> Iterator[Layer | Gap]:
    """The layer that a configuration describes."""
    config = stored.config
    mode = config.get("mode", 0)
    if mode == 1:
        yield Gap(
            kind=GapKind.LAYER,
            where=stored.path,
            why="a Keras 1 batch norm with mode=1 normalises each sample by itself and uses no statistics",
        )
        return
    weights = strays[stored.path] if stored.path in strays else _weights(stored, config)
    if weights.problem:
        yield Gap(kind=GapKind.STATISTICS, where=stored.path, why=weights.problem)
    vectors = {role: _vector(raw, stored, role, weights) for role in Role}
    if mode == 2:
        reason = KERAS_1_MODE_2
        vectors |= {role: absent(role, reason) for role in (Role.MEAN, Role.VARIANCE)}
    sites = sites_of(wiring, stored, epsilon=_number(config.get("epsilon")), always_batch=mode == 2)
    decay = _number(config.get("momentum")) if hints.decay is None else hints.decay
    trainable = config.get("trainable")
    yield Layer(
        name=stored.path,
        origin=Origin.CONFIG if stored.class_name in CLASSES else Origin.NAME,
        mean=vectors[Role.MEAN],
        variance=vectors[Role.VARIANCE],
        gamma=vectors[Role.GAMMA],
        beta=vectors[Role.BETA],
        channels=_channels(vectors.values()),
        epsilon=_number(config.get("epsilon")),
        decay=decay,
        decay_from=None if decay is None else DecaySource.CONFIGURATION if hints.decay is None else DecaySource.OPTION,
        sites=sites,
        linear=_eval_linear(sites),
        trainable=trainable if isinstance(trainable, bool) else None,
        config=config,
        kind=kind_of_config(config),
    )


def _eval_linear(sites: Sequence[Site]) -> Any:
    chosen = next((site for site in sites if site.mode is not Mode.TRAIN), sites[0] if sites else None)
    return None if chosen is None else chosen.linear


def _vector(raw: RawModel, stored: RawKerasLayer, role: Role, weights: _StoredWeights) -> Vector:
    switch = _AFFINE_SWITCH.get(role)
    initial = _initial(stored.config, role)
    tensor = weights.vectors.get(role)
    if tensor is not None:
        return vector(role, tensor, initial=initial)
    if switch is not None and stored.config.get(switch) is False:
        return absent(role, f"the layer has {switch}=False")
    name = f"{stored.path}/{_NAMES[role]}"
    if weights.problem:
        return unread(role, name, weights.problem, initial=initial)
    if not raw.tensors:
        return unread(role, name, "the file holds no weights", initial=initial)
    if switch is not None and stored.class_name not in CLASSES:
        return absent(role, f"the file holds no {_NAMES[role]} for this {stored.class_name}")
    return missing(role, name, "the file holds no such weight of this layer")


def _channels(vectors: Iterable[Vector]) -> int | None:
    return next((v.shape[0] for v in vectors if v.shape is not None and len(v.shape) == 1), None)


def _weights(stored: RawKerasLayer, config: Mapping[str, Any]) -> _StoredWeights:
    """Roles by the weights' names; by position where they have none: gamma, beta, mean, variance, as far as present."""
    named: dict[Role, RawTensor] = {}
    for tensor in stored.weights:
        leaf = _LEAF.search(tensor.name)
        if leaf is not None:
            named.setdefault(_ROLES[leaf[1]], tensor)
    if named or not stored.weights:
        return _StoredWeights(vectors=named)
    if not all(_POSITIONAL.search(tensor.name) for tensor in stored.weights):
        return _StoredWeights(vectors={}, problem="the names of its weights tell no moving mean and variance")
    order = [role for role in (Role.GAMMA, Role.BETA) if config.get(_AFFINE_SWITCH[role]) is not False]
    order += [Role.MEAN, Role.VARIANCE]
    lengths = {tensor.shape for tensor in stored.weights}
    spare = len(stored.weights) - len(order)
    broadcast = kind_of_config(config) in (NormKind.SEVERAL_AXES, NormKind.GHOST)
    vectors = len(lengths) == 1 and (broadcast or len(stored.weights[0].shape) == 1)
    if spare < 0 or (spare > 0 and not config.get("renorm")) or not vectors:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in stored.weights)
        wanted = ", ".join(_NAMES[role] for role in order)
        return _StoredWeights(vectors={}, problem=f"the file holds unnamed weights of shape {shapes}, not {wanted}")
    return _StoredWeights(vectors=dict(zip(order, stored.weights, strict=False)))


def _initial(config: Mapping[str, Any], role: Role) -> float | None:
    """The constant that an initialiser gives; None where it is none, or by convention."""
    found = config.get(f"{_NAMES[role]}_initializer", config.get(f"{_NAMES[role]}_init"))  # the latter: Keras 1
    if isinstance(found, str):
        return _CONSTANTS.get(found.lower())
    if not isinstance(found, Mapping) or not isinstance(found.get("class_name"), str):
        return None
    inner = found.get("config")
    if found["class_name"] == "Constant" and isinstance(inner, Mapping):
        return _number(inner.get("value"))
    return _CONSTANTS.get(found["class_name"].lower())


def _number(found: Any) -> float | None:
    if not isinstance(found, (int, float)) or isinstance(found, bool):
        return None
    try:
        return float(found)
    except OverflowError:  # JSON's integers have no end
        return -math.inf if found < 0 else math.inf


def _named(stored: RawKerasLayer, hints: Options) -> Iterator[Layer]:
    """Layers that the names of weights tell: files without configuration, layers inside the user's own layers."""
    tensors = _by_name(stored)
    groups = find_groups(tensors)
    known = {group.scope for group in groups}
    bare = [group for group in without_statistics(tensors) if group.scope not in known]
    for group in (*groups, *bare):
        yield _of_group(group, tensors, hints)


def _by_name(stored: RawKerasLayer) -> dict[str, RawTensor]:
    return {_RUNNING_STD.sub("running_variance", tensor.name): tensor for tensor in stored.weights}


def _of_group(group: Group, tensors: Mapping[str, RawTensor], hints: Options) -> Layer:
    initial = 0.0 if group.family.starts_at_zero else None
    vectors = {
        role: vector(role, tensors[name], initial=initial if role in (Role.MEAN, Role.VARIANCE) else None)
        for role, name in group.names.items()
    }
    for role in Role:
        if role in vectors:
            continue
        if role in group.expected:
            vectors[role] = missing(role, group.expected[role], "the file holds its partner, not this one")
        else:
            vectors[role] = absent(role, f"the file holds no {role.value} beside its statistics")
    return Layer(
        name=group.label,
        origin=Origin.NAME,
        mean=vectors[Role.MEAN],
        variance=vectors[Role.VARIANCE],
        gamma=vectors[Role.GAMMA],
        beta=vectors[Role.BETA],
        channels=_channels(vectors.values()),
        decay=hints.decay,
        decay_from=None if hints.decay is None else DecaySource.OPTION,
    )


def _strays(keras: RawKeras) -> dict[str, _StoredWeights]:
    """Batch norm layers without weights of their own -> those that stayed with the model that holds them.

    In HDF5 files a nested model's weights lie together, and layers renamed after they were built are not found by
    name. If as many batch norms are among the model's weights as among its layers, the order tells which is which.
    """
    found: dict[str, _StoredWeights] = {}
    if not keras.has_config:
        return found
    lost = [layer for layer in keras.layers if layer.class_name in CLASSES and not layer.weights]
    holders = {ancestor for layer in lost for ancestor in _ancestors(layer.path)}
    for holder in keras.layers:
        if holder.path not in holders or not holder.weights:
            continue
        bereft = [layer for layer in lost if layer.path.startswith(f"{holder.path}/") and layer.path not in found]
        tensors = _by_name(holder)
        groups = find_groups(tensors)
        for position, layer in enumerate(bereft):
            if len(groups) == len(bereft):
                names = groups[position].names
                found[layer.path] = _StoredWeights(vectors={role: tensors[name] for role, name in names.items()})
            else:
                problem = f"the names of the weights of {holder.path!r} do not tell which of them are this layer's"
                found[layer.path] = _StoredWeights(vectors={}, problem=problem)
    return found


def _ancestors(path: str) -> Iterator[str]:
    """Paths of what holds a layer: for "a/b/c" these are "a/b" and "a"."""
    while path := path.rpartition("/")[0]:
        yield path
