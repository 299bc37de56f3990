"""Keras files -> RawModel: `.keras` archives, `.h5` models, weights alone, whole or in shards; nothing is executed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bncheck.facts.errors import Malformed, NoModel, NotFound, ReadError, TooLarge, UnknownFormat, Unsupported
from bncheck.facts.formats import FileKind, Format
from bncheck.sources import files
from bncheck.sources.content import Content
from bncheck.sources.keras import archive as keras_archive
from bncheck.sources.keras import h5 as keras_h5
from bncheck.sources.keras.calls import calls
from bncheck.sources.keras.config import Entry, parse, read_json, walk
from bncheck.sources.keras.h5 import H5File
from bncheck.sources.keras.variable_groups import VariableGroup, variable_groups
from bncheck.sources.keras.weights import Attached, attach_named, attach_positional
from bncheck.sources.raw import RawKeras, RawKerasCall, RawKerasLayer, RawModel, RawTensor
from bncheck.sources.zips import ZIP_MAGIC, member_names

SHARDS_SUFFIX = ".weights.json"
_MAX_SHARDS = 10_000
_MAX_NAME = 255
"""Letters of a file name, on nearly every file system."""
_NO_FILE_NAME = re.compile("[\\x00-\\x1f\\\\\ud800-\udfff]")
_ITERATIONS = frozenset({"iter", "iteration", "iterations"})


def matches(path: Path, head: bytes) -> bool:
    """Whether it is HDF5 (also behind a user block), a zip with a Keras configuration, or a map of Keras shards."""
    if files.status(path) is not None and path.is_dir():
        return (path / keras_archive.CONFIG).is_file() and (path / keras_archive.WEIGHTS).is_file()
    if keras_h5.starts_hdf5(head):
        return True
    if head.startswith(ZIP_MAGIC):
        return path.suffix == ".keras" or _is_archive(path)
    if path.name.endswith(SHARDS_SUFFIX):
        return head.lstrip()[:1] == b"{"
    return bool(head) and keras_h5.holds_hdf5(keras_archive.content_of(path))


def _is_archive(path: Path) -> bool:
    try:
        return keras_archive.CONFIG in member_names(path)
    except ReadError:
        return False


def read_keras(path: Path) -> RawModel:
    """Reads any Keras file (see the module); raises ReadError."""
    path = Path(path)
    if path.is_dir():
        return _read_directory(path)
    if path.name.endswith(SHARDS_SUFFIX):
        return _read_shards(path)
    head = files.read_head(path)
    if head.startswith(files.LFS_POINTER):
        raise files.not_fetched(path)
    if head.startswith(ZIP_MAGIC):
        return _read_archive(path)
    content = keras_archive.content_of(path)
    if not keras_h5.holds_hdf5(content):
        raise UnknownFormat(path, "neither an HDF5 file nor a Keras archive", hint="expected .keras, .h5 or .hdf5")
    return _read_h5(path, content)


def _read_archive(path: Path) -> RawModel:
    names = member_names(path)
    if keras_archive.WEIGHTS not in names and keras_archive.WEIGHTS_NPZ in names:
        raise Unsupported(path, "its weights are pickled (model.weights.npz)", hint="save it again with Keras >= 2.13")
    config = keras_archive.read_text(path, keras_archive.CONFIG)
    metadata = keras_archive.read_text(path, keras_archive.METADATA) if keras_archive.METADATA in names else b"{}"
    content = keras_archive.member_content(path, keras_archive.WEIGHTS)
    return _from_parts(path, config, metadata, content, "archive")


def _read_directory(path: Path) -> RawModel:
    """An unpacked archive, as `save_model(zipped=False)` writes it."""
    if not (path / keras_archive.CONFIG).is_file():
        raise NoModel(path, f"the directory has no {keras_archive.CONFIG!r}", hint="expected an unpacked .keras model")
    config = files.read_whole(path / keras_archive.CONFIG, limit=keras_archive.MAX_TEXT_BYTES)
    metadata_path = path / keras_archive.METADATA
    metadata = files.read_whole(metadata_path, limit=1 << 20) if metadata_path.is_file() else b"{}"
    return _from_parts(path, config, metadata, keras_archive.content_of(path / keras_archive.WEIGHTS), "directory")


def _from_parts(path: Path, config: bytes, metadata: bytes, content: Content, form: str) -> RawModel:
    model = parse(path, config)
    version = _json(path, metadata, "metadata.json").get("keras_version")
    version = version if isinstance(version, str) else ""
    file = keras_h5.open_file(path, content)
    groups = variable_groups(file)
    attached = attach_positional(model, groups)
    compiled = _json(path, config, "config.json").get("compile_config")
    return _raw(
        path,
        format_name=f"Keras {version.partition('.')[0]} {form}".replace("  ", " "),
        version=version,
        model=model,
        attached=attached,
        optimizer=_optimizer_by_position(groups),
        training_config=compiled if isinstance(compiled, Mapping) else None,
        configuration=config,
    )


def _read_h5(path: Path, content: Content) -> RawModel:
    file = keras_h5.open_file(path, content)
    config = keras_h5.text_attribute(file, file.root, "model_config")
    weights = keras_h5.descend(file, file.root, "model_weights")
    if not keras_h5.is_group(weights):
        weights = file.root
    version = keras_h5.text_attribute(file, file.root, "keras_version") or (
        keras_h5.text_attribute(file, weights, "keras_version") or ""
    )
    model = parse(path, config) if config is not None else None
    form = "model" if model else "weights"
    listed = _listed_groups(file, weights)
    if listed is not None:
        training = keras_h5.text_attribute(file, file.root, "training_config")
        return _raw(
            path,
            format_name=f"Keras {version.partition('.')[0] or '1'} HDF5 {form}",
            version=version,
            model=model,
            attached=attach_named(model, listed),
            optimizer=_optimizer_by_name(file),
            training_config=None if training is None else _json(path, training, "training_config"),
            configuration=config or "",
        )
    groups = variable_groups(file)
    if not groups:
        if model is None:
            raise UnknownFormat(path, "an HDF5 file, but not one that Keras wrote", hint="it lists no layers")
        raise NoModel(path, "holds a model's configuration but no weights", hint="save the model after building it")
    return _raw(
        path,
        format_name=f"Keras HDF5 {form}",
        version=version,
        model=model,
        attached=attach_positional(model, groups),
        optimizer=_optimizer_by_position(groups),
        configuration=config or "",
    )


def _read_shards(path: Path) -> RawModel:
    """`save_weights(max_shard_size=)`: a JSON map of variable groups to HDF5 files beside it."""
    text = files.read_whole(path, limit=keras_archive.MAX_TEXT_BYTES)
    weight_map = _json(path, text, "the map of shards").get("weight_map")
    if not isinstance(weight_map, Mapping):
        raise UnknownFormat(path, "a JSON file without `weight_map`", hint="expected Keras' map of weight shards")
    names: dict[str, None] = {}
    for entry in weight_map.values():
        for name in entry if isinstance(entry, list) else [entry]:
            names[_shard_name(path, name)] = None
    if len(names) > _MAX_SHARDS:
        raise TooLarge(path, f"names {len(names):,} shards")
    groups: dict[str, VariableGroup] = {}
    for name in names:
        shard = path.with_name(name)
        if not files.is_file(shard):
            raise NotFound(shard, f"no such file, though {path.name} names it as a shard")
        file = keras_h5.open_file(shard, keras_archive.content_of(shard))
        for place, group in variable_groups(file).items():
            known = groups.get(place)
            groups[place] = group if known is None else _merged(known, group)
    return _raw(
        path,
        format_name="Keras 3 sharded weights",
        version="",
        model=None,
        attached=attach_positional(None, groups),
        optimizer=_optimizer_by_position(groups),
    )


def _shard_name(path: Path, name: object) -> str:
    """What a map of shards names, once it can be a file beside it. Raises Malformed."""
    plain = isinstance(name, str) and name not in ("", "..") and Path(name).name == name and len(name) <= _MAX_NAME
    if isinstance(name, str) and plain and not _NO_FILE_NAME.search(name):
        return name
    raise Malformed(path, f"shard {str(name)[:100]!r} is not a file name")


def _merged(one: VariableGroup, other: VariableGroup) -> VariableGroup:
    """One object's variables from two shards."""
    both = {**dict(one.variables), **dict(other.variables)}
    variables = sorted(both.items(), key=lambda item: (len(item[0]), item[0]))
    return VariableGroup(name=one.name or other.name, variables=tuple(variables))


