"""BN103 init-share-too-high."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, RunFacts
from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.channels import finite, median, names, never_moved, quantile, values_of
from bncheck.numerics.divergence import diverging, each_layer
from bncheck.numerics.init_share import (
    CONTRADICTION,
    InitShare,
    counted_share,
    init_shares,
    share_bound,
    shrink,
    updates_a_step,
)
from bncheck.numerics.share_from_data import SMALLEST, ShareInData, leftover
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.fixes import indented, repair, training_code
from bncheck.rules.shared.modes import judged_output, too_few
from bncheck.testing import batch_norm, facts

MUCH = 0.25
"""Error: a quarter of what a layer divides by is initial value in its median channel, or a quarter of everything is."""
SOME = 0.05
"""Warning: a twentieth is."""
SHRINK_MUCH, SHRINK_SOME = 2.0, 1.2
"""The same over all layers in a row: MobileNetV2 on digits fell from 94.4 to 92.8 % at a factor of 1.2, to 88.1 % at
1.9, to 78.3 % at 3.5 and to chance at 18."""
UNREAD_MUCH, UNREAD_SOME = 0.5, 0.05
"""The same for the share alone, where the values were not read."""
DECAYS = (0.9, 0.95, 0.97, 0.99, 0.995, 0.997, 0.999, 0.9995, 0.9997)
"""Decays to recommend from."""
NOTICED = 0.01
"""Part from which a layer is named as one that shrinks."""
BORNE = 0.1
"""NMSE of every output, and of every layer by itself, up to which a fault of the statistics is borne."""
MANY_CHANNELS = 64
"""Channels below which the smallest variance says nothing."""
CROWDED = 1.5
"""Factor within which a tenth of the variances crowd above the smallest."""
FLOOR_LAYERS, FLOOR_SPREAD = 3, 1.05
"""Layers that share a floor have their smallest variances, and a tenth of all, within this factor of it. MobileNetV2
with 91 % of initial value: 1.01 and 1.00; with 5 %: 2.7 and 1.15; trained well: 30 to 1e9. Healthy nets of few
channels come as near as 1.02 and 1.07."""
FLOOR_FIT = 1.02
"""Factor within which `decay**n` explains a floor, which lies above it by what the smallest batch variance added."""


@rule("BN103", "init-share-too-high", severity=Severity.ERROR, needs=Needs.VALUES, explained_by=("BN211",))
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
    By what the initial value does, not by its share alone. Per channel its part of what the layer divides by is
    decay**n * initial / (stored + epsilon); a layer's output shrinks by the root of 1 minus its median, and the
    layers' factors multiply. ERROR where that median exceeds 25 % in a layer, the share itself does, or all layers
    together shrink more than 2-fold; WARNING from 5 % or 1.2-fold on. Starting from good statistics, 0.1 % of initial
    value cost a MobileNetV2 of 52 layers 6 points of accuracy, 0.3 % cost 30. With unread values the share alone
    decides: 50 % and 5 %. Since a batch variance is never negative, no stored variance can lie below share * initial:
    where one does, more updates went in than the counter says (fine-tuning resets it), and the rule stays silent.
    Where none comes near it the counter is doubted too, and confidence falls; where only batch variances above 50
    could have led from the initial value to the stored ones in so few updates, it is a note. Without decay or
    count the smallest variance bounds the share; if even the smallest of many is large, a note asks for `--decay`
    and `--steps`. Where the smallest variances of several layers all lie within 5 % of one floor, it is the share:
    a warning, and an error where one of the usual decays leaves just that after the counted updates. Where eval mode
    was run against train mode on real data, and neither these layers nor the output show any of it, the counters are
    wrong (updates that ran without a step): a note. Where counters tell no error and the data were run, the share is
    looked for in what was measured: where taking one share of 0 and 1 out of all layers brings their variances to those
    of the data (at most a factor of 1.4 off in the median channel, half as many logarithms as before, and better than
    one factor for all could), that is the share; an error where the output is junk. Where layers show it and the output
    bears it (as good in eval mode, and no error, there or of a layer, above 0.1 of the energy), a warning.

    Not detected
    ------------
    A layer whose update rate changed during training; a decay that nobody tells, with variances that are all small.

    Fix
    ---
    Lower the decay for runs of this length: less than 1 % is left after 44 updates at 0.9, 459 at 0.99, 4,603 at
    0.999, 15,349 at 0.9997.

        with slim.arg_scope([slim.batch_norm], decay=0.95):      # tf.layers, Keras: momentum=0.95
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
    known = init_shares(judged, model.run)
    factor = shrink(seen.effect for seen in known if seen.effect is not None)
    bad = [(seen, standing) for seen in known if (standing := _standing(seen, factor)) is not None]
    left = None if any(severity is Severity.ERROR for _, (severity, _) in bad) else share_in_data(model)
    if left is not None and model.comparison is not None and diverging(model.comparison):
        yield _measured(model, left)
    elif bad:
        found = _evidence(model, bad, len(judged), factor)
        yield _refuted(found) if _refutes(model, found.layers) else _borne(found) if _bears(model) else found
    elif bound is not None and all(counted_share(layer, model.run) is None for layer in judged):
        yield from _unknown(model, judged, bound)


def share_in_data(model: Facts) -> ShareInData | None:
    """What running the model shows of the share; None where nothing was run, or not enough."""
    comparison = model.comparison
    if comparison is None or comparison.data.synthetic or too_few(comparison):
        return None
    return leftover(model, each_layer(comparison))


def _measured(model: Facts, left: ShareInData) -> Evidence:
    """What running the model shows, whatever is counted: an error where the output is junk for it."""
    output = None if model.comparison is None else judged_output(model.comparison)
    code = "slim.batch_norm(net, decay=0.9)    # tf.layers, Keras: momentum=0.9"
    return Evidence(
        layers=left.layers,
        message=f"{percent(left.share)} of the statistics is still the initial value. With that taken out, stored "
        f"variances are those of the data given but for a factor of {math.exp(left.after):.2f} in the median channel; "
        f"as they are, {math.exp(left.before):.3g}. The run was too short for its decay.",
        severity=Severity.ERROR if output is not None and output.junk else Severity.WARNING,
        confidence=Confidence.HIGH,
        fix=f"{training_code(code, note='a decay that forgets its initial value in a run of this length')}\n"
        f"This checkpoint, without retraining:\n{indented(repair(model))}",
        measurements=(
            Measurement(name="init share, by the data", value=left.share, limit=SMALLEST),
            Measurement(name="stored over measured variance, median channel", value=math.exp(left.before)),
            Measurement(name="the same, share undone", value=math.exp(left.after)),
        ),
    )


def _refutes(model: Facts, layers: tuple[str, ...]) -> bool:
    """Whether both modes, run on real data, agree in the layers and at the output."""
    comparison = model.comparison
    output = None if comparison is None else judged_output(comparison)
    if comparison is None or output is None or output.junk:
        return False
    compared = {layer.layer for layer in comparison.layers}
    return compared.issuperset(layers) and not {layer.layer for layer in diverging(comparison)}.intersection(layers)


def _bears(model: Facts) -> bool:
    """Whether the output, run on real data, is as good in eval mode as in train mode, and no layer is far off."""
    comparison = model.comparison
    output = None if comparison is None else judged_output(comparison)
    if comparison is None or output is None or output.junk:
        return False
    losses = [*(one.nmse for one in comparison.outputs), *(layer.local_nmse for layer in comparison.layers)]
    return all(loss <= BORNE for loss in losses)


def _borne(found: Evidence) -> Evidence:
    """No error where the output is measured and good."""
    if found.severity is not Severity.ERROR:
        return found
    return replace(
        found,
        message=f"{found.message} On the data given the output bears it.",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
    )


def _refuted(found: Evidence) -> Evidence:
    """By the counters only: what was measured says otherwise."""
    return replace(
        found,
        message=f"By its counters, {found.message[0].lower()}{found.message[1:]} On the data given eval mode does as "
        "well as train mode, so more updates went in than were counted.",
        severity=Severity.INFO,
        confidence=Confidence.LOW,
        fix="Nothing, if the data are those of training.",
    )


def _standing(seen: InitShare, factor: float) -> tuple[Severity, Confidence] | None:
    """How bad a layer's share is, None where it does no harm; `factor` is that of all layers."""
    if seen.effect is None:
        severity = Severity.ERROR if seen.share > UNREAD_MUCH else Severity.WARNING
        return (severity, Confidence.MEDIUM) if seen.share > UNREAD_SOME else None
    sure = Confidence.HIGH if seen.close else Confidence.MEDIUM
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


