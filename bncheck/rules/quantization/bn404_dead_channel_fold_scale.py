"""BN404 dead-channel-fold-scale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Linear
from bncheck.facts.wording import listing, many
from bncheck.numerics.channel_ranges import BITS, levels
from bncheck.numerics.channels import names
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.one_scale import assumed, concerned
from bncheck.testing import batch_norm, facts

LIMIT = 2 ** (BITS - 4)
"""Range of a dead channel over the living median: beyond it dead channels leave the others 8 levels of each sign,
as in the known answer of METRICS at epsilon 1e-3; a guess."""
NOTHING = 2**BITS
"""Beyond it a living channel's largest weight is under half a step and rounds to zero."""


@rule(
    "BN404",
    "dead-channel-fold-scale",
    severity=Severity.WARNING,
    needs=Needs.VALUES,
    explained_by=("BN107",),
    meaning=Meaning.FOLDED_RANGES,
    sees="G09",
    sees_too="C18",
)
def check(model: Facts) -> Iterator[Evidence]:
    """When folded, dead channels get the largest weights of the layer and take the others' quantization levels.

    What it detects
    ---------------
    Layers with dead channels (BN107) whose folded range max |w| * |gamma| / sqrt(variance + epsilon) is more than 16
    times the living median, and larger than any living channel's.

    Why it matters
    --------------
    A dead channel is divided by sqrt(epsilon) alone: 32 times the weights of a channel with variance 1 at epsilon 1e-3,
    316 times at 1e-5. With one 8-bit scale for the kernel the others keep 8 of 255 levels in the first case; in the
    second, all their weights round to 0. Per-channel scales are unaffected.

    How it decides
    --------------
    From kernel, gamma, variance and epsilon; without the kernel from the fold scale alone, with low confidence, for the
    kernels of channels that died of weight decay are small too. A warning, since it takes per-tensor weights to hurt;
    an error beyond a ratio of 256, where the living round to nothing, and only if the kernel was read. Once a model was
    quantized and measured, only layers whose kernel has one scale count, and that lose by themselves.

    Measured, on MobileNetV1 with per-tensor scales: 1.8 % top-1, and 45.7 % after repairing dead channels alone.

    Not detected
    ------------
    Dead channels whose integer bias leaves 32 bits (BN405 reads that from the TFLite file).

    Fix
    ---
    Switch the dead channels off before folding, their constant moved into beta (for a constant input of 0):

        beta[dead] -= gamma[dead] * mean[dead] / np.sqrt(variance[dead] + epsilon)
        gamma[dead] = 0.0

    Or quantize with one scale per channel, which is the converter's default.

    References
    ----------
    arXiv 1906.04721 (figure 2), intel/neural-compressor#825, tensorflow#33735, onnxruntime#11415.
    Failure modes C18, G07, G08, G09; P14.
    """
    dead = [ranges for ranges in concerned(model) if ranges.dead_ratio > LIMIT]
    good = _precise(model)
    bad = [ranges for ranges in dead if ranges.dead_ratio > ranges.alive_spread and ranges.layer.name not in good]
    if not bad:
        return
    worst = max(bad, key=lambda ranges: (ranges.with_kernel, ranges.dead_ratio))
    read = any(ranges.with_kernel for ranges in bad)
    guessed = assumed(model, [ranges.layer.name for ranges in bad])
    ruin = not guessed and any(ranges.with_kernel and ranges.dead_ratio > NOTHING for ranges in bad)
    layers = names(ranges.layer for ranges in bad)
    basis = "" if read else " The kernels were not read: this rests on the fold scales alone."
    yield Evidence(
        layers=layers,
        message=(
            f"Folding gives dead channels of {worst.layer.name} weights {worst.dead_ratio:.0f} times those of the "
            "median "
            f"living channel, which with one scale per kernel keeps {2 * levels(worst.dead_ratio):.1f} of 255 levels. "
            f"{many(len(layers), 'layer')}: {listing(layers)}.{basis}"
            f"{guessed}"
        ),
        severity=Severity.ERROR if ruin else Severity.WARNING,
        confidence=Confidence.HIGH if read and not guessed else Confidence.LOW,
        location=worst.layer.variance.name,
        measurements=(
            Measurement(name="fold scale ratio, dead to living median", value=worst.dead_ratio, limit=LIMIT),
            Measurement(name="levels left for the median channel", value=2 * levels(worst.dead_ratio), limit=16),
            Measurement(name="dead channels", value=sum(int(ranges.dead.sum()) for ranges in bad), unit="channels"),
        ),
    )


def _precise(model: Facts) -> set[str | None]:
    """Layers that lose nothing by themselves as they were quantized and run: measured, no forecast is needed."""
    measured = model.quantized
    if measured is None or measured.data.synthetic:
        return set()
    from bncheck.rules.shared.quantized import losing  # noqa: PLC0415 - start-up

    lost = {operator.layer for operator in losing(measured)}
    return {operator.layer for operator in measured.operators} - lost


def _kernel(*channel_max: float) -> Linear:
    return Linear(name="conv", op="Conv2D", kernel="conv/weights", channel_max=np.array(channel_max))


def clean() -> tuple[Facts, ...]:
    """Nobody dead; a dead channel whose gamma shrank, or whose kernel died with it; mini-XCEPTION's mild one."""
    dead = [1.1664e-36, 1.0, 1.0, 1.0]
    return (
        facts(batch_norm("bn", linear=_kernel(1, 1, 1, 1))),
        facts(batch_norm("bn", variance=dead, gamma=[0.01, 0.9, 1.1, 1.0], linear=_kernel(1, 1, 1, 1))),
        facts(batch_norm("bn", variance=dead, linear=_kernel(1e-9, 1, 1, 1))),
        facts(batch_norm("bn", variance=[1.17e-36, 0.004, 0.003, 0.005], gamma=0.6)),
    )


def broken() -> tuple[Facts, ...]:
    """Variance 1e-8 beside 1: 32-fold at epsilon 1e-3 (a warning), 316-fold at 1e-5 (an error); kernel unread."""
    dead = [1e-8, 1.0, 1.0, 1.0]
    return (
        facts(batch_norm("bn", variance=dead, linear=_kernel(1, 1, 1, 1))),
        facts(batch_norm("bn", variance=dead, epsilon=1e-5, linear=_kernel(1, 1, 1, 1))),
        facts(batch_norm("bn", variance=dead)),
    )
