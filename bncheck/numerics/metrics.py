"""Every figure that comparing prints, one definition each: sums first, ratio last, float64; NaN in gives NaN out.

Reference `r` is the train twin's output, test `t` the eval twin's, error `e = t - r`.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import PerChannel
from bncheck.facts.ratios import sqnr_db
from bncheck.numerics.fold import gamma_and_beta

__all__ = [
    "agreement",
    "are_probabilities",
    "cosine",
    "local_floor",
    "local_sums",
    "log_variance_ratio",
    "mean_shift",
    "measured_floor",
    "nmse",
    "softmax",
    "softmax_drift",
    "sqnr_db",
    "top1",
    "top_classes",
    "two_classes",
]

Logits: TypeAlias = NDArray[Any]
"""(samples, classes), any real type."""
Classes: TypeAlias = NDArray[Any]
"""(samples,) of integers."""


def nmse(sum_r2: float, sum_e2: float) -> float:
    """`sum e^2 / sum r^2`: lower is better. No error is 0; an error without any signal is undefined, NaN."""
    if sum_e2 == 0:
        return 0.0 if not math.isnan(sum_r2) else math.nan
    return sum_e2 / sum_r2 if sum_r2 else math.nan


def cosine(sum_r2: float, sum_t2: float, sum_e2: float) -> float:
    """`r.t / sqrt(r.r t.t)`, with `r.t = (r.r + t.t - e.e) / 2`: 1 is alike, blind to scale. Both zero 1, one zero 0.

    The identity cancels where the two agree: with sums good to a relative `u` the cosine is good to about `u`.
    """
    if math.isnan(sum_r2 + sum_t2 + sum_e2) or math.inf in (sum_r2, sum_t2, sum_e2):
        return math.nan
    if sum_r2 == 0 or sum_t2 == 0:
        return 1.0 if sum_r2 == sum_t2 else 0.0
    product = (sum_r2 + sum_t2 - sum_e2) / 2
    return max(-1.0, min(1.0, product / (math.sqrt(sum_r2) * math.sqrt(sum_t2))))


def mean_shift(
    batch_mean: PerChannel, stored_mean: PerChannel, stored_variance: PerChannel, epsilon: float
) -> PerChannel:
    """Per channel `(mean_batch - mean_stored) / sqrt(var_stored + eps)`: standard deviations the layer expects."""
    with np.errstate(all="ignore"):
        return np.asarray((batch_mean - stored_mean) / np.sqrt(stored_variance + epsilon))


def log_variance_ratio(batch_variance: PerChannel, stored_variance: PerChannel, epsilon: float) -> PerChannel:
    """Per channel `ln((var_batch + eps) / (var_stored + eps))`: 0 is equal, 0.69 is twice as much as stored."""
    with np.errstate(all="ignore"):
        return np.asarray(np.log((batch_variance + epsilon) / (stored_variance + epsilon)))


def local_sums(  # noqa: PLR0917 - as the formula reads: batch, stored, affine
    batch_mean: PerChannel,
    batch_variance: PerChannel,
    stored_mean: PerChannel,
    stored_variance: PerChannel,
    gamma: PerChannel | None,
    beta: PerChannel | None,
    epsilon: float,
) -> tuple[PerChannel, PerChannel]:
    """Per channel the means of `r^2` and `e^2` over the elements of one batch, were only this layer in eval mode.

    Both modes are affine in the same input x of mean m, biased variance v: `r = gamma (x - m) / sqrt(v + eps) + beta`,
    `t` the same with the stored ones, hence `E r^2 = gamma^2 v / (v + eps) + beta^2` and, with `s = sqrt(var + eps)`,
    `E e^2 = gamma^2 (v (1/s_stored - 1/s_batch)^2 + ((m - m_stored) / s_stored)^2)`. Without gamma 1, without beta 0.
    """
    scale, offset = gamma_and_beta(gamma, beta, batch_mean)
    with np.errstate(all="ignore"):
        inverse, stored = 1 / np.sqrt(batch_variance + epsilon), 1 / np.sqrt(stored_variance + epsilon)
        r2 = scale**2 * batch_variance * inverse**2 + offset**2
        e2 = scale**2 * (batch_variance * (stored - inverse) ** 2 + ((batch_mean - stored_mean) * stored) ** 2)
    return np.asarray(r2), np.asarray(e2)


def local_floor(
    batch_variance: PerChannel, gamma: PerChannel | None, beta: PerChannel | None, epsilon: float, samples: int
) -> float:
    """Local NMSE that a batch of N independent normal values a channel has when the stored statistics are perfect.

    The mean of a batch errs by `v / N`, its variance by `2 v^2 / (N - 1)` (both squared); through `local_sums`, to
    first order, `e^2 = gamma^2 (v / (N (v + eps)) + v^3 / (2 (N - 1) (v + eps)^3))`, near `1.5 / N` of the signal.
    Pixels of one image resemble each other, so that a real batch counts as fewer: a lower bound. Infinite for one.
    """
    if samples < 2:
        return math.inf
    scale, offset = gamma_and_beta(gamma, beta, batch_variance)
    with np.errstate(all="ignore"):
        share = batch_variance / (batch_variance + epsilon)
        r2 = scale**2 * share + offset**2
        e2 = scale**2 * (share / samples + share**3 / (2 * (samples - 1)))
        return nmse(float(np.sum(r2)), float(np.sum(e2)))


def measured_floor(  # noqa: PLR0917 - as the formula reads
    mean_spread: PerChannel,
    log_variance_spread: PerChannel,
    batch_variance: PerChannel,
    gamma: PerChannel | None,
    beta: PerChannel | None,
    epsilon: float,
) -> float:
    """Local NMSE of one batch against all of them, from how far the batches' moments lie apart.

    What `local_floor` is for independent values, for images as they are. `mean_spread` is the variance of the batches'
    means, `log_variance_spread` that of their `ln(v + eps)`; to first order `e^2 = gamma^2 (mean_spread / (v + eps) +
    v / (v + eps) * log_variance_spread / 4)`.
    """
    scale, offset = gamma_and_beta(gamma, beta, batch_variance)
    with np.errstate(all="ignore"):
        share = batch_variance / (batch_variance + epsilon)
        e2 = scale**2 * (mean_spread / (batch_variance + epsilon) + share * log_variance_spread / 4)
        return nmse(float(np.sum(scale**2 * share + offset**2)), float(np.sum(e2)))


def softmax_drift(a: Logits, b: Logits) -> float:
    """Mean over samples of the total variation `0.5 sum |p(a) - p(b)|`: 0 is equal, 1 is disjoint.

    `p` is the softmax, unless both are probabilities already, as the output of a served model often is.
    """
    if not len(a):
        return math.nan
    both = are_probabilities(a) and are_probabilities(b)
    first, second = (a, b) if both else (softmax(a), softmax(b))
    return float(np.mean(0.5 * np.abs(np.asarray(first, np.float64) - second).sum(axis=-1)))


def are_probabilities(values: Logits) -> bool:
    """Whether every row is a distribution already: nothing negative, a sum of 1."""
    return bool(np.all(values >= 0) and np.allclose(np.sum(values, axis=-1, dtype=np.float64), 1, atol=1e-3))


def lost_confidence(a: Logits, b: Logits) -> NDArray[np.float64]:
    """(samples,): the probability that the one loses by naming the other's class, mean of both directions.

    `p_a(top of a) - p_a(top of b)`: where scores are probabilities of being right, the accuracy that is lost if `b`
    answers in the place of `a`. A class that changes in a toss-up costs nothing.
    """
    first, second = (scores if are_probabilities(scores) else softmax(scores) for scores in (a, b))
    rows, mine, other = np.arange(len(first)), first.argmax(axis=-1), second.argmax(axis=-1)
    lost = first[rows, mine] - first[rows, other] + second[rows, other] - second[rows, mine]
    return np.asarray(lost / 2)


def entropy(scores: Logits) -> float:
    """Sum over samples of `-sum p ln p`, in nats; p as in `softmax_drift`. 0 is certain, ln(classes) knows nothing."""
    rows = scores if are_probabilities(scores) else softmax(scores)
    return float(-np.sum(rows * np.log(np.maximum(rows, np.finfo(np.float64).tiny))))


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Probabilities over the last axis, in float64; NaN and +inf in a row make that row NaN."""
    with np.errstate(all="ignore"):
        shifted = np.asarray(logits, np.float64)
        powers = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def top_classes(logits: Logits) -> Classes:
    """The first of the largest of each row, -1 where a row holds NaN: a model that gives NaN has chosen nothing."""
    values = np.asarray(logits)
    chosen = values.argmax(axis=-1)
    return np.where(np.isnan(values).any(axis=-1), -1, chosen)


def two_classes(values: NDArray[Any], *, probability: bool) -> Logits:
    """(samples, 1), the probability or the logit of the second of two classes, as (samples, 2): `1 - p, p` or `0, z`.

    The thresholds 0.5 and 0 fall out; a sample right on it is of the first class.
    """
    return np.concatenate([1 - values if probability else np.where(np.isnan(values), values, 0), values], axis=1)


def agreement(a: Logits, b: Logits) -> float:
    """Share of samples whose top class is the same; a row with NaN agrees with nothing."""
    first, second = top_classes(a), top_classes(b)
    return float(np.mean((first == second) & (first >= 0))) if len(first) else math.nan


def top1(logits: Logits, labels: Classes) -> float:
    """Share of samples whose top class is the label; a row with NaN is wrong."""
    chosen = top_classes(logits)
    return float(np.mean((chosen == np.asarray(labels)) & (chosen >= 0))) if len(chosen) else math.nan
