"""BN109 vectors-swapped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, PerChannel, Vector
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import median, names, values_of
from bncheck.rules.rule import Needs, rule
from bncheck.rules.statistics.bn110_exploding_variance import OVERSHOT
from bncheck.testing import batch_norm, facts

CHANNELS = 8
"""Fewer tell nothing: the chance that 8 independent values have one sign is 1 in 256."""
NEGATIVE = 0.1
"""Part of a layer's "variances" that is negative; single ones come from races or cancellation (BN106);
a guess."""


@rule(
    "BN109",
    "vectors-swapped",
    severity=Severity.ERROR,
    needs=Needs.VALUES,
    confidence=Confidence.MEDIUM,
    meaning=Meaning.VALUES_FAULT | Meaning.FITS_NO_DATA,
    refuses_repair="new statistics could overwrite its gamma or beta",
    sees="D05 E03",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The vectors of the layers look swapped: a "variance" with both signs, a "mean" that is all positive.

    What it detects
    ---------------
    Layers whose four vectors of equal length were written in another order than gamma, beta, mean, variance.

    Why it matters
    --------------
    All shapes fit and no error is raised. In eval mode every channel is shifted and scaled by the wrong numbers; a
    negative one in place of a variance makes NaN.

    How it decides
    --------------
    Two independent signs in at least half of the layers of 8 or more channels, for an order is wrong everywhere or
    nowhere. Either at least a tenth of the variances is negative and the mean or beta is positive throughout
    and not constant, as a variance is; or gammas have both signs, centred at 0, while the
    betas beside them are all positive and centred near 1.

    Not detected
    ------------
    Exchanges that leave all signs plausible, such as beta with mean. Standard deviations stored as variances.

    Fix
    ---
    Keras orders the weights of a layer gamma, beta, moving_mean, moving_variance; without scale or center the first or
    second falls away. Caffe stores mean, variance and a factor that divides both; PyTorch weight, bias, running_mean,
    running_var.

        layer.set_weights([gamma, beta, mean, variance])

    In PyTorch: weight, bias, running_mean, running_var, each under its own name:

        layer.load_state_dict({"weight": gamma, "bias": beta, "running_mean": mean, "running_var": variance})

    References
    ----------
    PSPNet-Keras#31, DORN#25, pytorch2keras#120, opencv#10746, tensorflow#34950, keras#10784.
    Failure modes D05, E03.
    """
    judged = [layer for layer in model.layers if _wide(layer)]
    for what, layers in (
        ("A variance", [(layer, place) for layer in judged if (place := _variance_elsewhere(layer))]),
        ("A gamma", [(layer, "beta") for layer in judged if _gamma_in_beta(layer)]),
    ):
        if layers and 2 * len(layers) >= len(judged):
            first, place = layers[0]
            concerned = names(layer for layer, _ in layers)
            here = "moving variance" if what == "A variance" else "gamma"
            signs = "is negative in at least a tenth of the channels" if what == "A variance" else "is centred at 0"
            yield Evidence(
                layers=concerned,
                message=(
                    f"{what} seems to be stored as {place}, and another vector in its place: the {here} "
                    f"{signs}, while the {place} is positive in every channel, in {len(layers)} of "
                    f"{many(len(judged), 'layer')}: {listing(concerned)}."
                ),
                location=first.variance.name if what == "A variance" else first.gamma.name,
                measurements=(
                    Measurement(name="layers with both signs", value=len(layers), limit=0, unit="layers"),
                    Measurement(name=f"negative part of {here} in {first.name}", value=_negative(first, here)),
                ),
            )


def _ordinary(vector: Vector) -> PerChannel | None:
    """Values of ordinary size and without NaN, else None."""
    bounds = vector.bounds
    return vector.values if bounds is not None and bounds[0] > -OVERSHOT and bounds[1] < OVERSHOT else None


def _wide(layer: Layer) -> bool:
    variance = _ordinary(layer.variance)
    return variance is not None and variance.size >= CHANNELS


def _variance_elsewhere(layer: Layer) -> str:
    """The vector that could be the variance of a layer whose "variance" is none; empty if that looks like one."""
    variance, bounds = _ordinary(layer.variance), layer.variance.bounds
    if variance is None or bounds is None or bounds[0] >= 0 or float((variance < 0).mean()) < NEGATIVE:
        return ""
    for vector in (layer.mean, layer.beta):
        values = _ordinary(vector)
        if values is not None and values.shape == variance.shape and values.min() > 0 and np.ptp(values) > 0:
            return vector.role.value
    return ""


def _gamma_in_beta(layer: Layer) -> bool:
    """Whether gamma is centred at 0 with both signs while beta is positive throughout, around 1."""
    bounds, of_gamma = layer.beta.bounds, layer.gamma.bounds
    if bounds is None or of_gamma is None or not bounds[0] > 0 or not of_gamma[0] < 0 < of_gamma[1]:
        return False
    gamma, beta = _ordinary(layer.gamma), _ordinary(layer.beta)
    if gamma is None or beta is None or gamma.shape != beta.shape:
        return False
    centred = abs(gamma.mean()) < 0.25 * gamma.std() and min((gamma < 0).mean(), (gamma > 0).mean()) > 0.25
    return bool(centred and 0.5 < median(beta) < 2.0 and np.ptp(beta) > 0)


def _negative(layer: Layer, what: str) -> float:
    values = values_of(layer.gamma if what == "gamma" else layer.variance)
    return 0.0 if values is None else float((values < 0).mean())


_SIGNED = np.array([-0.7, 0.4, -0.2, 0.9, 0.1, -0.5, 0.3, -0.4])
_POSITIVE = np.array([0.8, 1.4, 2.2, 0.3, 1.1, 0.6, 1.9, 0.9])


def clean() -> tuple[Facts, ...]:
    """In order; means all positive; Chiron's gammas with both signs; negative variances of another cause (BN106's)."""
    eight = {"channels": 8}
    return (
        facts(batch_norm("bn", mean=_SIGNED, variance=_POSITIVE, gamma=_POSITIVE, beta=_SIGNED, **eight)),
        facts(batch_norm("bn", mean=_POSITIVE, variance=_POSITIVE, gamma=_POSITIVE, beta=_SIGNED, **eight)),
        facts(batch_norm("bn", mean=_SIGNED, variance=_POSITIVE, gamma=_SIGNED, beta=_SIGNED, **eight)),
        facts(batch_norm("bn", mean=_SIGNED, variance=_SIGNED, gamma=_POSITIVE, beta=_SIGNED, **eight)),
    )


def broken() -> tuple[Facts, ...]:
    """Mean and variance exchanged; gamma and beta exchanged; variance and beta exchanged."""
    eight = {"channels": 8}
    return (
        facts(batch_norm("bn", mean=_POSITIVE, variance=_SIGNED, gamma=0.9, **eight)),
        facts(batch_norm("bn", mean=0.2, variance=_POSITIVE, gamma=_SIGNED, beta=_POSITIVE, **eight)),
        facts(batch_norm("bn", mean=_SIGNED, variance=-_SIGNED, gamma=0.9, beta=_POSITIVE, **eight)),
    )
