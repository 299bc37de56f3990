"""TF-slim 1.1.0 on any TensorFlow from 2.12 on: the one place where what broke between the two is bridged.

Two things broke, and `import tf_slim` alone shows neither, since both are looked up when a layer is built:

* From TensorFlow 2.14 on `tensorflow.python.layers` loads `tf_keras.legacy_tf_layers`, which has since moved to
  `tf_keras.src.legacy_tf_layers`. Without it `slim.batch_norm` ends in ModuleNotFoundError.
* From TensorFlow 2.14 on `tensorflow.python.framework.ops` has no `Tensor`, which `slim.fully_connected`,
  `slim.optimize_loss` and `slim.learning.create_train_op` still look for there.

Nothing of TensorFlow is changed for good: the old module name exists only while the lazy loaders resolve it, and
`Tensor` is given to the few TF-slim modules that ask for it, not to TensorFlow's own `ops`.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

OLD_LAYERS = "tf_keras.legacy_tf_layers"
NEW_LAYERS = "tf_keras.src.legacy_tf_layers"
_LAYER_MODULES = ("base", "convolutional", "core", "normalization", "pooling")
_ASK_FOR_TENSOR = {
    "tf_slim.layers.utils": "ops",
    "tf_slim.layers.optimizers": "ops",
    "tf_slim.layers.rev_block_lib": "framework_ops",
    "tf_slim.learning": "ops",
}


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
            f"{error.name} is not installed: TF-slim models need `pip install 'bncheck[tf]'`", name=error.name
        ) from error
    _give_tensor_to_slim()
    return slim


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


def _give_tensor_to_slim() -> None:
    for name, attribute in _ASK_FOR_TENSOR.items():
        module = importlib.import_module(name)
        ops = getattr(module, attribute)
        if not hasattr(ops, "Tensor"):
            setattr(module, attribute, _OpsWithTensor(ops))


class _OpsWithTensor(ModuleType):
    """TensorFlow's `ops` as one TF-slim module sees it, with `Tensor` where it used to be."""

    def __init__(self, ops: ModuleType) -> None:
        super().__init__(ops.__name__)
        self._ops = ops
        self.Tensor = importlib.import_module("tensorflow").Tensor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True
