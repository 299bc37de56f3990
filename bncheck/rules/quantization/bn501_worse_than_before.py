"""BN501 worse-than-before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import Before, Scores, same_data, scores
from bncheck.facts.wording import percent
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.modes import CAUSES, ERRORS_ALLOWED, TIMES_FLOOR
from bncheck.testing import classes_compared, compared, difference, features_compared

ACCURACY_LOST = 0.005
"""Half a point, which another seed changes too, however many samples there are; a guess."""
AGREEMENT_LOST = {"eval mode": 0.06, "quantized": 0.01}
"""Two healthy models differ by so much: against train mode, whose batches are noise (0.060 in rules/shared/modes);
against one's own float model (1 % on digits)."""
TIMES_ERROR = 2.0
"""3 dB; a guess."""


@rule(
    "BN501",
    "worse-than-before",
    severity=Severity.ERROR,
    needs=Needs.BEFORE,
    explained_by=(*CAUSES, "BN301", "BN302", "BN305"),
)
def check(model: Facts) -> Iterator[Evidence]:
    """The model does worse than the earlier one it is compared with.

    What it detects
    ---------------
    Accuracy, or agreement, or the error of the output where it is no classes, that is worse than that of the model
    given with `gate --against`: in eval mode, and once quantized.

    Why it matters
    --------------
    A model can get worse without any single fault that a rule knows, and accepted faults can get worse.

    How it decides
    --------------
    By the best measure that both models have, on the same data. Accuracy: lower by more than half a point. Agreement
    of eval mode with train mode: by more than 6 points; of quantized with float: by more than 1 point. In each case
    also by more than two standard errors of a difference of two shares of so many samples. Outputs that are no
    classes: twice the error (3 dB), and 4 times what batch noise alone makes. What was measured on other data, or on
    synthetic data, is not compared.

    Not detected
    ------------
    A loss that is smaller than what so few samples can show. Faults that grow without new layers and without any
    effect on the output.

    Fix
    ---
    Compare the findings of the two reports, then the training runs. To accept the new state from now on, give the
    gate the new report:

        bncheck gate PATH --data images/ --output json=accepted.json
        bncheck gate NEXT --data images/ --against accepted.json

    References
    ----------
    Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks (spread between seeds), arXiv 2103.03098.
    """
    before = model.before
    if before is None:
        return
    now = {"eval mode": (scores(model.comparison), before.modes)}
    now["quantized"] = (scores(model.quantized), before.quantized)
    lost = [
        loss
        for what, (new, old) in now.items()
        if new is not None and old is not None and same_data(new, old)
        for loss in _lost(what, new, old, _floor(model) if what == "eval mode" else 0.0)
    ]
    if not lost:
        return
    yield Evidence(
        layers=(),
        message=f"Worse than {before.path}: {'; '.join(loss.told for loss in lost)}.",
        measurements=tuple(Measurement(name=loss.name, value=loss.value, limit=loss.limit) for loss in lost),
    )


@dataclass(frozen=True, kw_only=True)
class _Loss:
    told: str
    name: str
    value: float
    limit: float


def _lost(what: str, new: Scores, old: Scores, floor: float) -> Iterator[_Loss]:
    if new.accuracy is not None and old.accuracy is not None:
        yield from _of_share(f"accuracy in {what}", new.accuracy, old.accuracy, new.samples, ACCURACY_LOST)
    elif new.agreement is not None and old.agreement is not None:
        reference = "train mode" if what == "eval mode" else "float"
        name = f"agreement of {what} with {reference}"
        yield from _of_share(name, new.agreement, old.agreement, new.samples, AGREEMENT_LOST[what])
    elif new.nmse is not None and old.nmse is not None and new.agreement is None and old.agreement is None:
        limit = max(TIMES_ERROR * old.nmse, TIMES_FLOOR * floor)
        if not new.nmse <= limit:
            told = f"output error in {what} {percent(new.nmse)}, before {percent(old.nmse)}"
            yield _Loss(told=told, name=f"NMSE of the output in {what}", value=new.nmse, limit=limit)


def _of_share(name: str, new: float, old: float, samples: int, allowed: float) -> Iterator[_Loss]:
    error = math.sqrt((new * (1 - new) + old * (1 - old)) / samples)
    limit = max(allowed, ERRORS_ALLOWED * error)
    if not old - new <= limit:
        yield _Loss(
            told=f"{name} {percent(new)}, before {percent(old)} ({samples:,} samples)",
            name=f"{name}, lost",
            value=old - new,
            limit=limit,
        )


def _floor(model: Facts) -> float:
    output = None if model.comparison is None or not model.comparison.outputs else model.comparison.outputs[0]
    return 0.0 if output is None or output.floor is None else output.floor


def _against(model: Facts, **old: Any) -> Facts:
    """The facts, held against an earlier model that was measured on the same data."""
    measured = scores(model.comparison)
    assert measured is not None
    return replace(model, before=Before(path="old.ckpt", modes=replace(measured, **old)))


def clean() -> tuple[Facts, ...]:
    """As good as before; better; worse by what so few samples tell anyway; agreement and error likewise; other data."""
    layer = difference()
    accurate = compared(layer, accuracy=(0.95, 0.94))
    return (
        _against(accurate),
        _against(accurate, accuracy=0.80),
        _against(accurate, accuracy=0.95),
        _against(compared(layer, output=classes_compared(0.93)), agreement=0.97),
        _against(compared(layer, output=features_compared(0.05)), nmse=0.03),
        _against(replace(accurate, before=None), accuracy=0.99, samples=7),
    )


def broken() -> tuple[Facts, ...]:
    """Twelve points of accuracy lost; agreement lost; the output's error many times what it was; NaN."""
    layer = difference()
    return (
        _against(compared(layer, accuracy=(0.95, 0.82)), accuracy=0.94),
        _against(compared(layer, output=classes_compared(0.70)), agreement=0.96),
        _against(compared(layer, output=features_compared(0.4)), nmse=0.02),
        _against(compared(layer, output=features_compared(float("nan"))), nmse=0.02),
    )
