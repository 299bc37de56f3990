"""The init share where decay or count are unknown: what the smallest variances tell of it, and the weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.wording import many, percent
from bncheck.numerics.channels import median, names, values_of
from bncheck.numerics.init_share import CONTRADICTION, shrink
from bncheck.numerics.variance_floor import expected_at, variance_floor
from bncheck.rules.shared import init_share_measured as data
from bncheck.rules.shared.fixes import indented, repair
from bncheck.rules.shared.init_share_fix import DECAYS, debias, forget_and_repair

MUCH, SOME = 0.25, 0.05
"""Error and warning: so much of what a layer divides by is initial value in its median channel, or of everything is; a
guess, as is the share alone below. What a share costs is measured over all layers."""
UNREAD_MUCH, UNREAD_SOME = 0.5, 0.05
"""The same for the share alone, where the values were not read."""
SHRINK_MUCH, SHRINK_SOME = 2.0, 1.2
"""The same over all layers in a row: MobileNetV2 on digits fell from 94.4 to 92.8 % at a factor of 1.2, to 88.1 % at
1.9, to 78.3 % at 3.5 and to chance at 18."""
FLOOR_FIT, SMALLEST = 1.02, 0.1
"""`decay**n` explains a floor that lies above it by at most this factor, or by what batch variances of so much of the
initial one added. A floor is 1.01 above it in MobileNetV2 with 91 % of initial value; with 67 % in a dense net of 192
channels 1.03, as its smallest batch variance was 0.07."""
EXPECTED = 0.3
"""Variance that the weights let expect of the channels at a floor, over the stored one, below which the floor is no
variance of data. Where a share of 0.02 to 0.5 was mixed into healthy models (MobileNetV2, DS-CNN, MobileNetV1, Chiron)
it is 0.15 at most; what is expected of one layer is off by a factor of 2, seldom more."""
_TELL = "Give --decay and --steps to have it checked."


def told_by_floor(model: Facts, judged: list[Layer]) -> Iterator[Evidence]:
    """What the values alone tell where decay or count is unknown: a floor that the layers share, or a mere bound."""
    floor = variance_floor(judged)
    if floor is None:
        return
    told_by_data = data.is_refuted(model, names(judged)) or data.is_borne(model)
    expected = expected_at(judged, floor.bound) if floor.crowded and floor.bound <= 1 else None
    if expected is not None and expected < EXPECTED and not told_by_data:
        yield from _contradicted(model, judged, floor.bound, expected)
    elif floor.shared and MUCH <= floor.bound <= 1 and not told_by_data:
        yield _floor(model, judged, floor.bound)
    elif floor.crowded and floor.bound >= UNREAD_MUCH:
        message = (
            f"No moving variance of {many(floor.channels, 'channel')} is below {floor.bound:.3g}, and a tenth of them "
            f"lie just above: up to that much may still be initial value. {_TELL}"
        )
        yield _bounded(model, judged, floor.bound, message)


def refuting_the_default(model: Facts, judged: list[Layer]) -> Iterator[Evidence]:
    """A floor that another usual decay than the framework's default leaves: what was assumed was not what was used."""
    floor = variance_floor(judged)
    told_by_data = data.is_refuted(model, names(judged)) or data.is_borne(model)
    if floor is not None and floor.shared and MUCH <= floor.bound <= 1 and not told_by_data:
        found = _floor(model, judged, floor.bound)
        if found.severity is Severity.ERROR:
            yield found


def _contradicted(model: Facts, judged: list[Layer], bound: float, expected: float) -> Iterator[Evidence]:
    """A floor far above the variances that the weights let expect is the share: by what it does to the layers."""
    effects = [
        median(np.minimum(bound * layer.variance.starts_at / (values + (layer.epsilon or 0.0)), 1.0))
        for layer in judged
        if (values := values_of(layer.variance)) is not None and values.min() > 0
    ]
    worst, factor = max(effects, default=0.0), shrink(effects)
    if worst <= SOME and factor <= SHRINK_SOME:
        return
    message = (
        f"No moving variance is below {bound:.3g}, and a tenth of them lie just above, though their weights predict "
        f"{percent(expected)} of that: {percent(bound)} of the statistics is still initial value. It makes up "
        f"{percent(worst)} of the median variance in the worst layer."
    )
    much = worst > MUCH or factor > SHRINK_MUCH
    found = replace(
        _floor(model, judged, bound),
        message=message,
        severity=Severity.ERROR if much else Severity.WARNING,
        confidence=Confidence.MEDIUM,
    )
    more = Measurement(name="variance expected at the floor, over the stored one", value=expected, limit=EXPECTED)
    yield replace(found, measurements=(*found.measurements, more))


def _floor(model: Facts, judged: list[Layer], bound: float) -> Evidence:
    """A floor that the layers share is the share itself; an error where a usual decay leaves just that."""
    updates = model.run.updates
    decay = max((d for d in DECAYS if updates and _explains(d**updates, bound)), default=None)
    message = (
        f"The smallest moving variances of {many(len(judged), 'layer')} all lie just above {bound:.3g}, as if "
        f"{percent(bound)} of each were still initial value"
    )
    if decay is None or updates is None:
        return replace(_bounded(model, judged, bound, f"{message}. {_TELL}"), severity=Severity.WARNING)
    found = _bounded(model, judged, bound, f"{message}: decay {decay:g} leaves that after {many(updates, 'update')}.")
    return replace(found, severity=Severity.ERROR, confidence=Confidence.MEDIUM, fix=forget_and_repair(model, decay))


def _explains(share: float, bound: float) -> bool:
    """Whether a share of initial value leaves a floor there."""
    return share <= bound * (1 + CONTRADICTION) and bound <= max(share * FLOOR_FIT, share + SMALLEST * (1 - share))


def _bounded(model: Facts, judged: list[Layer], bound: float, message: str) -> Evidence:
    """A note that the init share may be as high as `bound`."""
    remedies = dict.fromkeys((repair(model), debias(model)))
    ways = ", with images or without" if len(remedies) > 1 else ""
    return Evidence(
        layers=names(judged),
        message=message,
        severity=Severity.INFO,
        confidence=Confidence.LOW,
        fix="\n".join((f"{_TELL} If the share is high{ways}:", *map(indented, remedies))),
        measurements=(Measurement(name="upper bound of the init share", value=bound, limit=UNREAD_MUCH),),
    )