def _listed_groups(file: H5File, weights: Any) -> list[tuple[str, list[RawTensor]]] | None:
    """(layer, its named weights) by the attributes of Keras 1 and 2, None where the file has none."""
    names = keras_h5.names_attribute(file, weights, "layer_names")
    if names is None:
        count = keras_h5.attribute(file, weights, "nb_layers")  # before Keras 1.0
        if count is None:
            return None
        names = tuple(name for name in keras_h5.members(file, weights) if name.startswith("layer_"))
        names = tuple(sorted(names, key=lambda name: (len(name), name)))
    groups = []
    for name in names:
        group = keras_h5.descend(file, weights, name)
        if not keras_h5.is_group(group):
            raise Malformed(file.path, f"layer {name!r} is listed, but the file has no such group")
        stored = keras_h5.names_attribute(file, group, "weight_names")
        if stored is None:
            stored = tuple(member for member in keras_h5.members(file, group) if member.startswith("param_"))
            stored = tuple(sorted(stored, key=lambda member: (len(member), member)))
        groups.append((name, [_dataset(file, group, weight) for weight in stored]))
    return groups


def _dataset(file: H5File, group: Any, name: str) -> RawTensor:
    dataset = keras_h5.descend(file, group, name)
    if not keras_h5.is_dataset(dataset):
        raise Malformed(file.path, f"weight {name!r} is listed, but the file has no such dataset")
    return keras_h5.tensor(file, dataset, name)


