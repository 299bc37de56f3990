"""BN409 tensors-unmatched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import Precision, Unmatched
from bncheck.facts.wording import listing, many
from bncheck.rules.rule import Needs, rule
from bncheck.testing.quantized import operator_loss, quantized, unmatched

MANY = 0.1
"""Share of the operators from which it is no longer a detail; a guess."""


@rule("BN409", "tensors-unmatched", severity=Severity.WARNING, needs=Needs.QUANTIZED, sees_too="G04")
def check(model: Facts) -> Iterator[Evidence]:
    """Tensors of the float or the quantized file have no counterpart in the other and were not compared.

    What it detects
    ---------------
    Outputs of operators in one file for which the other has none: fused away, renamed, split, or of another model.

    Why it matters
    --------------
    An operator that is not compared may be the one that loses precision: a short list of losses does not mean all is
    well.

    How it decides
    --------------
    Operators are matched by what they read, by their kernels, and by place and shape; names only settle ties. WARNING
    where outputs of the layers of batch norm or more than a tenth of the operators are left; otherwise INFO. So is a
    layer that no operator has as its own, such as one that the converter took into the dense layer behind it: all
    operators were compared then, and what it costs is part of another's loss.

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
    left = [one for one in measured.unmatched if not one.is_layer]
    if not left:
        yield _without_operator(measured.unmatched)
        return
    layers = tuple(dict.fromkeys(one.layer for one in measured.unmatched if one.layer is not None))
    share = len(left) / (len(left) + len(measured.operators))
    counts = Counter(one.side for one in left)
    sides = ", ".join(f"{count} of the {side.value} file" for side, count in counts.items())
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


def _without_operator(layers: Sequence[Unmatched]) -> Evidence:
    """Of layers that are not found though all operators are."""
    first = layers[0]
    has, its = ("has", "its") if len(layers) == 1 else ("have", "their")
    return Evidence(
        layers=tuple(one.name for one in layers),
        message=f"{many(len(layers), 'layer')} {has} no operator of {its} own; all operators were compared: "
        f"{listing([one.name for one in layers])}. {first.name}: {first.why}.",
        severity=Severity.INFO,
        fix=f"None needed: {its} rounding error is part of the operators' it was merged into.",
        measurements=(Measurement(name="layers without an operator", value=len(layers), limit=0, unit="layers"),),
    )


def clean() -> tuple[Facts, ...]:
    """Everything has its counterpart; nothing was quantized."""
    return (quantized(operator_loss()), quantized(operator_loss(), synthetic=True))


def broken() -> tuple[Facts, ...]:
    """A tensor of a layer; many tensors; one among twenty, and a layer taken in, which are told and no more."""
    twenty = [operator_loss(f"conv_{n}") for n in range(20)]
    return (
        quantized(operator_loss("a"), unmatched=(unmatched("b/Relu6", layer="b"),)),
        quantized(operator_loss("a"), unmatched=tuple(unmatched(f"x{n}", side=Precision.QUANTIZED) for n in range(5))),
        quantized(*twenty, unmatched=(unmatched("reshape"),)),
        quantized(operator_loss("dense"), unmatched=(unmatched("b", layer="b", why="the converter took it in"),)),
    )
