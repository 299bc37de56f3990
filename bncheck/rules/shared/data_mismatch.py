"""Signs that the data, not the model, make the two modes differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bncheck.facts.findings import Confidence, Meaning, Severity
from bncheck.facts.inputs import ranges_apart
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.ratios import informed_accuracy, scores_of
from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.channels import dead_channels, finite, median
from bncheck.numerics.divergence import DIVERGES, TIMES_CHANCE, divergence_limit, diverging, each_layer
from bncheck.numerics.input_range import range_factor
from bncheck.numerics.moments import batch_moments
from bncheck.rules import RULES
from bncheck.rules.shared.modes import judged_output, labels_strange, labels_tell
from bncheck.rules.shared.other_input import RANGE, other_input
from bncheck.rules.statistics import bn101_never_moved

if TYPE_CHECKING:
    from bncheck.facts.measurements import Comparison, LayerDifference

SCALED = 0.2
"""|ln| of a common factor between batch and stored variances that is worth telling, a fifth more or less; a guess."""
ALIKE = 0.25
"""Channels whose factor is that near the median, as a share of its logarithm, count as having the same; a guess."""
TELLS = 0.1
"""|ln| below which a channel says nothing of a factor: a dead one has 1 whatever the input; a guess."""
MOST, FEW = 0.5, 0.2
"""Shares of layers: from the first on all of them are meant, no more than the second is hardly another;
both guesses."""


@dataclass(frozen=True, kw_only=True)
class Unlike:
    """Why the data look unlike the training's."""

    layers: tuple[str, ...]
    told: str
    name: str
    value: float
    limit: float
    decides: bool
    """Whether it leaves open if the model is at fault, so that no verdict can be given on the output."""
    excuses: bool = False
    """Whether it explains all that eval mode does on these data, however bad: the model is not accused of it."""
    factor: float | None = None
    """By how much the input's deviation is larger than that of the training data, where that is what differs."""
    fix: str = ""
    """Where another one than for data in general."""


def unlike_training(model: Facts) -> Unlike | None:
    """The plainest sign, or None: also where a fault of the files explains the difference, or the output is fine."""
    comparison = model.comparison
    if comparison is None or comparison.data.synthetic:
        return None
    if _untrained(model, comparison):
        return NOT_TRAINED
    other = other_input(model)
    if other:
        return _of_another_copy(comparison, *other)
    if labels_strange(comparison) and not any(place.non_finite for place in comparison.layers):
        return _strange_labels(comparison)
    output = judged_output(comparison)
    if output is None or not output.junk or known_cause(model):
        return None
    found = _rescaled(model, comparison) or _first_layer(comparison)
    if found is not None or labels_tell(comparison):
        return found
    return _everywhere(comparison) or _awake(model, comparison)


def if_data_fit(unlike: Unlike | None, remedy: str) -> str:
    """A remedy that new statistics belong to, which other data than the training's would make worse."""
    if unlike is None or not unlike.decides:
        return remedy
    return f"First check that these are data like the training data (BN304). If so:\n{remedy}"


NOT_TRAINED = Unlike(
    layers=(),
    told="The model is not trained yet: no moving statistic, beta or gamma ever left its initial value. The modes of "
    "such a model always differ.",
    name="layers that were trained",
    value=0,
    limit=1,
    decides=True,
)


def _of_another_copy(comparison: Comparison, told: str, name: str, value: float, limit: float) -> Unlike:
    """What a copy that was made for other input does with these data is no fault of it."""
    output = judged_output(comparison)
    junk = output is not None and output.junk
    return Unlike(
        layers=(),
        told=f"{told} The copy is not judged by them." if junk else told,
        name=name,
        value=value,
        limit=limit,
        decides=junk,
        excuses=junk,
    )


def _untrained(model: Facts, comparison: Comparison) -> bool:
    """Whether what differs is a model as it was initialised, as BN101 notes."""
    output = judged_output(comparison)
    found = next(iter(bn101_never_moved.check.check(model)), None)
    junk = output is not None and output.junk
    noted = found is not None and (found.severity, found.confidence) == (Severity.INFO, Confidence.HIGH)
    return junk and noted


def known_cause(model: Facts) -> bool:
    """Whether an error in values or wiring explains the difference by itself."""
    explaining = (rule for rule in RULES if Meaning.FITS_NO_DATA in rule.meaning)
    return any(
        (found.severity or rule.severity) is Severity.ERROR for rule in explaining for found in rule.check(model)
    )


_NOT_MET = (
    "the model has not learned them, the labels are numbered differently, or the data are not like the training data."
)
_FIX_NOT_MET = (
    "Number the labels as in the training, and give data like the training data, in their range and channel order."
)


