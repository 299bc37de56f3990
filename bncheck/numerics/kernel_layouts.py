"""Where TensorFlow lays a kernel's output channels, by its op or Keras class."""

from __future__ import annotations

_KERAS = ("Conv", "Convolution")
"""As Keras calls its convolutions, and as it called them first."""
DEPTHWISE = frozenset({"DepthwiseConv2dNative", *(f"Depthwise{name}{n}D" for name in _KERAS for n in (1, 2, 3))})
TRANSPOSED = frozenset(
    {"Conv2DBackpropInput", "Conv3DBackpropInput", "Conv3DBackpropInputV2"}
    | {f"{name}{n}DTranspose" for name in _KERAS for n in (1, 2, 3)}
)


def output_channels(shape: tuple[int, ...], op: str) -> int | None:
    """Output channels of a kernel in TensorFlow's layout; None where the shape cannot be one of that op.

    Convolution and dense: [..., in, out]. Depthwise: [h, w, in, multiplier], in * multiplier channels. Transposed:
    [..., out, in].
    """
    if len(shape) < 2:
        return None
    if op in DEPTHWISE:
        return shape[-2] * shape[-1]
    return shape[-2] if op in TRANSPOSED else shape[-1]
