"""Keras files in the making: configurations as Keras 1, 2 and 3 write them, HDF5 and archives around them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[Any]]
ROLES = ("gamma", "beta", "moving_mean", "moving_variance")


def bn_values(channels: int = 4, seed: int = 0, roles: Sequence[str] = ROLES) -> dict[str, NDArray[np.float32]]:
    """Random vectors, all different, all positive."""
    rng = np.random.default_rng(seed)
    return {role: rng.uniform(0.5, 2.0, channels).astype(np.float32) for role in roles}


def layer(class_name: str, name: str, *, feeds: Sequence[Any] | None = None, **config: Any) -> dict[str, Any]:
    """One layer of a configuration; `feeds`: names of the layers before it (Keras 2 form), or whole inbound nodes."""
    entry: dict[str, Any] = {"class_name": class_name, "config": {"name": name, "trainable": True, **config}}
    if feeds is not None:
        entry["name"] = name
        nodes = [[[feed, 0, 0, {}] for feed in feeds]] if feeds and isinstance(feeds[0], str) else list(feeds)
        entry["inbound_nodes"] = nodes
    return entry


def batch_norm(name: str, *, feeds: Sequence[Any] | None = None, **config: Any) -> dict[str, Any]:
    """A batch norm with Keras' defaults."""
    known = {"axis": -1, "momentum": 0.99, "epsilon": 1e-3, "center": True, "scale": True}
    return layer("BatchNormalization", name, feeds=feeds, **(known | config))


def conv(name: str, *, feeds: Sequence[Any] | None = None, **config: Any) -> dict[str, Any]:
    """A convolution without bias."""
    known = {"filters": 4, "use_bias": False, "activation": "linear", "data_format": "channels_last"}
    return layer("Conv2D", name, feeds=feeds, **(known | config))


def inputs(name: str, shape: Sequence[int | None] = (None, 8, 8, 3)) -> dict[str, Any]:
    """An input layer of a functional model."""
    config = {"name": name, "batch_input_shape": list(shape)}
    return {"class_name": "InputLayer", "config": config, "name": name, "inbound_nodes": []}


def sequential(*layers: dict[str, Any], name: str = "sequential") -> dict[str, Any]:
    """A Sequential."""
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def functional(
    *layers: dict[str, Any],
    outputs: Sequence[str],
    ins: Sequence[str] = ("in",),
    name: str = "model",
    feeds: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """A functional model; with `feeds`, one nested in another."""
    config = {
        "name": name,
        "layers": list(layers),
        "input_layers": [[one, 0, 0] for one in ins],
        "output_layers": [[one, 0, 0] for one in outputs],
    }
    entry: dict[str, Any] = {"class_name": "Functional", "config": config}
    if feeds is not None:
        entry |= {"name": name, "inbound_nodes": [[[feed, 0, 0, {}] for feed in feeds]]}
    return entry


def h5_file(
    path: Path,
    config: Mapping[str, Any] | None,
    weights: Mapping[str, Weights],
    *,
    version: str = "2.4.0",
    optimizer: Weights | None = None,
    chunked: bool = False,
    **options: Any,
) -> Path:
    """The layout of Keras 1 and 2: layer -> "scope/name:0" -> array. `chunked`: names spread over `name0`, `name1`."""
    with h5py.File(path, "w", **options) as file:
        group = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
            file.attrs["keras_version"] = version.encode()
            file.attrs["backend"] = b"tensorflow"
            group = file.create_group("model_weights")
        _names(group, "layer_names", list(weights), chunked=chunked)
        group.attrs["keras_version"] = version.encode()
        for name, values in weights.items():
            _named(group.create_group(name), values)
        if optimizer is not None:
            _named(file.create_group("optimizer_weights"), optimizer)
    return path


def _named(group: Any, values: Weights) -> None:
    _names(group, "weight_names", list(values), chunked=False)
    for name, value in values.items():
        group.create_dataset(name, data=value)


def _names(group: Any, attribute: str, names: Sequence[str], *, chunked: bool) -> None:
    encoded = np.array([name.encode() for name in names])
    if not chunked:
        group.attrs[attribute] = encoded if names else np.array([])
        return
    for index, part in enumerate(np.array_split(encoded, 2)):
        group.attrs[f"{attribute}{index}"] = part


def vars_bytes(groups: Mapping[str, tuple[str, Sequence[NDArray[Any]]]], **options: Any) -> bytes:
    """The layout of Keras 3: place -> (name recorded there or "", variables in order)."""
    content = io.BytesIO()
    with h5py.File(content, "w", **options) as file:
        for place, (name, values) in groups.items():
            group = file.create_group(f"{place}/vars" if place else "vars")
            if name:
                group.attrs["name"] = name
            for index, value in enumerate(values):
                group.create_dataset(str(index), data=value)
    return content.getvalue()


def archive(
    path: Path,
    config: Mapping[str, Any],
    groups: Mapping[str, tuple[str, Sequence[NDArray[Any]]]],
    *,
    version: str = "3.15.1",
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """A `.keras` file."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("metadata.json", json.dumps({"keras_version": version}))
        file.writestr("config.json", json.dumps(config))
        file.writestr("model.weights.h5", vars_bytes(groups))
    return path


def scoped(layer_name: str, values: Weights, scope: str | None = None) -> dict[str, NDArray[Any]]:
    """{"gamma": ...} -> {"<scope>/gamma:0": ...}."""
    return {f"{scope or layer_name}/{name}:0": value for name, value in values.items()}