def _strange_labels(comparison: Comparison) -> Unlike:
    train = comparison.accuracy.train or 0.0
    output = scores_of(comparison.outputs)
    classes = (None if output is None else output.classes) or 0
    least = informed_accuracy(classes) if classes else 1.0
    told, fix = _renumbered(comparison, least) or (_NOT_MET, _FIX_NOT_MET)
    return Unlike(
        layers=(),
        told=f"Accuracy is no better than chance among {classes} classes in either mode ({percent(train)} in train "
        f"mode): {told}",
        name="accuracy in train mode",
        value=train,
        limit=least,
        decides=True,
        fix=fix,
    )


def _renumbered(comparison: Comparison, least: float) -> tuple[str, str] | None:
    """(why, fix) of labels that start one too high or low; None where that is not it."""
    lower, higher = (each or 0.0 for each in (comparison.accuracy.one_lower, comparison.accuracy.one_higher))
    if max(lower, higher) < least:
        return None
    if lower > higher:
        found, way, fix = lower, "lower", "Subtract 1 from every label: they start at 1, the model's classes at 0."
    else:
        found, way = higher, "higher"
        fix = "Add 1 to every label: the model's first class is one that the labels leave out, such as background."
    return f"were every label one {way}, train mode would meet {percent(found)}.", fix


def _first_layer(comparison: Comparison) -> Unlike | None:
    """The first layer is off and hardly another: what reaches it is the data as they are."""
    wrong, layers = _off(comparison), each_layer(comparison)
    if not wrong or wrong[0] is not layers[0] or len(wrong) > max(1, FEW * len(layers)):
        return None
    factor = _common_factor(wrong[0])
    if factor is not None:
        return _other_range(comparison, wrong[0], factor)
    if len(wrong) > 1 or len(layers) == 1 or labels_tell(comparison):
        return None
    return Unlike(
        layers=(wrong[0].layer,),
        told=f"Only the first layer, {wrong[0].layer}, is off, and it sees the data directly: either they are unlike "
        "the training data (--preprocess, --channel-order, other images), or its statistics are wrong. Labels would "
        "show which.",
        name=f"local NMSE, {wrong[0].layer}",
        value=wrong[0].local_nmse,
        limit=divergence_limit(comparison),
        decides=True,
    )


def _rescaled(model: Facts, comparison: Comparison) -> Unlike | None:
    """The input is another number of times as large: all channels of the first layer tell so, and no other layer does.

    Variances that are off by one factor while the means fit are the model's own fault, and so is a factor that most
    layers share: behind a first one that normalises, nothing of the input's range is left.
    """
    wrong, layers = _off(comparison), each_layer(comparison)
    if not wrong or wrong[0] is not layers[0]:
        return None
    factors = {layer.layer: _factor(model, layer) for layer in layers}
    factor = factors[layers[0].layer]
    if factor is None or abs(math.log(factor)) < math.log(RANGE) or _means_fit(model, layers[0]):
        return None
    others = [other for layer in layers[1:] if (other := factors[layer.layer]) is not None]
    shared = sum(abs(math.log(other / factor)) <= SCALED for other in others)
    if len(layers) > 1 and shared >= MOST * (len(layers) - 1):
        return None
    return Unlike(
        layers=(layers[0].layer,),
        told=f"The data are not in the range the model was trained on: in every channel of the first layer, "
        f"{layers[0].layer}, batch variances are {factor**2:.3g} times the stored ones, as if the input were "
        f"{factor:.3g} times as large.{_ranges(model, factor)} The model is not judged by these data.",
        name=f"batch over stored variance, {layers[0].layer}",
        value=factor**2,
        limit=RANGE**2,
        decides=True,
        excuses=True,
        factor=factor,
    )


def _factor(model: Facts, measured: LayerDifference) -> float | None:
    layer = next((layer for layer in model.layers if layer.name == measured.layer), None)
    batch = None if layer is None else batch_moments(measured, layer)
    return None if layer is None or batch is None else range_factor(layer, batch, 0.0)


def _means_fit(model: Facts, measured: LayerDifference) -> bool:
    """Whether means that are not 0 are those of the data all the same: input in another range would shift them."""
    layer = next((layer for layer in model.layers if layer.name == measured.layer), None)
    if layer is None or layer.mean.values is None or layer.variance.values is None:
        return False
    own = layer.mean.values / np.sqrt(layer.variance.values + (layer.epsilon or 0.0))
    size, shift = (float(np.sqrt(np.mean(np.square(finite(part))))) for part in (own, measured.mean_shift))
    return size >= TELLS and shift <= TELLS * size


def fitting_ranges(model: Facts, factor: float) -> list[str]:
    """Names for --preprocess that put right what the given one makes `factor` times too large; the nearest first."""
    given = _preprocess(model)
    return [trained for is_given, trained in ranges_apart(factor) if is_given == given]


