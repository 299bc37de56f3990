"""BN116 statistics-equal-reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import names, never_moved, values_of
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts


@rule(
    "BN116",
    "statistics-equal-reference",
    severity=Severity.WARNING,
    needs=Needs.VALUES | Needs.REFERENCE,
    confidence=Confidence.MEDIUM,
    explained_by=("BN201", "BN202", "BN203", "BN204"),
    sees="C19",
    sees_too="A18 C15",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The moving statistics are identical to the reference checkpoint's: fine-tuning never updated them.

    What it detects
    ---------------
    Layers whose moving mean and variance equal those of the checkpoint given with `--reference`, bit by bit.

    Why it matters
    --------------
    A fine-tune that starts from good statistics hides forgotten updates from BN101: they have moved, but for other
    weights and other data. Training accuracy is high, inference accuracy on the new data low.

    How it decides
    --------------
    Exact equality of both vectors. If all layers are equal although training went on (updates were counted or
    optimizer slots filled), that is a warning; if only some are, or nothing tells of training, a note, for a frozen
    backbone is the usual and rightful case. Layers at their initial values are BN101's.

    Not detected
    ------------
    Statistics that moved a little and then stopped.

    Fix
    ---
    If the layers were meant to learn, wire their updates (`bncheck explain BN201`). If they were frozen on purpose,
    see that training normalised with the stored statistics as well:

        # TF-slim
        slim.batch_norm(net, is_training=False)
        # Keras
        base(x, training=False)

    For data of another kind, re-estimate them: `bncheck repair PATH -o OUT --data images/`.

    In PyTorch: layers that were meant to learn need `model.train()` before every epoch. If they were frozen on purpose,
    keep them in eval mode, and out of the optimizer:

        layer.eval().requires_grad_(False)

    For data of another kind, re-estimate them: `torch.optim.swa_utils.update_bn(loader, model)`.

    References
    ----------
    keras#9214, keras#10045, tensorflow/hub#24, tensorflow/hub#86, arXiv 2105.07576. Failure modes A18, B05, B06, C19.
    """
    if model.reference is None:
        return
    judged = [
        layer
        for layer in model.layers
        if layer.name in model.reference and never_moved(layer) is False and values_of(layer.mean) is not None
    ]
    equal = [layer for layer in judged if _equal(layer, model)]
    if not equal:
        return
    slots = model.run.optimizer_slots is not None and model.run.optimizer_slots[0] > 0
    went_on = slots or (model.run.updates or 0) > 0
    whole = len(equal) == len(judged)
    reading = "although training went on" if whole and went_on else "as in a frozen backbone"
    yield Evidence(
        layers=names(equal),
        message=(
            f"The moving statistics of {len(equal)} of {many(len(judged), 'layer')} are identical to the "
            f"reference's, {reading}: {listing(names(equal))}."
        ),
        severity=Severity.WARNING if whole and went_on else Severity.INFO,
        location=equal[0].mean.name,
        measurements=(
            Measurement(name="layers equal to the reference", value=len(equal), limit=0, unit="layers"),
            Measurement(name="layers compared", value=len(judged), unit="layers"),
        ),
    )


def _equal(layer: Layer, model: Facts) -> bool:
    mean, variance = (model.reference or {})[layer.name]
    return (
        layer.mean.values is not None
        and layer.variance.values is not None
        and np.array_equal(layer.mean.values, mean)
        and np.array_equal(layer.variance.values, variance)
    )


_PUBLISHED = {"a": (np.full(4, 0.5), np.full(4, 2.0)), "b": (np.full(4, 0.5), np.full(4, 2.0))}


def clean() -> tuple[Facts, ...]:
    """No reference; a reference that differs in one value of one layer's mean and the other's variance."""
    return (
        facts(batch_norm("a")),
        facts(
            batch_norm("a", mean=[0.5, 0.5, 0.5, 0.5000001]),
            batch_norm("b", variance=[2.0, 2.0, 2.0, 1.9]),
            reference=_PUBLISHED,
        ),
    )


def broken() -> tuple[Facts, ...]:
    """A fine-tune that updated nothing; a frozen backbone under a new head (a note)."""
    return (
        facts(batch_norm("a"), batch_norm("b"), reference=_PUBLISHED),
        facts(batch_norm("a"), batch_norm("b", mean=0.7), reference=_PUBLISHED),
    )
