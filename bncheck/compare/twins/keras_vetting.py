"""Which Keras configurations may be built: those of the library's own layers and functions, so that no code is run.

To load a model, Keras builds what its configuration names: a `Lambda` from its bytecode, and, as tf-keras does without
any option against it, whatever can be imported. So the configuration is looked at before Keras is handed the file. What
it may name is taken from the library itself; `__subclasses__` tells all that it can build.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bncheck.facts.errors import BncheckError

_MARKS = frozenset(
    "__bytes__ __ellipsis__ __keras_tensor__ __numpy__ __slice__ __tensor__ __tuple__ TensorShape".split()
)
"""What Keras writes in place of values that JSON has none for."""
_LIBRARIES = ("keras", "tf_keras")
_PARTS = frozenset(
    "activations applications constraints dtype_policies engine initializers layers legacy losses "
    "metrics mixed_precision models ops optimizers quantizers regularizers".split()
)
"""Parts of `keras.src` that hold what a configuration may name. Layers that load other files (`TFSMLayer`) or pickled
modules (`TorchModuleWrapper`, `JaxLayer`) lie outside, in `export` and `utils`."""
_CARRIERS = frozenset(
    "Lambda DropoutWrapper ResidualWrapper DeviceWrapper _RNNCellWrapper ClassMethod InstanceMethod ModuleWrapper "
    "DynamicEmbedding DynamicLookup".split()
)
"""Layers of these parts that run what their configuration says: bytecode, as some wrappers of cells do without naming
it as an object, or a method by its name."""
_BY_SYMBOL = frozenset({"TFOpLambda", "SlicingOpLambda"})
"""Layers of tf-keras that call a function of TensorFlow by its name."""
_SYMBOLS = frozenset(
    f"tensorflow.python.ops.{name}"
    for name in "array_ops array_ops_stack bitwise_ops clip_ops gen_array_ops gen_bitwise_ops gen_image_ops "
    "gen_linalg_ops gen_math_ops gen_nn_ops gen_spectral_ops image_ops_impl linalg_ops linalg.linalg_impl math_ops "
    "nn_impl nn_ops signal.spectral_ops sort_ops special_math_ops tensor_getitem_override".split()
) | frozenset(
    "tensorflow.python.framework.constant_op tensorflow.python.framework.tensor_conversion "
    "tf_keras.src.activations tf_keras.src.backend".split()
)
"""Modules of those functions that only write ops into a graph."""
_FILES = ("vocabulary", "idf_weights")
"""Fields that hold values or, as text, the path of a file to read them from."""
_ONLY_TRUSTED = "it is built only with --trust-model"


def refuse_foreign(keras: Any, path: Path, configuration: str | bytes) -> None:
    """Raises BncheckError for the first layer, function or other object that is not of the library `keras` itself.

    `configuration` is the JSON of the file at `path`. What the model was compiled with counts only in models within
    it: its own is not loaded.
    """
    _refuse_two_in_one(path)
    found = json.loads(configuration)
    pending = [({key: value for key, value in found.items() if key != "compile_config"}, "the model")]
    while pending:
        node, holder = pending.pop()
        if isinstance(node, Mapping):
            if "class_name" in node:
                holder = _named(node) or holder
                reason = _foreign(keras, node)
                if reason:
                    raise BncheckError(f"{path}: {holder} {reason}; {_ONLY_TRUSTED}")
            pending.extend((value, holder) for value in reversed(node.values()))
        elif isinstance(node, list):
            pending.extend((value, holder) for value in reversed(node))


def _refuse_two_in_one(path: Path) -> None:
    """A zip archive may have anything before it: Keras would tell by the suffix which of both it reads."""
    if path.is_file() and zipfile.is_zipfile(path) and importlib.import_module("h5py").is_hdf5(path):
        raise BncheckError(f"{path} is an HDF5 file and a zip archive in one, and Keras may read either: save it again")


def _named(node: Mapping[str, Any]) -> str:
    config = node.get("config")
    name = config.get("name") if isinstance(config, Mapping) else None
    return f"the layer {name!r}" if isinstance(name, str) else ""


def _foreign(keras: Any, node: Mapping[str, Any]) -> str:
    """Why an object may not be built, as the rest of a sentence about its layer; empty where it may."""
    name, config, module = node["class_name"], node.get("config"), node.get("module")
    if not isinstance(name, str):
        return f"names {name!r} as a class"
    if name in _MARKS:
        return ""
    if name in {"Lambda", "__lambda__"}:
        return "holds code (a Lambda)"
    known = _functions(keras) if name == "function" else _classes(keras)
    wanted = config if name == "function" else name
    if not isinstance(wanted, str) or wanted not in known:
        return f"names {_told(module, wanted)}, not a layer or function of {keras.__name__} that runs without trust"
    library = isinstance(module, str) and module.partition(".")[0] in _LIBRARIES
    if not (module is None or library or (name == "function" and module == "builtins")):
        return f"names {_told(module, wanted)}, which is not of {keras.__name__}"
    if node.get("registered_name") not in (None, name, wanted):
        return f"names the registered object {node['registered_name']!r}, which is not of {keras.__name__}"
    if name in _BY_SYMBOL and not _only_writes_ops(config):
        return f"calls {config.get('function') if isinstance(config, Mapping) else config!r}, not a plain op"
    if isinstance(config, Mapping) and any(isinstance(config.get(field), str) for field in _FILES):
        return "reads another file"
    return ""


def _told(module: object, name: object) -> str:
    return f"{module}.{name}" if isinstance(module, str) else f"{name}"


@cache
def _classes(keras: Any) -> frozenset[str]:
    """Names of the library's own layers, operations, initializers and so on."""
    own = {cls.__name__ for base in _bases(keras) for cls in (base, *_below(base)) if _is_own(keras, cls)}
    return frozenset((own | set(_aliases(keras, own))) - _CARRIERS)


