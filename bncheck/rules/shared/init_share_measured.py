"""The init share where both modes were run: found in what was measured, refuted by it, or borne by the output."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.wording import percent
from bncheck.numerics.divergence import diverging, each_layer
from bncheck.rules.shared.init_share_fix import forget_and_repair
from bncheck.rules.shared.modes import eval_is_better, judged_output, too_few

if TYPE_CHECKING:
    from bncheck.facts.measurements import Comparison
    from bncheck.numerics.share_from_data import ShareInData

BORNE = 0.1
"""NMSE of every output, and of every layer by itself, up to which a fault of the statistics is borne: 10 dB, as for an
output that batch noise hardly touches (`PLAIN_NMSE`); a guess."""


def share_in_data(model: Facts) -> ShareInData | None:
    """What running the model shows of the share; None where nothing was run, or not enough."""
    comparison = model.comparison
    if comparison is None or comparison.data.synthetic or too_few(comparison):
        return None
    from bncheck.numerics.share_from_data import leftover  # noqa: PLC0415 - start-up

    return leftover(model, each_layer(comparison))


def measured(model: Facts, left: ShareInData) -> Evidence:
    """What running the model shows, whatever is counted: an error where the output is junk for it."""
    from bncheck.numerics.share_from_data import SMALLEST  # noqa: PLC0415 - start-up

    output = None if model.comparison is None else judged_output(model.comparison)
    return Evidence(
        layers=left.layers,
        message=f"{percent(left.share)} of the statistics is still initial value. Without it, the stored variances "
        f"match the data within a factor of {math.exp(left.after):.2f} in the median channel; with it, "
        f"{math.exp(left.before):.3g}. The run was too short for its decay.",
        severity=Severity.ERROR if output is not None and output.junk else Severity.WARNING,
        confidence=Confidence.HIGH,
        fix=forget_and_repair(model),
        measurements=(
            Measurement(name="init share, by the data", value=left.share, limit=SMALLEST),
            Measurement(name="stored over measured variance, median channel", value=math.exp(left.before)),
            Measurement(name="the same, share undone", value=math.exp(left.after)),
        ),
    )


def _good(model: Facts) -> Comparison | None:
    """What was measured, where the output was run on real data and is as good in eval mode as in train mode."""
    output = None if model.comparison is None else judged_output(model.comparison)
    return None if output is None or output.junk else model.comparison


def is_refuted(model: Facts, layers: tuple[str, ...]) -> bool:
    """Whether both modes, run on real data, agree in the layers and at the output, or eval mode is the better one."""
    if eval_is_better(model.comparison):
        return True
    comparison = _good(model)
    if comparison is None:
        return False
    compared = {layer.layer for layer in comparison.layers}
    return compared.issuperset(layers) and not {layer.layer for layer in diverging(comparison)}.intersection(layers)


def is_borne(model: Facts) -> bool:
    """Whether the output, run on real data, is as good in eval mode as in train mode, and no layer is far off."""
    comparison = _good(model)
    if comparison is None:
        return False
    losses = [*(one.nmse for one in comparison.outputs), *(layer.local_nmse for layer in comparison.layers)]
    return all(loss <= BORNE for loss in losses)


def in_the_light_of_data(model: Facts, found: Evidence) -> Evidence:
    """What counters tell: a note where what was measured says otherwise, no error where the output is good."""
    if is_refuted(model, found.layers):
        return replace(
            found,
            message=f"By its counters, {found.message[0].lower()}{found.message[1:]} Yet on these data eval mode does "
            "as well as train mode, so there were more updates than counted.",
            severity=Severity.INFO,
            confidence=Confidence.LOW,
            fix="None needed if these are data like the training data.",
        )
    if found.severity is not Severity.ERROR or not is_borne(model):
        return found
    return replace(
        found,
        message=f"{found.message} On these data the output is unaffected.",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
    )
