"""What folding makes of a kernel, and what 8-bit weights will leave of it: from the files alone, no data are run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from bncheck.facts.layers import Layer, PerChannel
from bncheck.facts.record import Record
from bncheck.numerics.channels import dead_channels
from bncheck.numerics.fold import fold_scales, gamma_and_beta
from bncheck.numerics.side_by_side import SideBySide

LARGEST = 127
"""Largest integer of a symmetric 8-bit kernel: the converter leaves -128 out."""
_SPARSEST = 1e-4
"""Least share of a channel's weights that is taken to be other than 0; a guess."""


class Forecast(Record):
    """NMSE of a layer's output that rounding its folded kernel to 8 bits will make; see `forecast`."""

    per_tensor: float
    """One scale for the kernel."""
    per_channel: float
    """A scale for each output channel."""
    kernel_per_tensor: float
    """NMSE of the folded kernel itself: sum of squared errors over the sum of squared weights, one scale."""
    kernel_per_channel: float


def forecast(layer: Layer) -> Forecast | None:
    """What rounding the folded kernel costs, from the size of its weights a channel and from batch norm alone.

    A weight w of channel c becomes `s_c w`, s = |gamma| / sqrt(variance + epsilon), and is rounded to steps of
    `max |s w| / 127`, the maximum being that of its channel or of the whole kernel. Rounding costs step^2 / 12 a weight
    and never more than the weight itself. Many kernels are mostly zeros or nearly (weights that read dead channels),
    which cost nothing: as normal weights have `mean |w| = sqrt(2 / pi) rms`, a share `p = pi / 2 mean^2 / rms^2` is
    taken to be normal and the rest 0. With r the root mean square of `s w` the noise of a channel is `q_c = p min(
    step^2 / 12, r_c^2 / p) / r_c^2` of its signal. Into the output it goes with the power of what the kernel gives,
    `gamma^2 (variance + mean^2) / (variance + epsilon)`; the output's own power is `gamma^2 variance / (variance +
    epsilon) + beta^2`. None where kernel or batch norm were not read, or are no numbers, and where no channel is left
    that is alive and has weights: then the output is one constant, of which there is nothing to lose.
    """
    return forecasts([layer])[0]


def forecasts(layers: Sequence[Layer]) -> list[Forecast | None]:
    """`forecast` of each layer, all of them at once."""
    read = [_read(layer, scale) for layer, scale in zip(layers, fold_scales(layers), strict=True)]
    known = [(layer, sizes) for layer, sizes in zip(layers, read, strict=True) if sizes is not None]
    if not known:
        return [None] * len(layers)
    told = iter(_of_kernels([layer for layer, _ in known], [sizes for _, sizes in known]))
    return [None if sizes is None else next(told) for sizes in read]


def _read(layer: Layer, scale: PerChannel | None) -> tuple[PerChannel, PerChannel, PerChannel, PerChannel] | None:
    """Fold scale, and the kernel's largest, typical and mean weight, per channel; None where one was not read."""
    linear = layer.linear
    if scale is None or linear is None or not _fits(layer, scale.size):
        return None
    largest, typical, mean = linear.channel_max, linear.channel_rms, linear.channel_mean
    if largest is None or typical is None or mean is None:
        return None
    return (scale, largest, typical, mean) if largest.shape == typical.shape == mean.shape == scale.shape else None


def _fits(layer: Layer, channels: int) -> bool:
    """Whether mean and beta are of the layer's channels, or one number for all; not a table of classes."""
    read = (vector.values for vector in (layer.mean, layer.beta))
    return all(values is None or values.size in (1, channels) for values in read)


def _of_kernels(
    layers: Sequence[Layer], sizes: Sequence[tuple[PerChannel, PerChannel, PerChannel, PerChannel]]
) -> Iterator[Forecast | None]:
    side = SideBySide([scale.size for scale, *_ in sizes])
    scale, *kernel = (np.concatenate([size.reshape(-1) for size in of]) for of in zip(*sizes, strict=True))
    with np.errstate(all="ignore"):
        largest, typical, mean = (scale * size for size in kernel)
        energy = typical**2
        used = energy > 0
        living = side.totals(used & ~np.concatenate([dead_channels(layer).reshape(-1) for layer in layers])) > 0
        divisor = np.where(used, energy, 1.0)
        normal = np.minimum(np.maximum(np.pi / 2 * mean**2 / divisor, _SPARSEST), 1.0)
        from_kernel, output = _powers(layers, side)
        signal, weights = side.totals(output), side.totals(energy)
        told = []
        for step in (side.spread(side.largest(largest)) / LARGEST, largest / LARGEST):
            noise = normal * np.minimum(step**2 / 12, energy / normal)
            part = np.where(used, noise / divisor, 0.0)
            told += [side.totals(part * from_kernel) / signal, side.totals(noise) / weights]
    for alive, tensor, kernel_tensor, channel, kernel_channel in zip(
        living.tolist(), *np.array(told).tolist(), strict=True
    ):
        finite = all(map(math.isfinite, (tensor, kernel_tensor, channel, kernel_channel)))
        yield (
            Forecast(
                per_tensor=tensor,
                per_channel=channel,
                kernel_per_tensor=kernel_tensor,
                kernel_per_channel=kernel_channel,
            )
            if alive and finite
            else None
        )


def _powers(layers: Sequence[Layer], side: SideBySide) -> tuple[PerChannel, PerChannel]:
    """Per channel the mean square of what the folded kernel gives, and of the layer's output before its activation."""
    vectors = []
    for layer in layers:
        variance = np.asarray(layer.variance.values).reshape(-1)
        gamma, beta = gamma_and_beta(layer.gamma.values, layer.beta.values, variance)
        mean = np.zeros_like(variance) if layer.mean.values is None else layer.mean.values
        vectors.append([_spread(part.reshape(-1), variance.size) for part in (gamma, beta, mean, variance)])
    gamma, beta, mean, variance = (np.concatenate(of) for of in zip(*vectors, strict=True))
    divisor = variance + side.spread(layer.epsilon or 0.0 for layer in layers)
    return gamma**2 * (variance + mean**2) / divisor, gamma**2 * variance / divisor + beta**2


def _spread(part: PerChannel, channels: int) -> PerChannel:
    """One number for all channels, for each of them."""
    return part if part.size == channels else np.repeat(part, channels)