def _bases(keras: Any) -> Iterator[type]:
    policies = keras.mixed_precision.Policy if keras.__name__ == "tf_keras" else keras.dtype_policies.DTypePolicy
    yield from (getattr(keras, "Operation", keras.layers.Layer), keras.initializers.Initializer, policies)
    yield from (keras.regularizers.Regularizer, keras.constraints.Constraint, keras.losses.Loss, keras.metrics.Metric)
    yield from (keras.optimizers.Optimizer, keras.optimizers.schedules.LearningRateSchedule)
    for part, base in (("quantizers", "Quantizer"), ("dtype_policies", "DTypePolicyMap")):
        found = getattr(getattr(keras, part, None), base, None)
        if found is not None:
            yield found


def _below(base: type) -> Iterator[type]:
    pending, seen = [base], {base}
    while pending:
        below: list[type] = type.__subclasses__(pending.pop())
        for cls in below:
            if cls not in seen:
                seen.add(cls)
                pending.append(cls)
                yield cls


def _is_own(keras: Any, cls: type) -> bool:
    """Defined in a part of the library that holds such classes: a subclass may be anybody's."""
    library, _, rest = cls.__module__.partition(".src.")
    return library == keras.__name__ and rest.partition(".")[0] in _PARTS


def _aliases(keras: Any, own: set[str]) -> Iterator[str]:
    """Other names of these classes that older files have: BatchNormalizationV1, one of tf-keras."""
    if keras.__name__ != "tf_keras":
        return
    for part in ("layers.serialization", "initializers"):
        module = importlib.import_module(f"tf_keras.src.{part}")
        module.populate_deserializable_objects()
        for alias, cls in module.LOCAL.ALL_OBJECTS.items():
            if isinstance(cls, type) and cls.__name__ in own:
                yield alias


@cache
def _functions(keras: Any) -> frozenset[str]:
    """Names of the library's own activations, losses and metrics."""
    found = {
        name
        for part in (keras.activations, keras.losses, keras.metrics)
        for name, value in vars(part).items()
        if callable(value) and not isinstance(value, type)
    }
    return frozenset(found - {"get", "serialize", "deserialize"})


def _only_writes_ops(config: object) -> bool:
    """Whether the function of TensorFlow that a layer calls is one of mathematics or arrays."""
    symbol = config.get("function") if isinstance(config, Mapping) else None
    if not isinstance(symbol, str):
        return False
    function = importlib.import_module("tensorflow.python.util.tf_export").get_symbol_from_name(symbol)
    return callable(function) and not isinstance(function, type) and getattr(function, "__module__", "") in _SYMBOLS