def shorter_decay(updates: int) -> float:
    """The largest decay in use that leaves less than 0.01 % after so many updates; 0.9 where none does."""
    return max((decay for decay in DECAYS if decay**updates < 1e-4), default=0.9)


def _fix(model: Facts, used: float) -> str:
    """A decay for runs of this length or, where that is none, the length; how to save this one with data or without."""
    decay = shorter_decay(model.run.updates or 0)
    code = f"slim.batch_norm(net, decay={decay:g})    # tf.layers, Keras: momentum={decay:g}"
    again = training_code(code, note="a decay that forgets its initial value in a run of this length")
    if 0 < used <= decay:
        enough = math.ceil(-4 / math.log10(used))
        again = f"Train on: with decay {used:g}, less than 0.01 % is left after {enough:,} updates."
    return (
        f"{again}\nThis checkpoint, without data (exact if decay and count are), or better with images:\n"
        f"{indented(_debias(model, used))}\n{indented(repair(model))}"
    )


def _debias(model: Facts, decay: float | None = None) -> str:
    """The command that undoes the init share without data; it tells the decay and count that no file does."""
    told = any(layer.decay is not None for layer in model.layers)
    missing = f" --decay {'DECAY' if decay is None else f'{decay:g}'}" if not told else ""
    return repair(model, debias=f"--debias{missing}{'' if model.run.updates else ' --steps STEPS'}")