def _optimizer_by_position(groups: Mapping[str, VariableGroup]) -> Iterator[RawTensor]:
    """Variables of the optimizer: 0 counts its iterations, 1 is the learning rate where it is a variable."""
    for place, group in groups.items():
        first, _, inner = place.partition("/")
        if first not in ("optimizer", "_optimizer"):
            continue
        prefix = f"optimizer/{inner}" if inner else "optimizer"
        for key, tensor in group.variables:
            name = f"vars/{key}"
            if not tensor.shape and key == "0" and "int" in tensor.dtype:
                name = "iterations"
            elif not tensor.shape and key == "1" and "float" in tensor.dtype:
                name = "learning_rate"
            yield replace(tensor, name=f"{prefix}/{name}")


def _optimizer_by_name(file: H5File) -> Iterator[RawTensor]:
    group = keras_h5.descend(file, file.root, "optimizer_weights")
    if not keras_h5.is_group(group):
        return
    for name in keras_h5.names_attribute(file, group, "weight_names") or ():
        plain = name.removesuffix(":0")
        tensor = _dataset(file, group, name)
        counts = plain.rpartition("/")[2] in _ITERATIONS and not tensor.shape
        yield replace(tensor, name="optimizer/iterations" if counts else f"optimizer/{plain}")


def _json(path: Path, text: str | bytes, what: str) -> Mapping[str, Any]:
    found = read_json(path, text, what)
    return found if isinstance(found, Mapping) else {}


def _raw(
    path: Path,
    *,
    format_name: str,
    version: str,
    model: Entry | None,
    attached: Attached,
    optimizer: Iterable[RawTensor],
    training_config: Mapping[str, Any] | None = None,
    configuration: str | bytes = "",
) -> RawModel:
    applied = calls(path, model) if model else ()
    layers = (*_layers(model, attached, applied), *attached.extras)
    optimizer_weights = tuple(_unique(optimizer))
    tensors = {tensor.name: tensor for layer in layers for tensor in layer.weights}
    return RawModel(
        path=path,
        format=Format(FileKind.KERAS, format_name),
        tensors=tensors | {tensor.name: tensor for tensor in optimizer_weights},
        keras=RawKeras(
            keras_version=version,
            has_config=model is not None,
            layers=layers,
            training_config=training_config,
            optimizer_weights=optimizer_weights,
            calls=applied,
            configuration=configuration,
        ),
    )


def _unique(tensors: Iterable[RawTensor]) -> Iterator[RawTensor]:
    """Numbers repeated names, which old Keras wrote for optimizers."""
    seen: dict[str, int] = {}
    for tensor in tensors:
        earlier = seen.get(tensor.name, 0)
        seen[tensor.name] = earlier + 1
        yield replace(tensor, name=f"{tensor.name}_{earlier}") if earlier else tensor


def _layers(model: Entry | None, attached: Attached, applied: Sequence[RawKerasCall]) -> Iterator[RawKerasLayer]:
    if model is None:
        return
    layer_of = {call.name: call.layer for call in applied}
    inbound: dict[str, dict[str, None]] = {}
    for call in applied:
        inbound.setdefault(call.layer, {}).update((layer_of[name], None) for name in call.inbound)
    seen: set[str] = set()
    own = [model] if attached.weights.get(model.path) else []
    for entry in (*own, *walk(model)):
        if entry.path in seen:  # shared between two models
            continue
        seen.add(entry.path)
        yield RawKerasLayer(
            path=entry.path,
            class_name=entry.class_name,
            config=entry.config,
            weights=tuple(_unique(attached.weights.get(entry.path, ()))),
            inbound=tuple(inbound.get(entry.path, ())),
            input_shape=entry.input_shape,
        )
