"""BN103 init-share-too-high."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bncheck.finding import Confidence, Evidence, Measurement, Severity
from bncheck.model import Facts, Layer, RunFacts
from bncheck.rules._rule import Needs, rule
from bncheck.rules._statistics import (
    finite,
    init_share,
    listing,
    many,
    names,
    never_moved,
    percent,
    share_bound,
    values_of,
)
from bncheck.testing import batch_norm, facts

MUCH = 0.25
"""Error: a quarter of the median variance is initial value, or a quarter of everything is."""
SOME = 0.05
"""Warning: a twentieth of the median variance is; over 50 layers in a row that still is a factor of 3."""
UNREAD_MUCH, UNREAD_SOME = 0.5, 0.05
"""The same for the share alone, where the values were not read."""
CONTRADICTION = 1e-3
"""Relative error of float32 averages, far exceeded by values that the counted share rules out."""
SLACK = 3
"""Updates by which a counter may lag: a channel constant from the start lies exactly at the share of the true count."""
CLOSE = 2.0
"""A share is seen in the values where the smallest variance lies within this factor of it."""
MANY_CHANNELS = 64
"""Channels below which the smallest variance says nothing."""


@rule("BN103", "init-share-too-high", severity=Severity.ERROR, needs=Needs.VALUES)
def check(model: Facts) -> Iterator[Evidence]:
    """The moving statistics moved, but the initial value still makes up too much of them.

    What it detects
    ---------------
    Runs too short for their decay: after n updates `decay**n` of each statistic is still the initial 0 or 1. With
    decay 0.9997 that is 91.4 % after 300 updates, 74 % after 1,000 and 5 % after 10,000.

    Why it matters
    --------------
    5 % of a 1 are fatal where the true variance is 0.02: it is stored as 0.067, the layer's output shrinks to 55 %,
    and so does the next one's, and the next. Genuine MobileNetV2 on digits, 300 steps, decay 0.99: 90.9 % accuracy
    with batch statistics, 9.8 % with the stored ones.

    How it decides
    --------------
    By what the initial value does, not by its share alone: per channel its part of the stored variance is
    decay**n * initial / stored. ERROR where the median over a layer's channels exceeds 25 %, or the share itself does;
    WARNING from a median of 5 % on. With unread values the share alone decides: 50 % and 5 %. Since a batch variance
    is never negative, no stored variance can lie below share * initial: where one does, more updates went in than the
    counter says (fine-tuning resets it), and the rule stays silent. A share above 25 % that no variance comes near to
    is a warning only, for the same reason. Without decay or count the smallest variance bounds the share; if even the
    smallest of many is large, a note asks for `--decay` and `--steps`.

    Not detected
    ------------
    A layer whose update rate changed during training; a decay that nobody tells, with variances that are all small.

    Fix
    ---
    Lower the decay for runs of this length: less than 1 % is left after 44 updates at 0.9, 459 at 0.99, 4,603 at
    0.999, 15,349 at 0.9997.

        with slim.arg_scope([slim.batch_norm], decay=0.99):      # tf.layers, Keras: momentum=0.99
            logits, _ = model(images)

    This checkpoint, without data (exact where decay and count are known), or better with:

        bncheck repair PATH -o OUT --debias
        bncheck repair PATH -o OUT --data images/

    References
    ----------
    tensorflow#1122, tensorflow/models#4367, tensorflow/models#391, tensorlayer#104, arXiv 2105.07576.
    Failure modes C01, D08; P10.
    """
    judged = [layer for layer in model.layers if not never_moved(layer) and layer.variance.moved is not False]
    bound = share_bound(judged)
    known = [seen for layer in judged if (seen := _seen(layer, judged, model.run)) is not None]
    bad = [(seen, standing) for seen in known if (standing := _standing(seen)) is not None]
    if bad:
        yield _evidence(model.run, bad, len(judged))
    elif bound is not None and all(init_share(layer, model.run) is None for layer in judged):
        yield from _unknown(judged, bound)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A layer's init share and what it does: median and largest contribution over its channels, None if unread."""

    layer: Layer
    share: float
    median: float | None
    worst: float | None
    close: bool
    """Whether the layers' smallest variance lies near the share, as it does early in a run."""


def _seen(layer: Layer, judged: list[Layer], run: RunFacts) -> _Seen | None:
    """None where the share is unknown, or where the values of the layers of that decay rule it out."""
    share = init_share(layer, run)
    if share is None:
        return None
    bound = share_bound(other for other in judged if init_share(other, run) == share)
    if bound is not None and bound < share * (layer.decay or 0.0) ** SLACK * (1 - CONTRADICTION):
        return None
    values = values_of(layer.variance)
    read = None if values is None else finite(values)
    if read is None or read.size == 0:
        return _Seen(layer=layer, share=share, median=None, worst=None, close=True)
    initial = max(layer.variance.starts_at, 0.0)
    parts = np.minimum(share * initial / np.maximum(read, np.finfo(np.float64).tiny), 1.0)
    close = bound is None or bound <= CLOSE * share
    return _Seen(layer=layer, share=share, median=float(np.median(parts)), worst=float(parts.max()), close=close)