def _evidence(
    model: Facts, bad: list[tuple[InitShare, tuple[Severity, Confidence]]], judged: int, factor: float
) -> Evidence:
    order = [Severity.ERROR, Severity.WARNING, Severity.INFO]
    standing = min((found for _, found in bad), key=lambda found: order.index(found[0]))
    worst = max((seen for seen, _ in bad), key=lambda seen: (seen.effect or 0.0, seen.share))
    share = max(seen.share for seen, _ in bad)
    layers = names(seen.layer for seen, _ in bad)
    doubt = "" if standing[1] is not Confidence.LOW else " No variance is near that: was the counter reset?"
    effect = "the values themselves were not read"
    found = [
        Measurement(name="init share", value=share, limit=UNREAD_MUCH if worst.median is None else MUCH),
        Measurement(name="updates", value=model.run.updates or 0),
        Measurement(name="decay", value=worst.layer.decay or 0.0),
    ]
    if worst.median is not None and worst.worst is not None:
        effect = (
            f"it is 0, so {worst.layer.name} divides by too little"
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
        message=(
            f"{percent(share)} of the statistics is still the initial value after "
            f"{_updates(model, worst.layer)} with decay {worst.layer.decay:g}; {effect}. "
            f"{len(layers)} of {many(judged, 'layer')}: "
            f"{listing(layers)}.{doubt}"
        ),
        severity=standing[0],
        confidence=standing[1],
        location=worst.layer.variance.name,
        fix=_fix(model, worst.layer.decay or 0.0),
        measurements=tuple(found),
    )


def _updates(model: Facts, layer: Layer) -> str:
    each, steps = updates_a_step(layer), model.run.updates or 0
    return many(steps, "update") if each == 1 else f"{many(steps, 'step')} of {each} updates each"


def _unknown(model: Facts, judged: list[Layer], bound: float) -> Iterator[Evidence]:
    """What the values alone tell where decay or count is unknown: a floor that the layers share, or a mere bound."""
    by_layer = [
        finite(values) / layer.variance.starts_at
        for layer in judged
        if layer.variance.starts_at > 0 and (values := values_of(layer.variance)) is not None and finite(values).size
    ]
    ratios = np.concatenate(by_layer)
    nearest = quantile(ratios, 0.1) / bound if bound > 0 else math.inf
    shared = (
        MUCH <= bound <= 1
        and len(by_layer) >= FLOOR_LAYERS
        and ratios.size >= MANY_CHANNELS
        and nearest <= FLOOR_SPREAD
        and median(np.array([each.min() for each in by_layer])) / bound <= FLOOR_SPREAD
    )
    refuted = _refutes(model, names(judged)) or _bears(model)
    if shared and not refuted:
        yield _floor(model, judged, bound)
    elif bound >= UNREAD_MUCH and ratios.size >= MANY_CHANNELS and nearest <= CROWDED:
        yield _bounded(
            model,
            judged,
            bound,
            f"No moving variance of {many(ratios.size, 'channel')} is below {bound:.3g}, and a tenth of them crowd "
            "just above: up to that much may still be initial value. Give --decay and --steps to have it judged.",
        )


def _floor(model: Facts, judged: list[Layer], bound: float) -> Evidence:
    """A floor that the layers share is the share itself; an error where a usual decay leaves just that."""
    updates = model.run.updates
    fitting = (d for d in DECAYS if updates and bound / FLOOR_FIT <= d**updates <= bound * (1 + CONTRADICTION))
    decay = next(fitting, None)
    message = (
        f"The smallest moving variances of {many(len(judged), 'layer')} all lie just above {bound:.3g}, as they do "
        f"where {percent(bound)} of each is still its initial value"
    )
    if decay is None or updates is None:
        found = _bounded(model, judged, bound, f"{message}. Give --decay and --steps to have it judged.")
        return replace(found, severity=Severity.WARNING)
    found = _bounded(model, judged, bound, f"{message}: decay {decay:g} leaves that after {many(updates, 'update')}.")
    return replace(found, severity=Severity.ERROR, confidence=Confidence.MEDIUM, fix=_fix(model, decay))


def _bounded(model: Facts, judged: list[Layer], bound: float, message: str) -> Evidence:
    """A note that the init share may be as high as `bound`."""
    return Evidence(
        layers=names(judged),
        message=message,
        severity=Severity.INFO,
        confidence=Confidence.LOW,
        fix="Give --decay and --steps to have it judged. Where the share is high, with images or without:\n"
        f"{indented(repair(model))}\n{indented(_debias(model))}",
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
