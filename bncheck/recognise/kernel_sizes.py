"""The kernel that batch norm is folded into: largest and typical weight of each output channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Linear, PerChannel
from bncheck.facts.record import replace
from bncheck.numerics.kernel_layouts import TRANSPOSED, output_channels
from bncheck.recognise.stored_vectors import read_together
from bncheck.sources.raw import RawTensor

MAX_KERNEL = 64 << 20
"""Bytes above which a kernel is not read."""
_HELD = 4 << 20
"""Bytes of kernels that are held at a time, where many are read."""
_MAX_FAR_KERNEL = 256 << 10
"""The same of a file on another machine, of which the statistics are wanted."""

_WIDTHS = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}


class Sizes(NamedTuple):
    """How large the weights of each output channel are; NaN where it holds one, 0 for a channel without weights."""

    largest: PerChannel
    """max |w|"""
    rms: PerChannel
    """sqrt(mean w^2)"""
    mean: PerChannel
    """mean |w|"""


def kernel_sizes(tensor: RawTensor, op: str) -> Sizes:
    """Reads a kernel. Raises ReadError where the file is damaged, ValueError where `op` has no kernel of that shape."""
    channels = output_channels(tensor.shape, op)
    if channels is None:
        raise ValueError(f"{tensor.name} of shape {list(tensor.shape)} is not a kernel of {op}")
    return sizes_of(tensor.read(), op, channels)


def sizes_of(weights: NDArray[Any], op: str, channels: int) -> Sizes:
    """The same of a kernel that was read."""
    largest, rms, mean = sizes_of_all(weights[None], op, channels)
    return Sizes(largest[0], rms[0], mean[0])


def sizes_of_all(weights: NDArray[Any], op: str, channels: int) -> Sizes:
    """The same of kernels of one shape, (kernels, *shape), each size (kernels, channels)."""
    if op in TRANSPOSED:
        weights = np.moveaxis(weights, -2, -1)
    kernels = len(weights)
    rows = weights.reshape(kernels, weights.size // (channels * kernels) if channels else 0, channels)
    rows = np.abs(rows if rows.dtype.itemsize >= 4 else rows.astype(np.float32))
    count = max(rows.shape[1], 1)
    with np.errstate(invalid="ignore", over="ignore"):  # a signalling NaN; squares beyond float32
        return Sizes(
            largest=_read_only(rows.max(axis=1, initial=0)),
            rms=_read_only(np.sqrt(np.einsum("kij,kij->kj", rows, rows).astype(np.float64) / count)),
            mean=_read_only(np.einsum("kij->kj", rows).astype(np.float64) / count),
        )


def _read_only(values: NDArray[Any]) -> PerChannel:
    found: PerChannel = values.astype(np.float64)
    found.setflags(write=False)
    return found


def linear_before(name: str, op: str, tensor: RawTensor, *, limit: int = MAX_KERNEL) -> Linear:
    """The linear layer with this kernel. Of what is not at hand, too large or no float, `reason` says so.

    Raises ReadError where the file is damaged.
    """
    reason = _not_read(tensor, op, limit)
    if reason:
        return Linear(name=name, op=op, kernel=tensor.name, reason=reason)
    return _with_sizes(Linear(name=name, op=op, kernel=tensor.name), kernel_sizes(tensor, op))


def linears_before(
    asked: Sequence[tuple[str, str, RawTensor]], tensors: Mapping[str, RawTensor], *, limit: int
) -> list[Linear]:
    """`linear_before` of each (name, op, kernel), many read together, up to `limit` bytes in all. Raises ReadError."""
    found: list[Linear] = []
    waiting: list[int] = []
    held, left = 0, limit
    for name, op, tensor in asked:
        reason, size = _not_read(tensor, op, left), kernel_bytes(tensor)
        if not reason:
            if held + size > _HELD:
                _fill(found, waiting, tensors)
                waiting, held = [], 0
            waiting.append(len(found))
            held, left = held + size, left - size
        found.append(Linear(name=name, op=op, kernel=tensor.name, reason=reason))
    _fill(found, waiting, tensors)
    return found


def _fill(linears: list[Linear], waiting: Sequence[int], tensors: Mapping[str, RawTensor]) -> None:
    """Reads the kernels of these places; those of one shape are looked at together."""
    stored = read_together([linears[place].kernel for place in waiting], tensors)
    alike: dict[tuple[str, tuple[int, ...], str], list[int]] = {}
    for place in waiting:
        weights = stored[linears[place].kernel]
        alike.setdefault((linears[place].op, weights.shape, weights.dtype.str), []).append(place)
    for (op, shape, _), places in alike.items():
        weights = np.stack([stored[linears[place].kernel] for place in places])
        sizes = sizes_of_all(weights, op, output_channels(shape, op) or 0)
        for place, largest, rms, mean in zip(places, *sizes, strict=True):
            linears[place] = _with_sizes(linears[place], Sizes(largest, rms, mean))


def with_weights(known: Linear, weights: NDArray[Any]) -> Linear:
    """A linear layer whose kernel could be read, with other weights of the same shape."""
    assert known.channel_max is not None
    return _with_sizes(known, sizes_of(weights, known.op, known.channel_max.size))


def _with_sizes(linear: Linear, sizes: Sizes) -> Linear:
    return replace(linear, channel_max=sizes.largest, channel_rms=sizes.rms, channel_mean=sizes.mean)


def is_read(tensor: RawTensor) -> bool:
    """Whether a kernel, or another tensor of floats, is at hand and small enough to be read."""
    return tensor.unavailable is None and 0 < kernel_bytes(tensor) <= (_MAX_FAR_KERNEL if tensor.far else MAX_KERNEL)


def kernel_bytes(tensor: RawTensor) -> int:
    """Bytes of a kernel of floats; 0 for other types."""
    size = _WIDTHS.get(tensor.dtype, 0)
    for dimension in tensor.shape:
        size *= dimension
    return size


def _not_read(tensor: RawTensor, op: str, limit: int) -> str:
    if tensor.unavailable is not None:
        return tensor.unavailable
    if tensor.dtype not in _WIDTHS:
        return f"its kernel is of type {tensor.dtype}"
    if output_channels(tensor.shape, op) is None:
        return f"a kernel of shape {list(tensor.shape)} is not understood"
    size = kernel_bytes(tensor)
    if tensor.far and size > _MAX_FAR_KERNEL:
        return f"its kernel of {size >> 10:,} KiB is above the {_MAX_FAR_KERNEL >> 10} KiB that are fetched"
    if size > MAX_KERNEL:
        return f"its kernel of {size >> 20:,} MiB is above the {MAX_KERNEL >> 20} MiB that are read"
    return f"kernels of more than {limit >> 20:,} MiB came before" if size > limit else ""
