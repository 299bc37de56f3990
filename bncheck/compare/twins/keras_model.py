"""Keras files -> an inference graph with constants for weights, made by Keras itself; no code of the file runs, unless
it is trusted.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bncheck.compare.twins.keras_vetting import refuse_foreign
from bncheck.compare.twins.libraries import load_tensorflow
from bncheck.facts.errors import BncheckError
from bncheck.facts.extras import install
from bncheck.facts.layers import Layer
from bncheck.sources.graph import protos
from bncheck.sources.graph.graphs import graph_def
from bncheck.sources.raw import RawModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Frozen:
    """The model of a Keras file as a frozen graph in inference mode."""

    raw: RawModel
    masks: Mapping[str, str]
    """Tensor (samples, steps, channels) that enters a batch norm -> its mask (samples, steps), true where a step
    counts in the statistics of a batch. Inference has no use for it, so the graph alone would not tell."""
    outputs: Mapping[str, str]
    """Name by which Keras knows an output -> the op that it comes from; empty where Keras has none."""


def frozen_graph(raw: RawModel, *, trusted: bool) -> Frozen:
    """The model of a Keras file as a frozen graph in inference mode.

    Raises BncheckError where Keras is not installed, refuses the file, the file holds weights alone, a mask is of a
    shape that is not understood, or, unless it is `trusted`, the file names more than Keras's own layers.
    """
    assert raw.keras is not None
    if not raw.keras.has_config:
        raise BncheckError(f"{raw.path} holds weights alone: give the whole model, or --builder pkg.mod:function")
    tf = load_tensorflow()
    keras = _keras(raw.keras.keras_version)
    if raw.path.is_dir() and keras.__name__ != "keras":
        raise BncheckError(f"{raw.path}: {keras.__name__} takes a folder for a SavedModel; zip it as a .keras file")
    if not trusted:
        refuse_foreign(keras, raw.path, raw.keras.configuration)
    model = _load(keras, raw.path, trusted=trusted)
    noted = _masks_noted(keras, model)
    specs = [tf.TensorSpec(list(entry.shape), entry.dtype, name=_name(entry)) for entry in model.inputs]
    model.trainable = False  # batch norm that is called with training=True then reads its statistics all the same
    # Unlike tf.function it ties no writes of variables to the outputs: what none needs can be left out.
    whole = tf.compat.v1.wrap_function(lambda *given: model(_as_taken(model, given), training=False), specs)
    constants = importlib.import_module("tensorflow.python.framework.convert_to_constants")
    masks = {x.name: mask.name for x, mask in noted if mask.graph is whole.graph}
    kept = [whole.graph.get_tensor_by_name(name) for name in masks.values()]
    read_only = whole.prune(whole.inputs[: len(specs)], [*whole.outputs, *kept])
    frozen = constants.convert_variables_to_constants_v2(read_only, lower_control_flow=False)
    message = protos.GraphDef.FromString(frozen.graph.as_graph_def().SerializeToString())
    raw_graph = RawModel(path=raw.path, format=raw.format, graphs=(graph_def(raw.path, message),))
    return Frozen(raw=raw_graph, masks=masks, outputs=_output_names(model, whole))


def _output_names(model: Any, whole: Any) -> dict[str, str]:
    """Names of the layers that outputs come from, and keys of a model that gives a dictionary."""
    outputs = [tensor.name.removesuffix(":0") for tensor in whole.outputs]
    structured = whole.structured_outputs
    found: dict[str, str] = {}
    for names in (getattr(model, "output_names", None), structured if isinstance(structured, dict) else None):
        if names is not None and len(names) == len(outputs):
            found |= dict(zip(sorted(names) if names is structured else names, outputs, strict=True))
    return found


def _masks_noted(keras: Any, model: Any) -> list[tuple[Any, Any]]:
    """A list that grows while the model is called: what enters a batch norm with a mask, and the mask."""
    noted: list[tuple[Any, Any]] = []

    def listening(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def heard(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            mask = kwargs.get("mask")
            if mask is not None:
                if mask.shape.rank is None or inputs.shape.rank != mask.shape.rank + 1:
                    raise BncheckError(f"{layer.name} takes a mask of shape {mask.shape}: compare cannot run it yet")
                noted.append((inputs, mask))
            return call(inputs, *args, **kwargs)

        return heard

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.call = listening(layer, layer.call)
    return noted


def _name(entry: Any) -> str:
    """Of an input, as TensorFlow allows it."""
    return re.sub(r"[^\w.-]", "_", str(entry.name).partition(":")[0]).lstrip("_.-") or "input"


def _as_taken(model: Any, given: Sequence[Any]) -> Any:
    """The inputs in the structure that the model was built with: one, a list, or under names."""
    built_with = getattr(model, "input", None)  # Keras 3 has none for Sequential
    if isinstance(built_with, dict):
        by_name = {_name(entry): value for entry, value in zip(model.inputs, given, strict=True)}
        return {key: by_name[_name(entry)] for key, entry in built_with.items()}
    return given[0] if len(given) == 1 else list(given)


def _keras(version: str) -> Any:
    """Keras 3 for files of Keras 3, else tf-keras, which reads the older ones."""
    name = (
        "keras"
        if version.split(".", maxsplit=1)[0].isdigit() and int(version.split(".", maxsplit=1)[0]) >= 3
        else "tf_keras"
    )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BncheckError(f"{error.name} is not installed: {install('tf')}") from error


def _load(keras: Any, path: Path, *, trusted: bool) -> Any:
    """Loads without compiling; unless it is trusted, Keras too refuses a Lambda (`safe_mode`), where it can."""
    try:
        return keras.models.load_model(str(path), compile=False, safe_mode=not trusted)
    except (ValueError, TypeError, OSError, KeyError, AttributeError, ImportError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise BncheckError(f"{keras.__name__} {keras.__version__} cannot load {path}: {reason}") from error


def named_as_in(configured: tuple[Layer, ...], frozen: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers of the frozen graph under the names of the file, told by their statistics.

    Layers with the same statistics (never moved, say) are told by their forward order. One that is called in several
    places has copies in the frozen graph, as constants: what is left over is a copy.
    """
    left = list(configured)
    named = []
    for layer in frozen:
        found = next((other for other in left if _same(layer, other)), None)
        if found is not None:
            left.remove(found)
        else:
            found = next((other for other in configured if _same(layer, other)), None)
        named.append(layer if found is None else replace(layer, name=found.name))
    return tuple(named)


def _same(one: Layer, other: Layer) -> bool:
    pairs = ((one.mean.values, other.mean.values), (one.variance.values, other.variance.values))
    return all(a is not None and b is not None and np.array_equal(a, b, equal_nan=True) for a, b in pairs)
