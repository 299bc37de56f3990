"""BN304 data-unlike-training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.data_mismatch import NOT_TRAINED, Unlike, fitting_ranges, unlike_training
from bncheck.rules.shared.other_input import other_input
from bncheck.testing import batch_norm, classes_compared, compared, difference, untouched


@rule(
    "BN304",
    "data-unlike-training",
    severity=Severity.WARNING,
    needs=Needs.COMPARISON,
    confidence=Confidence.MEDIUM,
    meaning=Meaning.UNDECIDED | Meaning.OTHER_DATA,
    sees_too="B13 C19",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The data seem unlike those the model was trained on.

    What it detects
    ---------------
    Input in another range than the first layer expects; statistics that fit the data nowhere although neither values
    nor wiring show a fault; labels that train mode does not meet.

    Why it matters
    --------------
    Stored statistics are those of the training data. On other data the two modes differ in a healthy model too.

    How it decides
    --------------
    Another copy's input: a repaired model says beside it of which input its statistics are; the data's deviation is
    1.5 times as large or small, or their mean more than a deviation off. A note where eval mode is fine on them.
    Another range: the batch variances of most channels of the first layer are the stored ones times one factor, that
    of input at least 1.5 times as large or small, its means are off too, and most other layers do not have that factor:
    whatever the output is, the model is not accused of it. Or the factor is smaller and at most a fifth of the other
    layers are off. Without labels also: the first layer is off, alone or with others; or what layers lose they lose
    in channels that were dead in training by their stored variances. Labels: neither mode meets more than twice
    those that chance would; were all one lower or higher, train mode may. A model that is not trained yet, as BN101
    notes, is said to be that. All but the last only where the output is junk, and no rule on values or wiring
    reports an error. The verdict is then inconclusive unless something else fails, as BN301 does where train mode
    meets the labels.

    Not detected
    ------------
    Data that differ a little: other cameras, other crops.

    Fix
    ---
    Give what the model was trained on, in its range and channel order, best with labels:

        bncheck compare train-vs-eval PATH --data images/ --preprocess -1..1 --channel-order rgb --labels folders

    References
    ----------
    arXiv 1603.04779, arXiv 2006.16971. Failure modes B13, C19.
    """
    unlike = unlike_training(model)
    if unlike is not None:
        yield Evidence(
            severity=None if unlike.decides or not other_input(model) else Severity.INFO,
            layers=unlike.layers,
            message=unlike.told,
            fix=_FIX_OF_COPY if other_input(model) else _fix_of(model, unlike),
            measurements=(Measurement(name=unlike.name, value=unlike.value, limit=unlike.limit),),
        )


_FIX_OF_COPY = (
    "Give the data in the range the copy was repaired for (--preprocess). If the model is served on data like "
    "these, repair the original with them."
)


def _fix_of(model: Facts, unlike: Unlike) -> str:
    return _range_fix(model, unlike.factor) if unlike.factor is not None else _fix(model, unlike)


def _range_fix(model: Facts, factor: float) -> str:
    """The same run in the range that fits, or what to do to numbers that are taken as they are."""
    fitting = fitting_ranges(model, factor)
    if fitting:
        command = fixes.compare(fixes.without(model, "--preprocess"), "--preprocess", fitting[0])
        return f"Give the data in the range the model was trained on:\n{fixes.indented(command)}"
    change = f"divided by {factor:.3g}" if factor > 1 else f"multiplied by {1 / factor:.3g}"
    return (
        f"Give the data in the range the model was trained on: roughly these, {change}, up to an offset "
        "(--preprocess scales bytes). If the model was trained on these data, the moving variance of its first layer "
        "is wrong by that factor."
    )


def _fix(model: Facts, unlike: Unlike) -> str:
    """The same run with what may be missing; arrays are taken as they are, but for their labels."""
    if unlike is NOT_TRAINED:
        return "Train it, then compare."
    if unlike.fix:
        return unlike.fix
    arrays = (model.given.data or "").endswith((".npz", ".npy"))
    labelled = model.comparison is not None and model.comparison.data.labelled
    labels = () if labelled else ("--labels", "labels.npy" if arrays else "folders")
    images = () if arrays else ("--preprocess", "-1..1", "--channel-order", "bgr")
    command = fixes.compare(model, *images, *labels)
    return f"Give training data in their range and channel order, ideally with labels:\n{fixes.indented(command)}"


_DOUBLED = np.log(np.array([4.0, 4.1, 3.9, 4.0]))


def clean() -> tuple[Facts, ...]:
    """A fine output whatever the first layer; a fault of the files; another layer; made up; labels that are met."""
    first = difference("a", local=0.3, log_variance_ratio=_DOUBLED)
    uneven = difference("a", local=0.3, log_variance_ratio=np.array([2.0, -1.0, 0.3, 0.0]))
    junk = classes_compared(0.3)
    wrong = [replace(first, layer=name, log_variance_ratio=uneven.log_variance_ratio) for name in "ab"]
    return (
        compared(first),
        compared(*wrong, output=junk, layers=[untouched("a"), untouched("b")]),
        compared(difference("a"), difference("b", local=0.3, log_variance_ratio=_DOUBLED), output=junk),
        compared(first, output=junk, synthetic=True),
        compared(uneven, difference("b", local=0.3), output=junk, accuracy=(0.9, 0.3)),
    )


def broken() -> tuple[Facts, ...]:
    """Images twice as large; only the first layer; the first and others; other labels; dead channels awake."""
    first = difference("a", local=0.3, log_variance_ratio=_DOUBLED)
    uneven = difference("a", local=0.3, log_variance_ratio=np.array([2.0, -1.0, 0.3, 0.0]))
    rest = [difference(name) for name in "bcdef"]
    asleep = batch_norm("b", variance=[0.0, 1.0, 0.5, 2.0])
    awake = difference("b", local=0.8, worst_channels=(0,))
    return (
        compared(first, *rest, output=classes_compared(0.3), accuracy=(0.9, 0.3)),
        compared(uneven, *rest, output=classes_compared(0.3)),
        compared(uneven, difference("b", local=0.3), output=classes_compared(0.3)),
        compared(difference("a"), accuracy=(0.06, 0.05)),
        compared(difference("a"), awake, output=classes_compared(0.3), layers=[batch_norm("a"), asleep]),
    )