def _standing(seen: _Seen) -> tuple[Severity, Confidence] | None:
    """How bad a layer's share is, None where it does no harm."""
    if seen.median is None:
        severity = Severity.ERROR if seen.share > UNREAD_MUCH else Severity.WARNING
        return (severity, Confidence.MEDIUM) if seen.share > UNREAD_SOME else None
    if seen.median > MUCH or (seen.share > MUCH and seen.close):
        return Severity.ERROR, Confidence.HIGH
    if seen.share > MUCH:
        return Severity.WARNING, Confidence.LOW
    return (Severity.WARNING, Confidence.MEDIUM) if seen.median > SOME else None


def _evidence(run: RunFacts, bad: list[tuple[_Seen, tuple[Severity, Confidence]]], judged: int) -> Evidence:
    order = [Severity.ERROR, Severity.WARNING]
    standing = min((found for _, found in bad), key=lambda found: order.index(found[0]))
    worst = max((seen for seen, _ in bad), key=lambda seen: (seen.median or 0.0, seen.share))
    share = max(seen.share for seen, _ in bad)
    layers = names(seen.layer for seen, _ in bad)
    effect = (
        f"it makes up {percent(worst.median)} of the median moving variance in {worst.layer.name}"
        if worst.median is not None
        else "the values themselves were not read"
    )
    doubt = "" if standing[1] is not Confidence.LOW else " No variance is near that: was the counter reset?"
    found = [
        Measurement(name="init share", value=share, limit=UNREAD_MUCH if worst.median is None else MUCH),
        Measurement(name="updates", value=run.updates or 0),
        Measurement(name="decay", value=worst.layer.decay or 0.0),
    ]
    if worst.median is not None and worst.worst is not None:
        found += [
            Measurement(name="init contribution, median channel of the worst layer", value=worst.median, limit=MUCH),
            Measurement(name="init contribution, worst channel of that layer", value=worst.worst),
        ]
    return Evidence(
        layers=layers,
        message=(
            f"{percent(share)} of the statistics is still the initial value after {many(run.updates or 0, 'update')} "
            f"with decay {worst.layer.decay:g}; {effect}. {len(layers)} of {many(judged, 'layer')}: "
            f"{listing(layers)}.{doubt}"
        ),
        severity=standing[0],
        confidence=standing[1],
        location=worst.layer.variance.name,
        measurements=tuple(found),
    )


def _unknown(judged: list[Layer], bound: float) -> Iterator[Evidence]:
    """A note where decay or count is unknown, no variance is small, and many crowd just above the smallest."""
    ratios = np.concatenate(
        [
            finite(values) / layer.variance.starts_at
            for layer in judged
            if layer.variance.starts_at > 0 and (values := values_of(layer.variance)) is not None
        ]
    )
    crowded = ratios.size >= MANY_CHANNELS and float(np.quantile(ratios, 0.1)) <= 1.5 * bound
    if bound >= UNREAD_MUCH and crowded:
        yield Evidence(
            layers=names(judged),
            message=(
                f"No moving variance of {many(ratios.size, 'channel')} is below {bound:.3g}, and a tenth of them crowd "
                "just above: up to that much may still be initial value. Give --decay and --steps to have it judged."
            ),
            severity=Severity.INFO,
            confidence=Confidence.LOW,
            fix="Give --decay and --steps; where the share is high: bncheck repair PATH -o OUT --debias.",
            measurements=(Measurement(name="upper bound of the init share", value=bound, limit=UNREAD_MUCH),),
        )


def _run(updates: int) -> RunFacts:
    return RunFacts(values=True, global_step=updates, updates=updates, updates_from="global_step")


def clean() -> tuple[Facts, ...]:
    """Decay 0.9 after 300; a long run; a counter that fine-tuning reset; nothing known; a variance that is debiased."""
    small = [0.02, 0.03, 0.5, 1.2]
    return (
        facts(batch_norm("bn", variance=small, decay=0.9), run=_run(300)),
        facts(batch_norm("bn", variance=small, decay=0.999), run=_run(100_000)),
        facts(batch_norm("bn", variance=small, decay=0.9997), run=_run(300)),
        facts(batch_norm("bn", variance=small), run=RunFacts(values=True)),
    )


def broken() -> tuple[Facts, ...]:
    """The story: 91.4 % at 0.9997, and 4.9 % at 0.99 that make up 73 % of the variance; only the counters known."""
    share = 0.9997**300
    diluted = [share + (1 - share) * true for true in (0.02, 0.5, 1.0, 2.5)]
    small = [0.99**300 + (1 - 0.99**300) * true for true in (0.015, 0.019, 0.021, 0.4)]
    crowd = np.linspace(0.914, 1.2, MANY_CHANNELS)
    return (
        facts(batch_norm("bn", mean=0.04, variance=diluted, decay=0.9997), run=_run(300)),
        facts(batch_norm("bn", variance=small, decay=0.99), run=_run(300)),
        facts(batch_norm("bn", variance=crowd, channels=MANY_CHANNELS), run=RunFacts(values=True)),
    )
