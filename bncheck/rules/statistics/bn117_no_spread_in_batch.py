"""BN117 no-spread-in-batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Linear, Mode, RunFacts
from bncheck.facts.training import training_sites
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import names, values_of
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.testing import batch_norm, facts, site, wired, with_graph

LARGER = """\
# any input with several samples per step will do
dataset = dataset.batch(32, drop_remainder=True)"""

OF_LOGARITHM = 0.01
"""Of decay**n in its logarithm: float32 and a count of steps that is off by a few; a guess."""
_DENSE = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Dense"})


@rule(
    "BN117",
    "no-spread-in-batch",
    severity=Severity.ERROR,
    needs=Needs.NOTHING,
    explains=("BN103", "BN107"),
    meaning=Meaning.VALUES_FAULT | Meaning.FITS_NO_DATA,
    sees="B16 C05",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Training normalised each value with itself: one sample per batch, and no positions to average over.

    What it detects
    ---------------
    Layers behind a dense layer, a global pooling or a 1x1 feature map that were trained with batches of one.

    Why it matters
    --------------
    The mean of one value is that value and its variance is 0, so the layer's output is always its beta: nothing before
    it can learn through it. The moving variance holds what is left of its initial value, and dividing by it
    in eval mode blows the signal up. New statistics do not fix weights trained like this.

    How it decides
    --------------
    By shape: all sizes that a trained site's moments average over are 1 in the graph. Else by value: the moving
    variance is the same number in all channels, not its initial one, while the moving means differ; where decay and
    number of updates are known, that number is decay**n times its initial value. Only where the layer follows a dense
    layer, or the graph's shapes leave no more than one value a sample.

    Not detected
    ------------
    Runs of which only some batches had one sample. Layers of one channel, by value.

    Fix
    ---
    Several samples a batch, or no batch norm where only one value a sample is left, and train again:

        {LARGER}

    References
    ----------
    tensorflow#16895, tensorflow#24660, fused_batch_norm_op.cc (one value a channel). Failure modes B16, C05.
    """
    by_shape = [layer for layer in model.layers if _single(layer)]
    by_value = [layer for layer in model.layers if layer not in by_shape and _one_value(layer, model.run)]
    if by_shape:
        sizes = next(s.reduced for s in training_sites(by_shape[0]) if s.reduced and set(s.reduced) == {1})
        yield _evidence(
            by_shape,
            f"In training, {many(len(by_shape), 'layer')} {'sees' if len(by_shape) == 1 else 'see'} one value per "
            "channel "
            f"(moments over {' x '.join(map(str, sizes))}): {listing(names(by_shape))}. The mean is that value and the "
            f"variance 0, so the output is always beta.{_seen(by_shape, model.run)}",
            Confidence.HIGH,
        )
    if by_value:
        yield _evidence(
            by_value,
            f"The batches had no variance in {many(len(by_value), 'layer')}: {listing(names(by_value))}. Yet the "
            f"moving means differ between channels.{_seen(by_value, model.run)}",
            Confidence.MEDIUM,
        )


def _single(layer: Layer) -> bool:
    """Whether every trained site of the layer averages over one value, as its shapes tell."""
    sites = [site for site in training_sites(layer) if site.mode is not Mode.EVAL]
    return bool(sites) and all(site.reduced is not None and set(site.reduced) == {1} for site in sites)


def _one_value(layer: Layer, run: RunFacts) -> bool:
    variance, of_variance, of_mean = values_of(layer.variance), layer.variance.bounds, layer.mean.bounds
    if variance is None or of_variance is None or of_mean is None or not layer.variance.moved or variance.size < 2:
        return False
    if of_variance[0] < of_variance[1] or of_mean[0] == of_mean[1] or not _at_most_one(layer):
        return False
    left = _left(layer, run)
    return left is None or _agrees(float(variance[0]), layer.variance.starts_at, left)


def _at_most_one(layer: Layer) -> bool:
    """Whether a sample has one value a channel here: as the shapes tell, else because a dense layer comes before."""
    known = [site.reduced for site in layer.sites if site.reduced is not None]
    if known:
        return all(size == 1 for sizes in known for size in sizes[1:])
    return layer.linear is not None and layer.linear.op in _DENSE


def _left(layer: Layer, run: RunFacts) -> float | None:
    """The logarithm of decay**n; None where decay or n is unknown."""
    if layer.decay is None or not 0 < layer.decay < 1 or not run.updates:
        return None
    return run.updates * math.log(layer.decay)


def _agrees(variance: float, start: float, left: float) -> bool:
    if variance <= 0 or start <= 0:
        return True
    floor = math.log(np.finfo(np.float32).tiny)
    return abs(math.log(variance / start) - left) <= OF_LOGARITHM * abs(left) or math.log(variance / start) < floor + 10


def _seen(layers: list[Layer], run: RunFacts) -> str:
    """What the moving variances show, in words."""
    layer = next((one for one in layers if one.variance.moved and values_of(one.variance) is not None), None)
    variance = None if layer is None else values_of(layer.variance)
    if layer is None or variance is None or np.ptp(variance) > 0:
        return ""
    left = _left(layer, run)
    known = left is not None and variance[0] > 0 and left > -80
    power = f", {layer.decay:g} to the power of {run.updates}" if known else ""
    return f" The moving variance of {layer.name} is {variance[0]:.3g} in all {variance.size} channels{power}."


def _evidence(layers: list[Layer], message: str, confidence: Confidence) -> Evidence:
    return Evidence(
        layers=names(layers),
        message=message,
        confidence=confidence,
        location=layers[0].variance.name,
        fix=fixes.training_code(LARGER, note="more than one value per channel; then train again"),
        includes=("BN403", "BN404"),
        measurements=(
            Measurement(name="layers whose batches have no spread", value=len(layers), limit=0, unit="layers"),
        ),
    )


def _dense(variance: float, mean: list[float] | float = 0.5) -> Layer:
    return replace(
        batch_norm("fc", mean=mean, variance=variance), linear=Linear(name="fc/MatMul", op="MatMul", kernel="fc/w")
    )


def clean() -> tuple[Facts, ...]:
    """Variances that differ; a dead layer, whose means are alike too; positions to average over; a free batch."""
    here = wired(batch_norm("fc"))
    return (
        facts(_dense(0.3)),
        facts(replace(batch_norm("conv", mean=[0.1, 0.2, 0.3, 0.4], variance=0.3), linear=None)),
        with_graph(replace(here, sites=(replace(here.sites[0], reduced=(1, 8, 8)),))),
        with_graph(replace(here, sites=(replace(here.sites[0], reduced=(-1,)),))),
        with_graph(replace(here, sites=(site("fc/batchnorm", Mode.EVAL, reduced=(1,)),))),
    )


def broken() -> tuple[Facts, ...]:
    """A batch of one by shape; by what decay**n left of the variance; by variances of 0."""
    here = wired(batch_norm("fc", mean=[0.1, 0.2, 0.3, 0.4], variance=0.99**300))
    single = replace(here, sites=(replace(here.sites[0], reduced=(1, 1, 1)),))
    dense = replace(_dense(0.9**50, [0.1, 0.2, 0.3, 0.4]), decay=0.9)
    return (
        with_graph(single),
        facts(dense, run=RunFacts(values=True, updates=50)),
        facts(_dense(0.0, [0.1, 0.2, 0.3, 0.4])),
    )
