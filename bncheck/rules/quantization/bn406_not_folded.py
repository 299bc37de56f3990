"""BN406 not-folded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.lite import Leftover
from bncheck.rules.rule import Needs, rule
from bncheck.testing import folded, leftover, lite

_OTHER_NORM = re.compile(r"(?:layer|group|instance|rms|unit)_?norm", re.IGNORECASE)
_LARGEST_EPSILON = 0.01
"""1 / sqrt(1 + epsilon), the multiplier of a layer at its initial values, lies between 0.995 and 1; none
larger is in use, as far as known."""
_FIX_NEVER = """\
Inspect the source model (BN101, BN201 name the cause), repair it, and convert again:
    bncheck repair PATH -o OUT --data images/"""
_FIX_MOMENTS = """\
Export the model in inference mode (is_training=False, training=False; see BN205, BN220) and convert again."""
_FIX_PERHAPS = """\
None needed if this is preprocessing or scaling. A batch norm on the input has no convolution before it to fold into."""
_ABSORBING = ("FULLY_CONNECTED",)
"""Operators into whose bias the converter can fold an ADD before it while the MUL stays."""


@rule("BN406", "not-folded", severity=Severity.WARNING, needs=Needs.CONVERTED, sees="G03 G10", sees_too="G01")
def check(model: Facts) -> Iterator[Evidence]:
    """A batch norm was not folded into a convolution: the file multiplies and adds per channel instead.

    What it detects
    ---------------
    MUL and ADD (or SUB, DIV) by per-channel constants in a TFLite file or an ONNX model; a lone MUL where a batch
    norm's statistics were never updated; normalisation by the moments of the batch itself.

    Why it matters
    --------------
    A converter folds a batch norm only into the convolution or dense layer right before it. After an activation, a
    pooling or a concatenation it stays: two more passes over the tensor, and once quantized each rounds to 8 bits
    again, over the range of the widest channel. Quantization-aware training often rejects such a layer.

    How it decides
    --------------
    A chain of MUL, DIV, ADD and SUB by constants that vary along the channels only. Sure where the file's names say
    batch norm too; likely behind an activation. Right at the input or output it may as well be preprocessing or
    scaling of the result: a note, unless the names say otherwise. A MUL without an ADD means that mean and beta are
    exactly 0 in every channel; if every factor is 1/sqrt(1 + epsilon) as well (0.995 to 1), or the names say batch
    norm, the statistics were never updated. A MEAN over the batch axis under an RSQRT is batch norm in training mode.
    Exporters to ONNX keep names, so that without one it is a note. Their BatchNormalization nodes are folded by the
    runtime, and are not reported.

    Not detected
    ------------
    Per-channel factors without a sum and without a name that tells (layer scale, gains). Gamma and beta of layer,
    group and instance norm are no batch norm and not reported. A batch norm at its initial values whose gamma never
    moved either leaves nothing behind in current converters. Whether statistics that were folded were right is not
    in the file: inspect the checkpoint or Keras model.

    Fix
    ---
    Put the batch norm right behind the convolution and the activation after it, retrain, convert again:

        x = Conv2D(64, 3, use_bias=False)(x)
        x = BatchNormalization()(x)
        x = ReLU()(x)

    Where a convolution without padding follows, fold forward: `w * scale` per input channel, and `sum(w * shift)` into
    its bias. If the convolution's output is used twice, fold before conversion.

    References
    ----------
    tensorflow/model-optimization#363, tensorflow/model-optimization#1089, google-coral/edgetpu#212, tensorflow#24477,
    tensorflow#25033. TensorFlow, `optimize_patterns.td` and `optimize.cc` (FuseMulAndConv, FuseAddAndConv and others).
    Failure modes G01, G03, G04.
    """
    found = (*(model.lite.leftovers if model.lite else ()), *(model.graph.leftovers if model.graph else ()))
    left = [leftover for leftover in found if not _OTHER_NORM.search(leftover.name)]
    moments = [one for one in left if one.multiplier is None]
    alone = [one for one in left if one.multiplier is not None and one.addend is None]
    pairs = [one for one in left if one.multiplier is not None and one.addend is not None]
    if moments:
        yield Evidence(
            layers=_names(moments),
            message=f"{_several(len(moments))} computed with batch statistics "
            f"({', '.join(moments[0].operators)}): the output for one input depends on the others in its batch.",
            confidence=Confidence.MEDIUM,
            location=moments[0].name,
            fix=_FIX_MOMENTS,
            measurements=(Measurement(name="batch moments in the file", value=len(moments), limit=0),),
        )
    untouched = [one for one in alone if _never_updated(one)]
    if untouched:
        yield Evidence(
            layers=_names(untouched),
            message=f"{_several(len(untouched))} left as a MUL without an ADD, {_after(untouched)}: mean and beta are "
            "exactly 0 in every channel, as in statistics that were never updated.",
            confidence=Confidence.MEDIUM,
            location=untouched[0].name,
            fix=_FIX_NEVER,
            measurements=_counts(untouched),
        )
    sure = [one for one in pairs if one.named or (model.lite is not None and not _may_be_scaling(one))]
    all_named = all(one.named for one in sure)
    if sure:
        yield Evidence(
            layers=_names(sure),
            message=f"{_several(len(sure))} not folded: {' and '.join(sure[0].operators)} remain, "
            f"{_after(sure)}{'' if all_named else ' (recognised by arithmetic, not by name)'}.",
            confidence=Confidence.HIGH if all_named else Confidence.MEDIUM,
            location=sure[0].name,
            measurements=_counts(sure),
        )
    perhaps = [one for one in pairs if one not in sure]
    if perhaps:
        yield Evidence(
            layers=_names(perhaps),
            message=f"{' and '.join(perhaps[0].operators)} per channel, {_after(perhaps)}: preprocessing or scaling, "
            "or a batch norm that cannot be folded there.",
            severity=Severity.INFO,
            confidence=Confidence.LOW,
            location=perhaps[0].name,
            fix=_FIX_PERHAPS,
            measurements=_counts(perhaps),
        )


def _may_be_scaling(one: Leftover) -> bool:
    """At the input, at the output, or of a single channel, the same arithmetic has other uses."""
    return one.after == "" or one.feeds == "" or one.channels == 1


def _never_updated(one: Leftover) -> bool:
    """Whether a lone product is a batch norm with mean 0 and beta 0."""
    if one.multiplier is None or one.feeds in _ABSORBING:
        return False
    first = float(one.multiplier[0])
    lowest = 1 / np.sqrt(1 + _LARGEST_EPSILON)
    initial = one.channels > 1 and bool(np.all(one.multiplier == first)) and lowest <= first <= 1.0
    return one.named or (initial and not _may_be_scaling(one))


def _names(left: Sequence[Leftover]) -> tuple[str, ...]:
    return tuple(one.name for one in left)


def _several(count: int) -> str:
    return "1 batch norm is" if count == 1 else f"{count} batch norms are"


def _place(one: Leftover) -> str:
    if one.after == "":
        return "right at the input"
    if one.feeds == "":
        return f"after {one.after}, right at the output"
    return f"after {one.after}"


def _after(left: Sequence[Leftover]) -> str:
    """Where they stand, each place once: "after CONV_2D + RELU (12), right at the input"."""
    places = [_place(one) for one in left]
    counted = [(place, places.count(place)) for place in dict.fromkeys(places)]
    return ", ".join(place if count == 1 else f"{place} ({count})" for place, count in counted)


def _counts(left: Sequence[Leftover]) -> tuple[Measurement, ...]:
    return (
        Measurement(name="operators left", value=sum(len(one.operators) for one in left), limit=0, unit="operators"),
        Measurement(name="channels", value=sum(one.channels for one in left), unit="channels"),
    )


def clean() -> tuple[Facts, ...]:
    """Models on which the rule must stay silent."""
    return (
        lite(folded()),
        lite(folded(), leftovers=(leftover("model/layer_scale/mul", addend=None),)),
        lite(folded(), leftovers=(leftover("model/layer_normalization/batchnorm/add_1"),)),
        lite(folded(), leftovers=(leftover("model/mul", multiplier=[1.0] * 4, addend=None, after=""),)),
    )


def broken() -> tuple[Facts, ...]:
    """Models on which the rule must speak."""
    return (
        lite(folded(), leftovers=(leftover(),)),
        lite(folded(), leftovers=(leftover("model/add", after="CONCATENATION"),)),
        lite(folded(), leftovers=(leftover("input/add", after=""),)),
        lite(folded(), leftovers=(leftover("model/mul", multiplier=[0.9995] * 4, addend=None),)),
        lite(folded(), leftovers=(leftover(addend=None),)),
        lite(leftovers=(leftover("moments/Rsqrt", multiplier=None, addend=None),)),
    )
