"""Keras's names for the weights of MobileNetV2 -> those of TF-slim's checkpoints, which our network has.

Keras's application of that name is the same network: same depths, epsilon 1e-3, and its `correct_pad` before a stride
of 2 pads as TensorFlow's "SAME" does, for even and odd sizes. So the weights run in ours without explicit padding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.sources.raw import RawTensor

LANDMARK = "expanded_conv_depthwise_BN/moving_mean"
"""A name that each of Keras's MobileNetV2 has, and hardly anything else."""

_STEM = {"Conv1": "Conv", "Conv_1": "Conv_1", "predictions": "Logits/Conv2d_1c_1x1", "Logits": "Logits/Conv2d_1c_1x1"}
_STEM_NORMS = {"bn_Conv1": "Conv", "Conv1_bn": "Conv", "Conv_1_bn": "Conv_1"}
_BLOCK = re.compile(r"(?:expanded_conv|block_(?P<number>[0-9]+))_(?P<part>expand|depthwise|project)(?P<norm>_BN)?\Z")
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_WEIGHTS = {"kernel": "weights", "bias": "biases", "depthwise_kernel": "depthwise_weights"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Renamed:
    """Tensors under our names, and the names that have no place in MobileNetV2."""

    tensors: Mapping[str, RawTensor]
    left_out: tuple[str, ...]


def slim_name(keras_name: str) -> str | None:
    """`block_1_expand_BN/moving_mean` -> `expanded_conv_1/expand/BatchNorm/moving_mean`; None for what has no place."""
    layer, _, weight = keras_name.removesuffix(":0").rpartition("/")
    block = _BLOCK.match(layer)
    if block is not None:
        number = block["number"]
        scope = f"expanded_conv{'_' + number if number else ''}/{block['part']}"
        is_norm = block["norm"] is not None
    else:
        scope, is_norm = _STEM_NORMS.get(layer) or _STEM.get(layer, ""), layer in _STEM_NORMS
    if not scope:
        return None
    if is_norm:
        return f"{scope}/BatchNorm/{weight}" if weight in _NORM else None
    return f"{scope}/{_WEIGHTS[weight]}" if weight in _WEIGHTS else None


def renamed(tensors: Mapping[str, RawTensor], scope: str) -> Renamed | None:
    """The tensors under `scope`, by our names; None where these are no weights of Keras's MobileNetV2.

    A nested model's name before the layer's (`mobilenetv2_1.00_224/Conv1/kernel`) is looked through, and so is the
    layer's name said twice, as HDF5 files do.
    """
    prefixes = {name[: -len(LANDMARK)] for name in map(_plain, tensors) if name.endswith(LANDMARK)}
    if len(prefixes) != 1:
        return None
    (prefix,) = prefixes
    found: dict[str, RawTensor] = {}
    left_out = []
    for key, tensor in tensors.items():
        ours = slim_name(_plain(key).removeprefix(prefix))
        if ours is None:
            left_out.append(key)
            continue
        name = f"{scope}/{ours}"
        found[name] = replace(_as_convolution(tensor), name=name)
    return Renamed(tensors=found, left_out=tuple(left_out))


def _plain(key: str) -> str:
    """Without ":0" and without a layer's name that is said twice."""
    parts = key.removesuffix(":0").split("/")
    return "/".join(part for at, part in enumerate(parts) if at == 0 or part != parts[at - 1])


def _as_convolution(tensor: RawTensor) -> RawTensor:
    """A dense kernel (in, out) as the kernel (1, 1, in, out) of a convolution; others as they are."""
    if len(tensor.shape) != 2:
        return tensor
    return replace(tensor, shape=(1, 1, *tensor.shape), read=partial(_reshaped, tensor))


def _reshaped(tensor: RawTensor) -> NDArray[Any]:
    return np.reshape(tensor.read(), (1, 1, *tensor.shape))
