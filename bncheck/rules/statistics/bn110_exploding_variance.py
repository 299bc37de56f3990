"""BN110 exploding-variance."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import finite, lowest_finite, median, names, values_of
from bncheck.numerics.divergence import diverging
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.modes import too_few
from bncheck.testing import batch_norm, facts

OVERSHOT = 1e6
"""Largest magnitude from which negative neighbours mean an average that swings, not rounding: 1.3e7 with 250 updates a
step at decay 0.99, 5.7e9 with 30 at 0.9 (FAILURE_MODES, P8)."""
HUGE = 1e12
"""More than raw 16-bit audio (1e9) or 8-bit images through a wide first layer (1e7) can give; a guess."""
INNER = 1e8
"""The same after the first layer, whose output is normalised..."""
RATIO = 1e6
"""...where it also stands out from the other layers by this much; both guesses."""


@rule(
    "BN110",
    "exploding-variance",
    severity=Severity.ERROR,
    needs=Needs.VALUES,
    confidence=Confidence.MEDIUM,
    explained_by=("BN208",),
    meaning=Meaning.VALUES_FAULT | Meaning.FITS_NO_DATA,
    sees_too="B11 B16",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Moving variances are larger than activations can be: the average or the activations diverged.

    What it detects
    ---------------
    Variances beyond 1e12 anywhere, beyond 1e8 in inner layers that stand out from the rest a millionfold, and huge
    ones with negative neighbours.

    Why it matters
    --------------
    In inference the channel's output is always 0, and its folded weights vanish.

    How it decides
    --------------
    Huge and negative values in one layer are the mark of an overshoot: N updates of one resource variable in one step
    all subtract from the same old value, which diverges from N * (1 - decay) > 2 on (N = 30, decay 0.9: -5.7e9). That
    is an error. Mere size is a warning, unless the data given are measured to have such variances. Raw inputs are
    large by nature, so the first layer has room: Chiron's variances reach 4,058 and are healthy, 16-bit audio unscaled
    gives 1e9.

    Not detected
    ------------
    An overshoot that was caught early, at ordinary sizes; BN208 sees its cause in a graph.

    Fix
    ---
    One update of a variable in a step; average over towers or time steps first. Scale inputs:

        images = tf.cast(images, tf.float32) / 127.5 - 1.0

    This checkpoint: `bncheck repair PATH -o OUT --data images/`.

    In PyTorch: scale inputs:

        images = images.float() / 127.5 - 1.0

    This checkpoint: `torch.optim.swa_utils.update_bn(loader, model)`.

    References
    ----------
    tensorflow#14353, keras#8794, keras#11927, tensorflow#34062. Failure modes A16, B11, B16, C09.
    """
    if all(_largest(layer) <= OVERSHOT for layer in model.layers):
        return
    fitting = _fitting(model)
    overshot = [layer for layer in model.layers if _largest(layer) > OVERSHOT and _lowest(layer) < 0]
    usual = median(np.array([_median(layer) for layer in model.layers])) if model.layers else 0.0
    swinging = set(overshot)
    large = [
        layer
        for place, layer in enumerate(model.layers)
        if layer not in swinging
        and layer.name not in fitting
        and (_largest(layer) > HUGE or (place > 0 and _median(layer) > max(INNER, RATIO * usual)))
    ]
    for layers, severity, reading in (
        (overshot, Severity.ERROR, "and others are negative: several updates in one step overshoot"),
        (large, Severity.WARNING, "more than activations plausibly have"),
    ):
        if layers:
            worst = max(layers, key=_largest)
            all_of_them = f": {many(len(layers), 'layer')}, {listing(names(layers))}" if len(layers) > 1 else ""
            yield Evidence(
                layers=names(layers),
                message=(f"The moving variance reaches {_largest(worst):.3g} in {worst.name}, {reading}{all_of_them}."),
                severity=severity,
                location=worst.variance.name,
                measurements=(
                    Measurement(name="largest variance", value=_largest(worst), limit=HUGE),
                    Measurement(name="lowest variance", value=_lowest(worst)),
                    Measurement(name="median of the layers' medians", value=float(usual)),
                ),
            )


def _fitting(model: Facts) -> set[str]:
    """Layers whose stored statistics were measured to be those of the data given: activations are that large."""
    comparison = model.comparison
    if comparison is None or comparison.data.synthetic or too_few(comparison):
        return set()
    return {layer.layer for layer in comparison.layers} - {layer.layer for layer in diverging(comparison)}


def _known(layer: Layer) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    values = values_of(layer.variance)
    return np.zeros(0) if values is None else finite(values)


def _largest(layer: Layer) -> float:
    """Largest magnitude of a finite variance, 0 where none was read."""
    low, high = layer.variance.bounds or (0.0, 0.0)
    if math.isfinite(low) and math.isfinite(high):
        return max(-low, high)
    return float(np.max(np.abs(_known(layer)), initial=0.0))


def _lowest(layer: Layer) -> float:
    return lowest_finite(layer.variance)


def _median(layer: Layer) -> float:
    known = _known(layer)
    return median(known) if known.size else 0.0


def clean() -> tuple[Facts, ...]:
    """Chiron's 4,058; raw audio into the first layer; large throughout, as after unscaled inputs."""
    return (
        facts(batch_norm("bn", mean=133.0, variance=[4057.9, 7.2, 90.0, 0.2])),
        facts(batch_norm("audio", mean=20.0, variance=1.1e9), batch_norm("bn")),
        facts(batch_norm("a", variance=3e4), batch_norm("b", variance=5e5)),
    )


def broken() -> tuple[Facts, ...]:
    """30 updates a step; an inner layer out of all proportion; larger than any input."""
    return (
        facts(batch_norm("shared", variance=[-5.7e9, 3.1e9, -2.0e8, 4.4e9])),
        facts(batch_norm("a"), batch_norm("b", variance=4e9, mean=3.0), batch_norm("c")),
        facts(batch_norm("bn", variance=[3e20, 1.0, 2.0, 0.3])),
    )
