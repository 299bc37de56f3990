"""BN103 init-share-too-high."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import DecaySource, Facts, Layer, RunFacts
from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.channels import names, never_moved
from bncheck.numerics.divergence import diverging
from bncheck.numerics.init_share import (
    DEFAULTS,
    InitShare,
    init_share,
    init_shares,
    updates_a_step,
)
from bncheck.numerics.variance_floor import MANY_CHANNELS
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import init_share_measured as data
from bncheck.rules.shared.init_share_fix import LEFT, forget_and_repair
from bncheck.rules.shared.init_share_floor import (
    MUCH,
    SHRINK_MUCH,
    UNREAD_MUCH,
    refuting_the_default,
    told_by_floor,
)
from bncheck.rules.shared.init_share_standing import NOTICED, Bad, judged_by_share, of_any_epsilon, presumed
from bncheck.testing import batch_norm, facts


@rule(
    "BN103",
    "init-share-too-high",
    severity=Severity.ERROR,
    needs=Needs.VALUES,
    explained_by=("BN211",),
    milder_than=("BN101", "BN102"),
    meaning=Meaning.VALUES_FAULT | Meaning.FITS_NO_DATA | Meaning.BY_COUNTERS | Meaning.INITIAL_VALUES,
    sees="C01 D08",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The moving statistics moved, but too much of them is still initial value.

    What it detects
    ---------------
    Runs too short for their decay: after n updates `decay**n` of each statistic is still the initial 0 or 1. With
    decay 0.9997 that is 91.4 % after 300 updates, 74 % after 1,000 and 5 % after 10,000.

    Why it matters
    --------------
    5 % of an initial 1 is fatal where the true variance is 0.02: it is stored as 0.067, the layer's output shrinks to
    55 %, and so does the next layer's, and the next.

    How it decides
    --------------
    By what the initial value does, not by its share alone. Per channel its part of what the layer divides by is
    decay**n * initial / (stored + epsilon); a layer's output shrinks by the root of 1 minus its median, and the
    layers' factors multiply. ERROR where that median exceeds 25 % in a layer, the share itself does, or all layers
    together shrink more than 2-fold; WARNING from 5 % or 1.2-fold on. Starting from good statistics, 0.1 % of
    initial value cost a MobileNetV2 of 52 layers 6 points of accuracy, 0.3 % cost 30. An epsilon that no file tells
    is the framework's default; in PyTorch and Flax (1e-05), where many models have 1e-03, what holds of the one
    alone is a WARNING at most. With unread values the share alone decides: 50 % and 5 %. Since a batch variance is
    never negative, no stored variance can lie below share * initial: where one does, more updates went in than the
    counter says (fine-tuning resets it), and the rule stays silent. Where none comes near it the counter is doubted
    too, and confidence falls; where only batch variances above 50 could have led from the initial value to the
    stored ones in so few updates, it is a note. Without decay or count the smallest variance bounds the share; if
    even the smallest of many is large, a note asks for `--decay` and `--steps`. Where the smallest variances of
    several layers all lie within 5 % of one floor, it is the share: a warning, and an error where one of the usual
    decays leaves just that after the counted updates; in PyTorch and Flax only then, for their default is assumed.
    Where a tenth of all variances crowd above a floor, and the weights predict less than 30 % of it there (as BN119
    does), the floor is the share too, and its effect decides as above. Where eval mode was run against train mode
    on real data, and neither these layers nor the output show any of it, the counters are wrong (updates that ran
    without a step): a note. Where counters tell no error and the data were run, the share is looked for in what was
    measured: where taking one share of 0 and 1 out of all layers brings their variances to those of the data (at
    most a factor of 1.4 off in the median channel, half as many logarithms as before, and better than one factor
    for all could), that is the share; an error where the output is junk. Where layers show it and the output is
    unaffected (as good in eval mode, and no error, there or of a layer, above 0.1 of the energy), a warning.

    Not detected
    ------------
    A layer whose update rate changed during training; an unknown decay, with variances that are all small.

    Fix
    ---
    Lower the decay for runs of this length: less than 1 % is left after 44 updates at 0.9, 459 at 0.99, 4,603 at
    0.999, 15,349 at 0.9997.

        # tf.layers, Keras: momentum=0.95
        with slim.arg_scope([slim.batch_norm], decay=0.95):
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
    known = init_shares(judged, model.run.updates)
    bad, factor = judged_by_share(known)
    bad = of_any_epsilon(bad, known)
    left = None if any(severity is Severity.ERROR for _, (severity, _) in bad) else data.share_in_data(model)
    if left is not None and model.comparison is not None and diverging(model.comparison):
        yield data.measured(model, left)
    elif bad:
        yield data.in_the_light_of_data(model, _evidence(model, bad, len(judged), factor))
    elif not known and all(_unknown(layer, model.run.updates) for layer in judged):
        yield from told_by_floor(model, judged)
    elif judged and all(layer.decay_from in DEFAULTS for layer in judged):
        yield from refuting_the_default(model, judged)


def _unknown(layer: Layer, updates: int | None) -> bool:
    """Whether nothing tells the share, or a framework's default decay alone, which the values have ruled out."""
    return layer.decay_from in DEFAULTS or init_share(layer, updates) is None


