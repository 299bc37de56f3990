"""BN118 frozen-weights-drifting-statistics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bncheck.facts import remedies
from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import names, never_moved
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import in_framework, made_with
from bncheck.testing import batch_norm, facts

_TINY = 1e-12
"""In place of a variance of 0, so that a shift can be told in deviations."""


@rule(
    "BN118",
    "frozen-weights-drifting-statistics",
    severity=Severity.WARNING,
    needs=Needs.VALUES | Needs.REFERENCE,
    sees="B05",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Weights equal the reference checkpoint's but the moving statistics do not: only half was frozen.

    What it detects
    ---------------
    Layers whose gamma, beta and kernel before are bit for bit those of the checkpoint given with `--reference`, while
    moving mean or variance changed.

    Why it matters
    --------------
    Freezing weights (`tf.stop_gradient`, `var_list`, in Keras 1 and 2.0 `trainable=False`) usually means to keep the
    whole network. In train mode its statistics still follow the new data, so in eval mode its features are no longer
    those of the pretrained network: whatever else reads them (another head, a target network, the old task) gets other
    numbers, though no weight has changed.

    How it decides
    --------------
    Equality of gamma and beta, and of maximum, mean and root mean square of the kernel in every channel; any
    difference of the statistics. Layers that never moved (BN101), and copies that `bncheck repair` wrote, are left
    out. Equal statistics under other weights are BN116's.

    Not detected
    ------------
    Whether the drift is meant: gathering new statistics for new data under fixed weights is a method (AdaBN).

    Fix
    ---
    Freeze the statistics with the weights: eval mode for these layers, in training as well:

        {EVAL_MODE_FROZEN}

    References
    ----------
    tensorpack#296, keras#9214, keras#10045, tensorflow/hub#86, arXiv 1603.04779. Failure mode B05.
    """
    judged = [layer for layer in model.layers if layer.name in (model.reference or {}) and never_moved(layer) is False]
    same = [layer for layer in judged if model.reference_weights.get(layer.name)]
    found = {layer.name: moved for layer in same if (moved := _moved(layer, model)) > 0}
    layers = [layer for layer in same if layer.name in found]
    if not layers:
        return
    most = max(layers, key=lambda layer: found[layer.name])
    yield Evidence(
        layers=names(layers),
        message=f"Gamma, beta and kernel of {many(len(layers), 'layer')} of {len(judged)} are identical to the "
        f"reference's, but the moving statistics drifted: {listing(names(layers))}. The mean moved by up to "
        f"{found[most.name]:.2g} of the reference's standard deviations ({most.name}).",
        location=most.mean.name,
        fix=fixes.training_code(
            in_framework(remedies.EVAL_MODE_FROZEN, made_with(model, layers)),
            note="to keep the layers as they were",
        ),
        measurements=(
            Measurement(
                name="layers of the reference's weights and other statistics", value=len(layers), limit=0, unit="layers"
            ),
            Measurement(name="layers compared", value=len(judged), unit="layers"),
            Measurement(name="largest shift of a mean", value=found[most.name], unit="deviations"),
        ),
    )


def _moved(layer: Layer, model: Facts) -> float:
    """How far the mean moved, in deviations of the reference; above 0 too where only the variance did."""
    mean, variance = (model.reference or {})[layer.name]
    here = layer.mean.values, layer.variance.values
    if here[0] is None or here[1] is None or here[0].shape != mean.shape or here[1].shape != variance.shape:
        return 0.0
    if np.array_equal(here[0], mean) and np.array_equal(here[1], variance):
        return 0.0
    with np.errstate(all="ignore"):
        shift = np.abs(here[0] - mean) / np.sqrt(np.maximum(variance, _TINY))
    return max(float(np.max(shift, where=np.isfinite(shift), initial=0.0)), _TINY)


_PUBLISHED = {"a": (np.full(4, 0.5), np.full(4, 2.0)), "b": (np.full(4, 0.5), np.full(4, 2.0))}


def clean() -> tuple[Facts, ...]:
    """No reference; statistics and weights that both moved; weights not at hand."""
    moved = batch_norm("a", mean=0.7)
    return (
        facts(moved),
        facts(moved, reference=_PUBLISHED, reference_weights={"a": False}),
        facts(moved, reference=_PUBLISHED),
    )


def broken() -> tuple[Facts, ...]:
    """A frozen backbone, all of whose statistics moved; one of two layers."""
    a, b = batch_norm("a", mean=0.7), batch_norm("b", mean=0.6)
    return (
        facts(a, b, reference=_PUBLISHED, reference_weights={"a": True, "b": True}),
        facts(a, b, reference=_PUBLISHED, reference_weights={"a": False, "b": True}),
    )
