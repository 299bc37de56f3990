"""TF-slim 1.1.0 on any TensorFlow from 2.12 on: the one place where what broke between the two is bridged.

Two things broke, and `import tf_slim` alone shows neither, since both are looked up when a layer is built:

* `tensorflow.python.layers.normalization` loads `tf_keras.legacy_tf_layers`, which has since moved to
  `tf_keras.src.legacy_tf_layers`. Without it `slim.batch_norm` ends in ModuleNotFoundError.
* TensorFlow split its internal modules: `ops.Tensor`, `control_flow_ops.cond`, `array_ops.stack` and a few more are
  elsewhere now. Without them `slim.fully_connected`, `slim.learning.create_train_op` with gradient multipliers and
  `slim.batch_norm` with a tensor for `is_training` end in AttributeError.

Nothing of TensorFlow is changed for good: the old module name exists only while the lazy loaders resolve it, and what
moved is given to the TF-slim modules that ask for it, not to TensorFlow's own.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from bncheck.facts.extras import install

OLD_LAYERS = "tf_keras.legacy_tf_layers"
NEW_LAYERS = "tf_keras.src.legacy_tf_layers"
_LAYER_MODULES = ("base", "convolutional", "core", "normalization", "pooling")
_MOVED = {
    "tensorflow.python.framework.ops": {"Tensor": "Tensor", "IndexedSlices": "IndexedSlices"},
    "tensorflow.python.ops.array_ops": {"stack": "stack", "unstack": "unstack"},
    "tensorflow.python.ops.control_flow_ops": {
        "Assert": "Assert",
        "case": "case",
        "cond": "cond",
        "while_loop": "while_loop",
    },
    "tensorflow.python.ops.variable_scope": {"variable": "Variable"},
}
"""Internal module -> name that TF-slim looks for there -> its name in `tf.compat.v1`."""


@functools.cache
def load_slim() -> ModuleType:
    """The module `tf_slim`, ready to build layers. Later calls give the same module.

    Raises ModuleNotFoundError, with what to install, where TensorFlow, tf-keras or tf-slim is absent.
    """
    try:
        slim = importlib.import_module("tf_slim")
        with _old_layer_names():
            _resolve_lazy_layers()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: TF-slim models need `{install('tf')}`", name=error.name
        ) from error
    _give_slim_what_moved()
    return slim


def load_net(name: str) -> ModuleType:
    """One of TF-slim's networks, such as `resnet_v1`: the modules of `tf_slim.nets`, which `tf_slim` does not load."""
    load_slim()
    module = importlib.import_module(f"tf_slim.nets.{name}")
    _give_slim_what_moved()
    return module


def mend_loaded_slim() -> None:
    """Makes the TF-slim that someone else's code has imported ready to build layers; does nothing where none has."""
    if "tf_slim" in sys.modules:
        load_slim()
        _give_slim_what_moved()


@functools.cache
def load_tf_layers() -> ModuleType:
    """The module behind `tf.compat.v1.layers.batch_normalization`, which Keras 3 no longer exposes under that name."""
    load_slim()
    places = (f"{OLD_LAYERS}.normalization", f"{NEW_LAYERS}.normalization")
    return importlib.import_module(next(filter(_importable, places), "tensorflow.python.layers.normalization"))


@contextmanager
def _old_layer_names() -> Iterator[None]:
    """Lets `tf_keras.legacy_tf_layers` be imported inside the block where only its new place exists."""
    lent: list[str] = []
    try:
        if not _importable(OLD_LAYERS) and _importable(NEW_LAYERS):
            for suffix in ("", *(f".{module}" for module in _LAYER_MODULES)):
                sys.modules[OLD_LAYERS + suffix] = importlib.import_module(NEW_LAYERS + suffix)
                lent.append(OLD_LAYERS + suffix)
        yield
    finally:
        for name in lent:
            del sys.modules[name]


def _resolve_lazy_layers() -> None:
    """Makes TensorFlow's lazy loaders resolve now: once loaded they keep the module and never import by name again."""
    for module, attribute in (("normalization", "BatchNormalization"), ("convolutional", "Conv2D"), ("core", "Dense")):
        getattr(importlib.import_module(f"tensorflow.python.layers.{module}"), attribute)


def _give_slim_what_moved() -> None:
    """Where a module of TF-slim refers to one of `_MOVED` that lacks a name, it gets a view with the names."""
    views = {name: _with_moved(name, wanted) for name, wanted in _MOVED.items()}
    for slim_module in [module for name, module in sys.modules.items() if name.split(".")[0] == "tf_slim"]:
        for attribute, value in list(vars(slim_module).items()):
            if isinstance(value, ModuleType) and value.__name__ in views:
                setattr(slim_module, attribute, views[value.__name__])


def _with_moved(name: str, wanted: dict[str, str]) -> ModuleType:
    """The module of that name as it used to be; itself where it still has everything."""
    module = importlib.import_module(name)
    public = importlib.import_module("tensorflow").compat.v1
    lacking = {old: getattr(public, new) for old, new in wanted.items() if not hasattr(module, old)}
    return _View(module, lacking) if lacking else module


class _View(ModuleType):
    """A module with a few names more, which the module itself does not get."""

    def __init__(self, module: ModuleType, more: dict[str, Any]) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(more)
        self._viewed = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._viewed, name)


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True
