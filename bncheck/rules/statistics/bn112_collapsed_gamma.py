"""BN112 collapsed-gamma."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import names, values_of
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts

SMALL = 1e-3
"""|gamma| below which a channel passes on nothing, in the units of its output (FAILURE_MODES, C17)."""
PART = 0.5
"""Part of a layer's channels from which the layer is starved; a guess."""


@rule(
    "BN112", "collapsed-gamma", severity=Severity.WARNING, needs=Needs.VALUES, confidence=Confidence.MEDIUM, sees="C17"
)
def check(model: Facts) -> Iterator[Evidence]:
    """Most of a layer's gammas have shrunk to nothing, which switches its channels off.

    What it detects
    ---------------
    Layers in half or more of whose channels |gamma| is below 1e-3.

    Why it matters
    --------------
    Such a channel always outputs its beta. The model computes and ships what it does not use, and the rest of gamma is
    quantized to nothing. Weight decay on gamma can do this unintentionally.

    How it decides
    --------------
    Gammas that are small but not zero shrank under a regulariser: a warning. Gammas of exactly 0 were pruned on
    purpose: a note. A gamma that never moved is its initial value (zero for the last batch norm of a residual block)
    and says nothing. Fewer than half of the channels are no finding: Chiron is healthy with up to 15 % of them.

    Not detected
    ------------
    Regularisation of gamma that has not shrunk it yet; BN210 sees it in the graph.

    Fix
    ---
    Keep gamma and beta out of weight decay, and retrain; or prune the channels:

        decayed = [v for v in tf.trainable_variables() if "BatchNorm" not in v.name]
        loss += weight_decay * tf.add_n([tf.nn.l2_loss(v) for v in decayed])

    In PyTorch: keep vectors out of weight decay, and retrain; or prune the channels:

        groups = [
            {"params": [p for p in model.parameters() if p.ndim > 1]},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups)

    References
    ----------
    tensorflow/models#2755, keras#6818, arXiv 1708.06519 (pruning by gamma). Failure modes C16, C17.
    """
    for layers, severity, reading in (
        ([x for x in model.layers if _part(x, zero=False) >= PART], Severity.WARNING, "below 1e-3 but not zero"),
        ([x for x in model.layers if _part(x, zero=True) >= PART], Severity.INFO, "exactly 0, as pruning leaves them"),
    ):
        if layers:
            zero = severity is Severity.INFO
            worst = max(layers, key=lambda layer: _part(layer, zero=zero))
            yield Evidence(
                layers=names(layers),
                message=(
                    f"At least half of the gammas of {many(len(layers), 'layer')} are {reading} (most in {worst.name}, "
                    f"{100 * _part(worst, zero=zero):.0f} %): {listing(names(layers))}."
                ),
                severity=severity,
                location=worst.gamma.name,
                measurements=(
                    Measurement(name="largest part of a layer's gammas", value=_part(worst, zero=zero), limit=PART),
                ),
            )


def _part(layer: Layer, *, zero: bool) -> float:
    """Part of the gammas that is exactly zero, or small without being zero; 0 where gamma is unread or never moved."""
    values = values_of(layer.gamma)
    bounds = layer.gamma.bounds
    if values is None or bounds is None or bounds[0] >= SMALL or not layer.gamma.moved:
        return 0.0
    chosen = values == 0 if zero else (values != 0) & (np.abs(values) < SMALL)
    return float(chosen.mean())


def clean() -> tuple[Facts, ...]:
    """Ordinary gammas; a few small ones, as in Chiron; none at all."""
    return (
        facts(batch_norm("bn")),
        facts(batch_norm("bn", gamma=[0.9, 4e-4, 1.1, 0.8])),
        facts(batch_norm("bn", gamma=None)),
    )


def broken() -> tuple[Facts, ...]:
    """Shrunk by weight decay; pruned (a note)."""
    return (
        facts(batch_norm("bn", gamma=[3e-5, -2e-9, 0.9, 4e-4])),
        facts(batch_norm("bn", gamma=[0.0, 0.0, 0.0, 1.1])),
    )
