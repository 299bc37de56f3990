"""BN409 tensors-unmatched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bncheck.finding import Evidence, Measurement, Severity
from bncheck.model import Facts
from bncheck.rules._rule import Needs, rule
from bncheck.rules._statistics import listing, many
from bncheck.testing_quantized import operator_loss, quantized, unmatched

MANY = 0.1
"""Share of the operators from which it is no longer a detail."""


@rule("BN409", "tensors-unmatched", severity=Severity.WARNING, needs=Needs.QUANTIZED)
def check(model: Facts) -> Iterator[Evidence]:
    """Tensors of the float or the quantized file have no counterpart in the other, and were not compared.

    What it detects
    ---------------
    Outputs of operators in one file for which the other has none: fused away, renamed, split, or of another model.

    Why it matters
    --------------
    An operator that is not compared may be the one that loses precision: a short list of losses is not a clean one.

    How it decides
    --------------
    Tensors are matched by name, by what the converter makes of names when it fuses, and by place and shape. WARNING
    where the layers of batch norm or more than a tenth of the operators are left; otherwise INFO.

    Not detected
    ------------
    A counterpart that is the wrong one: names, shapes and place agree, and the numbers tell.

    Fix
    ---
    Give the quantized file that was converted from this model, with the same converter; or leave `--quantized` out, and
    bncheck converts the model itself:

        bncheck compare float-vs-quantized PATH --data images/ --scheme int8

    References
    ----------
    tensorflow#31877, tensorflow#27522, tensorflow#19530. Failure mode G04.
    """
    measured = model.quantized
    if measured is None or not measured.unmatched:
        return
    left = measured.unmatched
    layers = tuple(dict.fromkeys(one.layer for one in left if one.layer is not None))
    share = len(left) / (len(left) + len(measured.operators))
    counts = Counter(one.side for one in left)
    sides = ", ".join(f"{count} of the {side} file" for side, count in counts.items())
    why = listing(list(dict.fromkeys(one.why for one in left)), 2)
    yield Evidence(
        layers=layers,
        message=f"{many(len(left), 'tensor')} could not be compared ({sides}), such as "
        f"{listing([one.name for one in left])}: {why}.",
        severity=Severity.WARNING if layers or share > MANY else Severity.INFO,
        location=left[0].name,
        measurements=(
            Measurement(name="tensors unmatched", value=len(left), limit=0, unit="tensors"),
            Measurement(name="share of the operators", value=share, limit=MANY),
        ),
    )


def clean() -> tuple[Facts, ...]:
    """Everything has its counterpart; nothing was quantized."""
    return (quantized(operator_loss()), quantized(operator_loss(), synthetic=True))


def broken() -> tuple[Facts, ...]:
    """A layer of the model; many tensors; one among twenty, which is told and no more."""
    twenty = [operator_loss(f"conv_{n}") for n in range(20)]
    return (
        quantized(operator_loss("a"), unmatched=(unmatched("b/Relu6", layer="b"),)),
        quantized(operator_loss("a"), unmatched=tuple(unmatched(f"x{n}", side="quantized") for n in range(5))),
        quantized(*twenty, unmatched=(unmatched("reshape"),)),
    )
