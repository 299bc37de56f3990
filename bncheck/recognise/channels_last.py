"""Kernels as PyTorch and ONNX lay them out, in the order of axes that TensorFlow has."""

from __future__ import annotations

import numpy as np

from bncheck.facts.record import replace
from bncheck.sources.raw import RawTensor


def channels_last(kernel: RawTensor) -> RawTensor:
    """(out, in, *space) as (*space, in, out); of a transposed convolution (in, out, *space) as (*space, out, in)."""
    last = tuple(range(2, len(kernel.shape)))
    shape = (*kernel.shape[2:], kernel.shape[1], kernel.shape[0])
    return replace(kernel, shape=shape, read=lambda: np.transpose(kernel.read(), (*last, 1, 0)))
