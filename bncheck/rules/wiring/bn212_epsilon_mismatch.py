"""BN212 epsilon-mismatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Site
from bncheck.facts.record import Record
from bncheck.facts.wording import many
from bncheck.numerics.channels import finite, values_of
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import in_framework, made_with
from bncheck.testing import batch_norm, site, unread, wired, with_graph

SAME = 1e-4
"""Relative difference that float32 and printing explain."""
FUSED_MINIMUM = 1.001e-5
"""cuDNN's smallest epsilon: `tf.nn.fused_batch_norm` raises anything below to it without a word
(FAILURE_MODES, E02)."""
MUCH, SOME = 1.2, 1.02
"""Ratio of the two scales in the channel where they differ most (FAILURE_MODES, P15); the limits are a guess."""
ALIVE = 1e-3
"""Share of the smaller epsilon below which a variance is a dead channel's, whose scale has nothing to act on; a
guess."""

SET = """\
# TF-slim: one scope for both graphs
with slim.arg_scope([slim.batch_norm], epsilon=1e-3): ...
# tf.layers
net = tf.layers.batch_normalization(net, epsilon=1e-3)
# Keras
x = tf.keras.layers.BatchNormalization(epsilon=1e-3)(x)"""


class _Epsilons(Record):
    """The smallest and largest epsilon of one layer, and what the difference does."""

    layer: Layer
    smallest: float
    largest: float
    ratio: float | None
    """Largest ratio of the scales over live channels; None where the variance was not read."""


@rule("BN212", "epsilon-mismatch", severity=Severity.WARNING, needs=Needs.SITES, sees="E01 E02")
def check(model: Facts) -> Iterator[Evidence]:
    """One layer is applied with different epsilons.

    What it detects
    ---------------
    Sites of one layer, or a site and its configuration, whose epsilons differ: training with 1e-3, evaluation or
    export with 1e-5 (the default of PyTorch, Caffe and darknet), or a fused op that raised it to 1.001e-5.

    Why it matters
    --------------
    The scale is gamma / sqrt(variance + epsilon). Where the variance is small the two sites compute different things,
    and the difference multiplies from layer to layer.

    How it decides
    --------------
    Relative difference above 1e-4. How bad it is depends on the smallest live variance v: the ratio of the scales is
    sqrt((v + larger) / (v + smaller)), for 1e-3 and 1e-5 it is 1.0005 at v = 1, 1.048 at 1e-2, 1.41 at 1e-3, 3.16 at
    1e-4. From 1.2 on ERROR, from 1.02 on WARNING, below INFO; WARNING where the variance was not read.

    Not detected
    ------------
    An epsilon that differs from that of the framework the weights came from: both sides must be given.

    Fix
    ---
    Use the epsilon that the model was trained with, everywhere:

        {SET}

    With weights from elsewhere: keep their epsilon, or add the difference to the moving variance.

    References
    ----------
    nn-transfer#3, keras-yolo3#451, keras#15571, tensorflow#37768, tensorflow#8090. Failure modes E01, E02; P15.
    """
    spreads = [spread for layer in model.layers if (spread := _spread(layer)) is not None]
    for severity in (Severity.ERROR, Severity.WARNING, Severity.INFO):
        found = [spread for spread in spreads if _severity(spread) is severity]
        if found:
            yield _evidence(model, found, severity)


def _spread(layer: Layer) -> _Epsilons | None:
    epsilons = [s.epsilon for s in layer.sites if s.epsilon is not None]
    configured = layer.config.get("epsilon")
    if isinstance(configured, float):
        epsilons.append(configured)
    if not epsilons or max(epsilons) <= min(epsilons) * (1 + SAME):
        return None
    smallest, largest = min(epsilons), max(epsilons)
    variance = values_of(layer.variance)
    ratio = None
    if variance is not None and smallest >= 0:
        known = finite(variance)
        alive = known[known > ALIVE * smallest]
        ratio = float(np.sqrt((alive.min() + largest) / (alive.min() + smallest))) if alive.size else 1.0
    return _Epsilons(layer=layer, smallest=smallest, largest=largest, ratio=ratio)


def _severity(spread: _Epsilons) -> Severity:
    if spread.ratio is None:
        negligible = spread.largest <= spread.smallest * (1 + 10 * SAME) + 1e-8
        return Severity.INFO if negligible else Severity.WARNING
    return Severity.ERROR if spread.ratio >= MUCH else Severity.WARNING if spread.ratio >= SOME else Severity.INFO


def _evidence(model: Facts, found: list[_Epsilons], severity: Severity) -> Evidence:
    worst = max(found, key=lambda spread: (spread.ratio or 0.0, spread.largest / max(spread.smallest, 1e-30)))
    effect = (
        "the effect depends on the moving variance, which was not read"
        if worst.ratio is None
        else f"in the channel with the smallest variance the scales differ by a factor of {worst.ratio:.4g}"
    )
    fused = abs(worst.largest - FUSED_MINIMUM) < 1e-9 and worst.smallest < FUSED_MINIMUM
    raised = " The fused op raises epsilon to at least 1.001e-05." if fused else ""
    numbers = [
        Measurement(name="smallest epsilon", value=worst.smallest),
        Measurement(name="largest epsilon", value=worst.largest),
    ]
    if worst.ratio is not None:
        numbers.append(Measurement(name="ratio of the scales", value=worst.ratio, limit=SOME))
    return Evidence(
        layers=tuple(spread.layer.name for spread in found),
        message=f"{many(len(found), 'layer')} {'uses' if len(found) == 1 else 'use'} epsilon {worst.smallest:g} in "
        f"one place and {worst.largest:g} in another: {effect}.{raised}",
        severity=severity,
        confidence=Confidence.MEDIUM if worst.ratio is None else Confidence.HIGH,
        location=worst.layer.sites[0].name if worst.layer.sites else "",
        fix=fixes.training_code(in_framework(SET, made_with(model, [spread.layer for spread in found]))),
        measurements=tuple(numbers),
    )


def clean() -> tuple[Facts, ...]:
    """Train and eval sites that agree; layers that differ from one another, which is nobody's business."""
    return (with_graph(_evaluated(1e-3)), with_graph(_evaluated(1e-3, "a"), wired(batch_norm("b", epsilon=1e-5))))


def broken() -> tuple[Facts, ...]:
    """1e-3 against 1e-5 with small, middling and large variances; unread; raised by the fused op (a note)."""
    return (
        *(with_graph(_evaluated(1e-5, variance=variance)) for variance in (1e-4, 1e-2, 2.0)),
        with_graph(unread(_evaluated(1e-5))),
        with_graph(replace(wired(batch_norm("bn")), sites=_sites(FUSED_MINIMUM, 1e-5))),
    )


def _evaluated(epsilon: float, name: str = "bn", variance: float = 2.0) -> Layer:
    return replace(wired(batch_norm(name, variance=variance)), sites=_sites(1e-3, epsilon))


def _sites(train: float, evaluation: float) -> tuple[Site, Site]:
    return (
        site("bn/FusedBatchNormV3", Mode.TRAIN, epsilon=train, train_ops=("Adam",)),
        site("eval/bn/FusedBatchNormV3", Mode.EVAL, epsilon=evaluation),
    )