_DEFAULTS = {
    DecaySource.PYTORCH_DEFAULT: "PyTorch's default momentum, 0.1",
    DecaySource.FLAX_DEFAULT: "Flax's default momentum",
}


def _evidence(model: Facts, bad: Bad, judged: int, factor: float) -> Evidence:
    standing = min((found for _, found in bad), key=lambda found: list(Severity).index(found[0]))
    worst = max((seen for seen, _ in bad), key=lambda seen: (seen.effect or 0.0, seen.share))
    share = max(seen.share for seen, _ in bad)
    layers = names(seen.layer for seen, _ in bad)
    where = f" {len(layers)} of {many(judged, 'layer')}: {listing(layers)}." if len(layers) < judged else ""
    doubt = "" if standing[1] is not Confidence.LOW else " No variance is close to that: was the counter reset?"
    assumed = ""
    if presumed(worst) and standing[0] is not Severity.ERROR:
        assumed = f" Epsilon is unknown: its default, {worst.layer.default_epsilon:g}, is assumed."
    effect = "the values were not read"
    found = [
        Measurement(name="init share", value=share, limit=UNREAD_MUCH if worst.median is None else MUCH),
        Measurement(name="updates", value=model.run.updates or 0),
        Measurement(name="decay", value=worst.layer.decay or 0.0),
    ]
    if worst.median is not None and worst.worst is not None:
        effect = (
            f"it is 0, so {worst.layer.name} divides by too small a number"
            if worst.layer.variance.starts_at == 0
            else f"it makes up {percent(worst.median)} of the median moving variance in {worst.layer.name}"
        )
        found += [
            Measurement(name="init contribution, median channel of the worst layer", value=worst.median, limit=MUCH),
            Measurement(name="init contribution, worst channel of that layer", value=worst.worst),
            Measurement(name="shrinkage over all layers", value=factor, limit=SHRINK_MUCH, unit="times"),
        ]
    return Evidence(
        layers=layers,
        message=f"{percent(share)} of the statistics is still initial value after {_updates(model, worst.layer)} "
        f"with decay {worst.layer.decay:g}{_default(worst.layer)}; {effect}.{assumed}{where}{doubt}",
        severity=standing[0],
        confidence=standing[1],
        location=worst.layer.variance.name,
        fix=forget_and_repair(model, worst.layer.decay or 0.0, _harmless(worst)),
        measurements=tuple(found),
    )


def _harmless(worst: InitShare) -> float:
    """The share that would not be noticed in the worst layer."""
    return min(LEFT, worst.share * NOTICED / worst.effect) if worst.effect else LEFT


def _default(layer: Layer) -> str:
    told = _DEFAULTS.get(layer.decay_from) if layer.decay_from is not None else None
    return f" ({told})" if told else ""


def _updates(model: Facts, layer: Layer) -> str:
    if layer.counted is not None:
        return many(layer.counted, "update")
    each, steps = updates_a_step(layer), model.run.updates or 0
    return many(steps, "update") if each == 1 else f"{many(steps, 'step')} of {each} updates each"


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
