"""How bad the init shares that counters tell are, layer by layer: by what they do to a signal."""

from __future__ import annotations

from collections.abc import Sequence

from bncheck.facts.findings import Confidence, Severity
from bncheck.facts.record import replace
from bncheck.numerics.init_share import DEFAULTS, USUAL_EPSILON, InitShare, effects, shrink
from bncheck.rules.shared.init_share_floor import (
    MUCH,
    SHRINK_MUCH,
    SHRINK_SOME,
    SOME,
    UNREAD_MUCH,
    UNREAD_SOME,
)

NOTICED = 0.01
"""Part from which a layer is named as one that shrinks; a guess."""

Bad = list[tuple[InitShare, tuple[Severity, Confidence]]]


def judged_by_share(known: Sequence[InitShare]) -> tuple[Bad, float]:
    """The layers that their share harms, and by what factor all of them shrink a signal."""
    factor = shrink(effect for effect in effects(known) if effect is not None)
    return [(seen, standing) for seen in known if (standing := _standing(seen, factor)) is not None], factor


def of_any_epsilon(bad: Bad, known: Sequence[InitShare]) -> Bad:
    """What the largest usual epsilon leaves of it, where no file tells a layer's own; an error stays a warning."""
    if not any(presumed(seen) for seen, _ in bad):
        return bad
    larger = [
        replace(seen, layer=replace(seen.layer, epsilon=USUAL_EPSILON)) if presumed(seen) else seen for seen in known
    ]
    sure = {seen.layer.name: standing for seen, standing in judged_by_share(larger)[0]}
    milder = (Severity.WARNING, Confidence.MEDIUM)
    return [
        (seen, sure.get(seen.layer.name, milder))
        for seen, (severity, _) in bad
        if seen.layer.name in sure or severity is Severity.ERROR
    ]


def presumed(seen: InitShare) -> bool:
    """Whether epsilon is its framework's default, as no file tells another."""
    return seen.layer.epsilon is None and seen.layer.default_epsilon is not None


def _standing(seen: InitShare, factor: float) -> tuple[Severity, Confidence] | None:
    """How bad a layer's share is, None where it does no harm; `factor` is that of all layers."""
    if seen.effect is None:
        severity = Severity.ERROR if seen.share > UNREAD_MUCH else Severity.WARNING
        return (severity, Confidence.MEDIUM) if seen.share > UNREAD_SOME else None
    assumed = seen.layer.decay_from in DEFAULTS
    sure = Confidence.HIGH if seen.close and not assumed else Confidence.MEDIUM
    if seen.doubtful:
        noted = max(seen.share - MUCH, seen.effect - SOME, factor - SHRINK_SOME) > 0
        return (Severity.INFO, Confidence.LOW) if noted else None
    if seen.effect > MUCH:
        return Severity.ERROR, sure
    together = factor > SHRINK_MUCH and seen.effect > NOTICED
    if seen.share > MUCH or together:
        return (Severity.ERROR, sure) if seen.close else (Severity.WARNING, Confidence.LOW)
    if seen.effect > SOME or (factor > SHRINK_SOME and seen.effect > NOTICED):
        return Severity.WARNING, Confidence.MEDIUM if seen.close else Confidence.LOW
    return None
