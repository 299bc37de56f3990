"""Averages of weights that a Keras optimizer keeps (`use_ema`), and whether the model's own variables are these.

`fit` ends by writing them into the model (`finalize_variable_values`), so what is saved then is the averages; a file
of `ModelCheckpoint` holds the raw weights, and the averages in the optimizer alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np

from bncheck.sources.raw import RawModel


class Served(Enum):
    """Which weights a Keras file's own variables are, and so what a loaded model answers with."""

    AVERAGES = "ema"
    RAW = "raw"


TOLD = {
    Served.AVERAGES: (
        "its weights are the averages that the optimizer kept (use_ema), its moving statistics those of the raw weights"
    ),
    Served.RAW: (
        "it serves the raw weights; the averages (use_ema) are the optimizer's alone, until "
        "optimizer.finalize_variable_values(model.trainable_variables) writes them into the model"
    ),
}
"""As the rest of a sentence about the file."""
_COUNTERS = ("/iterations", "/learning_rate")


def served_weights(model: RawModel) -> Served | None:
    """None where no optimizer that averages is stored with the model.

    The averages come first among the optimizer's variables, in the order of the trained ones; a vector among them that
    is bit for bit one of the model's tells. Raises ReadError where the file is damaged.
    """
    keras = model.keras
    if keras is None or not _averages(keras.training_config):
        return None
    kept = [tensor for tensor in keras.optimizer_weights if not tensor.name.endswith(_COUNTERS)]
    first = next((tensor for tensor in kept if len(tensor.shape) == 1), None)
    if first is None:
        return None
    names = {tensor.name for tensor in keras.optimizer_weights}
    alike = (t for key, t in model.tensors.items() if key not in names and t.shape == first.shape)
    values = first.read()
    same = any(np.array_equal(tensor.read(), values) for tensor in alike)
    return Served.AVERAGES if same else Served.RAW


def _averages(compiled: Mapping[str, Any] | None) -> bool:
    """Whether the optimizer in the configuration of training, or the one that it wraps, keeps averages."""
    found: Any = (compiled or {}).get("optimizer_config") or (compiled or {}).get("optimizer")
    while isinstance(found, Mapping):
        config = found.get("config")
        if not isinstance(config, Mapping):
            return False
        if config.get("use_ema") is True:
            return True
        found = config.get("inner_optimizer")
    return False
