"""BN107 dead-channels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import DEAD_VARIANCE, dead_channels, names, values_of
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts

FLT_MIN = float(np.finfo(np.float32).tiny)
"""Smallest normal float32: where a decaying average is flushed to zero and stops falling."""
DECAYS = (0.9, 0.95, 0.99, 0.995, 0.997, 0.999, 0.9995, 0.9997, 0.9999)
"""Decays in use, tried where the layer's own does not explain the floor: defaults of the frameworks and of well-known
training scripts, rounder ones between by guess."""


@rule("BN107", "dead-channels", severity=Severity.WARNING, needs=Needs.VALUES, sees="C18")
def check(model: Facts) -> Iterator[Evidence]:
    """The moving variance of some channels has collapsed to nothing: they carry no signal any more.

    What it detects
    ---------------
    Channels that were constant for so long that their moving variance fell below epsilon, below 1e-5 and below a
    thousandth of the layer's largest.

    Why it matters
    --------------
    Harmless in float: the channel outputs its beta. When folded for quantization, its weights are multiplied by gamma /
    sqrt(epsilon), 32 times those of a channel with variance 1 at epsilon 1e-3 and 316 times at 1e-5, and with one scale
    for the whole kernel the others round to little or nothing. BN404 works this out for this model.

    How it decides
    --------------
    A variance is compared with its layer, for a layer whose inputs are all small is not dead: EEGNet's first has
    9 variances below epsilon, none below 2e-5, all alike, and works. Without a larger neighbour a channel counts as
    dead below 1e-12. A channel constant for long enough stands where float32 stops falling, between decay *
    FLT_MIN / (1 - decay) and FLT_MIN / (1 - decay): the message then tells the decay it was trained with.

    Not detected
    ------------
    Channels that died recently, their variance still on its way down; channels alive on the training set only.

    Fix
    ---
    Leave it, if the model is served in float or quantized with one scale per channel. Else set gamma of the dead
    channels to 0 and move their constant into beta, or prune them:

        # where dead, for an input that is constantly 0
        beta = beta - gamma * mean / np.sqrt(variance + epsilon)
        gamma = np.where(dead, 0.0, gamma)

    In training: less weight decay on gamma and the convolution before, or a smaller learning rate.

    References
    ----------
    arXiv 1906.04721 (figure 2), intel/neural-compressor#825, tensorflow#33735. Failure modes C18, G07, G08, G09.
    """
    sick = [layer for layer in model.layers if dead_channels(layer).any()]
    if not sick:
        return
    count = sum(int(dead_channels(layer).sum()) for layer in sick)
    total = sum(values.size for layer in model.layers if (values := values_of(layer.variance)) is not None)
    zero = sum(int((layer.variance.values == 0).sum()) for layer in sick if layer.variance.values is not None)
    floors = [decay for layer in sick for decay in _floors(layer)]
    exact = f", {zero} of them exactly 0" if zero else ""
    said = ""
    measured: tuple[Measurement, ...] = ()
    if floors:
        decay = max(set(floors), key=floors.count)
        said = (
            f" {many(len(floors), 'channel').capitalize()} decayed to the smallest float32 that decay {decay:g} "
            "can reach."
        )
        measured = (Measurement(name="decay told by the floor", value=decay),)
    worst = max(sick, key=lambda layer: float(dead_channels(layer).mean()))
    most = dead_channels(worst)
    others = (
        f" in {many(len(sick), 'layer')}, most in {worst.name} ({int(most.sum())} of {most.size}): "
        f"{listing(names(sick))}"
        if len(sick) > 1
        else f" in {worst.name}"
    )
    yield Evidence(
        layers=names(sick),
        message=(
            f"{count:,} of {many(total, 'channel')} {'is' if count == 1 else 'are'} dead (moving variance below "
            f"{DEAD_VARIANCE:g}{exact}){others}.{said}"
        ),
        location=worst.variance.name,
        measurements=(
            Measurement(name="dead channels", value=count, limit=0, unit="channels"),
            Measurement(name="channels", value=total, unit="channels"),
            Measurement(name="variances of exactly 0", value=zero, unit="channels"),
            Measurement(name="largest dead part of a layer", value=float(most.mean())),
            *measured,
        ),
    )


def floor_decay(variance: float, *known: float) -> float | None:
    """The decay at whose float32 floor this variance stands, of those in use and `known`; None: at none.

    The average stops falling once variance * (1 - decay) is flushed to zero: between decay * FLT_MIN / (1 - decay)
    and FLT_MIN / (1 - decay).
    """
    for decay in (*known, *DECAYS):
        floor = FLT_MIN / (1 - decay) if 0 < decay < 1 else 0.0
        if decay * floor * 0.999 <= variance <= floor * 1.001 and floor:
            return decay
    return None


def _floors(layer: Layer) -> list[float]:
    """Decays told by the layer's dead channels, one for each that stands at a floor."""
    values = values_of(layer.variance)
    known = () if layer.decay is None else (layer.decay,)
    tiny = [] if values is None else values[(values > 0) & (values < 1e-30)].tolist()
    return [decay for value in tiny if (decay := floor_decay(value, *known)) is not None]


def clean() -> tuple[Facts, ...]:
    """A healthy layer; EEGNet's first: all variances small and alike; small ones within a thousandth of the largest."""
    eegnet = [2.2e-5, 2.8e-5, 3.2e-5, 3.9e-5, 6.6e-5, 1.0e-4, 1.2e-4, 1.2e-4]
    return (
        facts(batch_norm("bn")),
        facts(batch_norm("eegnet", variance=eegnet, mean=0.01, channels=8)),
        facts(batch_norm("volts", variance=[2e-10, 3e-10, 9e-10, 1e-10], mean=1e-5)),
    )


def broken() -> tuple[Facts, ...]:
    """mini-XCEPTION's two channels at the floor of decay 0.99; a layer of zeros; a collapse by weight decay."""
    return (
        facts(batch_norm("bn", variance=[1.1664e-36, 0.3, 1.1664e-36, 2.0], gamma=[0.01, 0.9, 0.01, 0.8])),
        facts(batch_norm("a"), batch_norm("b", variance=0.0, mean=0.1)),
        facts(batch_norm("bn", variance=[1.2e-15, 0.8, 0.9, 0.7], gamma=[0.02, 1.0, 1.0, 1.0])),
    )
