"""BN301 output-junk-in-eval."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.data_mismatch import if_data_fit, unlike_training
from bncheck.rules.shared.modes import CAUSES, in_doubt, judged_output, labels_tell
from bncheck.testing import classes_compared, compared, difference, features_compared


@rule(
    "BN301",
    "output-junk-in-eval",
    severity=Severity.ERROR,
    needs=Needs.COMPARISON,
    explained_by=(*CAUSES, "BN305", "BN304", "BN302"),
    meaning=Meaning.OUTPUT_DIFFERS,
    sees_too="A01",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The model does worse with its stored statistics than with those of the batch.

    What it detects
    ---------------
    Outputs that change when batch norm takes its stored statistics instead of the batch's, everything else being
    equal: accuracy falls, classes change, features are off.

    Why it matters
    --------------
    Eval mode is what is served, exported and quantized; a model that only works in train mode is useless.

    How it decides
    --------------
    By the best measure available, over all samples. With labels: accuracy in eval mode more than 3.5 points below that
    in train mode. Without: agreement on the top class 8.5 points below the agreement of train mode with itself when the
    same samples are dealt to other batches. Outputs that are no classes: an error above 0.3 of the signal's energy and
    4 times that of train mode with itself, or above 0.1 and 20 times that; the same goes where train mode gives three
    quarters of the samples one class, for then naming it always looks nearly as good. A gap must also exceed two
    standard errors of so many samples. Where labels tell that eval mode is the better one, or the input is in another
    range than the first layer was trained on (BN304), there is nothing to find. A WARNING of low confidence where there
    are no labels and the data may be at fault (BN304), or no layer is off by itself and the gap is less than twice its
    limit.

    Not detected
    ------------
    Anything on synthetic data, or on too little (BN303). A model that is as wrong in train mode.

    Fix
    ---
    Repair the cause in the training code, and this checkpoint by new statistics:

        bncheck repair PATH -o OUT --data images/

    References
    ----------
    tensorflow#10118, tensorflow#7469, models#391. Failure modes A01 to A19, C01, C19, D01 to D08.
    """
    comparison = model.comparison
    output = None if comparison is None else judged_output(comparison)
    if comparison is None or output is None or not output.junk:
        return
    unlike = unlike_training(model)
    if unlike is not None and unlike.excuses:
        return
    unclear = in_doubt(comparison, output)
    doubtful = unclear or (unlike is not None and unlike.decides)
    certain = labels_tell(comparison)
    told = "The output is junk in eval mode"
    if unclear:
        told = "The output differs in eval mode; only labels would show whether it is worse"
    yield Evidence(
        layers=(),
        message=f"{told}: {output.told}.",
        severity=Severity.WARNING if doubtful else None,
        confidence=Confidence.LOW if doubtful else Confidence.HIGH if certain else Confidence.MEDIUM,
        location=comparison.outputs[0].name if len(comparison.outputs) == 1 else "",
        fix=if_data_fit(unlike, fixes.training_code_and_repair(model, remedies.CAUSE_TOLD)),
        measurements=(Measurement(name=output.name, value=output.value, limit=output.limit),),
    )


def clean() -> tuple[Facts, ...]:
    """Within two points; no labels but agreement; features near the floor; noise made up; as bad in train mode, or
    worse, once with one class for nearly all samples.
    """
    layer = difference()
    return (
        compared(layer, accuracy=(0.949, 0.966)),
        compared(layer, accuracy=(0.949, 0.932), output=classes_compared(0.91)),
        compared(layer),
        compared(layer, output=features_compared()),
        compared(layer, output=classes_compared(0.2), synthetic=True),
        compared(layer, output=classes_compared(0.1), accuracy=(0.91, 0.91)),
        compared(layer, output=classes_compared(0.3), accuracy=(0.569, 0.935)),
        compared(layer, output=classes_compared(0.15, commonest=0.95), accuracy=(0.112, 0.25)),
    )


def broken() -> tuple[Facts, ...]:
    """The story; five points; the same without labels; features; NaN; one class left of two, of which it was most."""
    layer = difference("a", local=0.5)
    return (
        compared(layer, output=classes_compared(0.1), accuracy=(0.909, 0.103)),
        compared(layer, output=classes_compared(0.87), accuracy=(0.949, 0.898)),
        compared(layer, difference("b"), output=classes_compared(0.6)),
        compared(layer, difference("b"), output=features_compared(0.8)),
        compared(layer, output=features_compared(float("nan"))),
        compared(layer, output=classes_compared(0.96, nmse=0.8, commonest=0.96, classes=2), accuracy=(0.985, 0.96)),
    )
