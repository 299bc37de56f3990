"""BN305 non-finite-activation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import LayerDifference
from bncheck.facts.wording import many
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.modes import FEWEST_VALUES
from bncheck.testing import classes_compared, compared, difference, features_compared


@rule(
    "BN305",
    "non-finite-activation",
    severity=Severity.ERROR,
    needs=Needs.COMPARISON,
    explained_by=("BN105", "BN106", "BN111", "BN110"),
    sees_too="B02",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Running the model gives NaN or infinity.

    What it detects
    ---------------
    Layers whose batch moments or outputs, and outputs of the model whose values, are not finite, in either mode.

    Why it matters
    --------------
    One NaN spreads to every later layer; a quantizer calibrated on it gets meaningless ranges.

    How it decides
    --------------
    Values that are not finite are counted, never replaced. The first layer in forward order is where they come from;
    those behind it inherit them.

    Not detected
    ------------
    Values that overflow only on other data. Layers with a single value a channel and batch, whose variance is none
    (BN303).

    Fix
    ---
    Look at the statistics, gamma and beta of the first layer named; data that hold NaN themselves are refused before.
    Non-finite or negative statistics are re-estimated by:

        bncheck repair PATH -o OUT --data images/

    References
    ----------
    tensorflow#34062, tensorflow#5199, keras#11927. Failure modes B02, C05, C08.
    """
    comparison = model.comparison
    if comparison is None:
        return
    found = [layer for layer in comparison.layers if layer.non_finite and layer.samples >= min(2, FEWEST_VALUES)]
    outputs = [output for output in comparison.outputs if math.isnan(output.cosine)]
    if found:
        first = found[0]
        behind = f", and {many(len(found) - 1, 'layer')} after it" if len(found) > 1 else ""
        sums = f"{many(first.non_finite, 'sum')} of {first.layer} {'is' if first.non_finite == 1 else 'are'}"
        yield Evidence(
            layers=tuple(dict.fromkeys(layer.layer for layer in found)),
            message=f"{sums} NaN or infinite{behind}.",
            fix=_fix(model, first),
            measurements=(Measurement(name=f"non-finite sums, {first.layer}", value=first.non_finite, limit=0),),
        )
    elif outputs:
        names = ", ".join(output.name for output in outputs)
        yield Evidence(
            layers=(),
            message=f"The output holds NaN or infinity, though no batch norm layer does: {names}.",
            location=outputs[0].name,
            measurements=(Measurement(name="outputs that are not finite", value=len(outputs), limit=0),),
        )


def _fix(model: Facts, first: LayerDifference) -> str:
    """New statistics help where the stored ones are no numbers, and not where NaN arrives with those of the batch."""
    stored = next((layer for layer in model.layers if layer.name == first.layer), None)
    values = [] if stored is None else [v.values for v in stored.statistics if v.values is not None]
    arrives = not np.all(np.isfinite(first.log_variance_ratio)) and not np.all(np.isfinite(first.mean_shift))
    if arrives and values and all(np.all(np.isfinite(each)) for each in values):
        return (
            f"The stored statistics of {first.layer} are finite, and batch statistics give NaN too: it comes from a "
            "kernel, gamma or beta before it. New statistics do not help; go back to an earlier checkpoint (`bncheck "
            "inspect run DIR` checks a whole folder)."
        )
    return f"This checkpoint, if its statistics are the cause:\n{fixes.indented(fixes.repair(model))}"


def clean() -> tuple[Facts, ...]:
    """Finite; a single value a channel."""
    return (
        compared(difference("a"), difference("b", local=0.004)),
        compared(difference("a", non_finite=4, samples=1)),
    )


def broken() -> tuple[Facts, ...]:
    """A layer and what is behind it; an output alone; made-up data show it too."""
    return (
        compared(difference("a"), difference("b", non_finite=3), difference("c", non_finite=9)),
        compared(difference("a"), output=features_compared(float("nan"))),
        compared(difference("a", non_finite=1), output=classes_compared(0.1), synthetic=True),
    )