def _preprocess(model: Facts) -> str | None:
    words = model.given.running
    return next((words[at + 1] for at, word in enumerate(words[:-1]) if word == "--preprocess"), None)


def _ranges(model: Facts, factor: float) -> str:
    """Which usual ranges lie so far apart."""
    given = _preprocess(model)
    fitting = fitting_ranges(model, factor)
    if given is not None:
        return f" It was given in {given}; {' or '.join(fitting)} fits." if fitting else ""
    apart = [pair for pair in ranges_apart(factor) if "imagenet-mean" not in pair]  # 0..255, but for an offset
    pairs = [f"{one} to a model of {other}" for one, other in apart]
    return f" That fits input in {' or '.join(pairs[:2])}." if pairs else ""


def _off(comparison: Comparison) -> list[LayerDifference]:
    """Layers that diverge. The first one, which vouches for the data, also where few images would excuse another."""
    wrong, layers = diverging(comparison), each_layer(comparison)
    if not layers or any(layer is layers[0] for layer in wrong):
        return wrong
    chance = layers[0].local_floor / max(comparison.data.batches, 1)
    limit = max(DIVERGES, TIMES_CHANCE * chance if math.isfinite(chance) else math.inf)
    return wrong if layers[0].local_nmse <= limit else [layers[0], *wrong]


def _common_factor(layer: LayerDifference) -> float | None:
    """By which most living channels' batch variances differ from the stored ones; None where they do not agree."""
    ratios = finite(layer.log_variance_ratio)
    telling = ratios[np.abs(ratios) >= TELLS]
    if not telling.size:
        return None
    middle = median(telling)
    alike = float(np.mean(np.abs(telling - middle) <= ALIKE * abs(middle)))
    return math.exp(middle) if abs(middle) >= SCALED and alike >= MOST else None


def _other_range(comparison: Comparison, layer: LayerDifference, factor: float) -> Unlike:
    return Unlike(
        layers=(layer.layer,),
        told=f"The first layer, {layer.layer}, is off by one factor, later layers hardly at all: batch variances "
        f"are {factor:.3g} times the stored ones, as if the input were {math.sqrt(factor):.3g} times as large. "
        "Check --preprocess; if the input is right, its moving variance is wrong by this factor.",
        name=f"batch over stored variance, {layer.layer}",
        value=factor,
        limit=math.exp(SCALED),
        decides=not labels_tell(comparison),
    )


def _everywhere(comparison: Comparison) -> Unlike | None:
    """Layers are off from the first on, no fault of the files explains it, and no label vouches for the data."""
    wrong, layers = _off(comparison), each_layer(comparison)
    if len(wrong) < 2 or wrong[0] is not layers[0]:
        return None
    return Unlike(
        layers=() if len(wrong) >= MOST * len(layers) else tuple(layer.layer for layer in wrong),
        told=f"{len(wrong)} of {many(len(layers), 'layer')} are off, among them {wrong[0].layer}, which sees the "
        "data directly, though values and wiring show no fault: either the data are unlike the training data (other "
        "images, --preprocess, --channel-order), or the statistics belong to other weights or another domain. Labels "
        "would show which: if only train mode is accurate, the model is at fault.",
        name="share of layers that diverge",
        value=len(wrong) / len(layers),
        limit=0.0,
        decides=True,
    )


def _awake(model: Facts, comparison: Comparison) -> Unlike | None:
    """What is lost is lost in channels that were constant in training by their statistics, and vary in these data."""
    stored = {layer.name: layer for layer in model.layers}
    awake = [layer for layer in diverging(comparison) if _constant_once(stored.get(layer.layer), layer)]
    if not awake or len(awake) < len(diverging(comparison)):
        return None
    worst = max(awake, key=lambda layer: layer.local_nmse)
    return Unlike(
        layers=tuple(layer.layer for layer in awake),
        told=f"The error of {worst.layer} lies in channels that were constant in training, by their stored variances "
        f"(most in {listing([str(channel) for channel in worst.worst_channels])}), and vary in these data: either the "
        "data are unlike the training data, or those variances were rounded to 0. Labels would show which.",
        name=f"local NMSE, {worst.layer}",
        value=worst.local_nmse,
        limit=divergence_limit(comparison),
        decides=True,
    )


def _constant_once(layer: Layer | None, measured: LayerDifference) -> bool:
    """Whether all channels that lose most are dead by their stored variance."""
    dead = dead_channels(layer) if layer is not None else np.zeros(0, bool)
    worst = list(measured.worst_channels)
    return bool(worst) and max(worst) < dead.size and bool(np.all(dead[worst]))
