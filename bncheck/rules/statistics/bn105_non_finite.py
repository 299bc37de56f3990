"""BN105 non-finite."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bncheck.facts.findings import Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Vector
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import names
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts


@rule(
    "BN105",
    "non-finite",
    severity=Severity.ERROR,
    needs=Needs.VALUES,
    explained_by=("BN111", "BN208"),
    meaning=Meaning.VALUES_FAULT | Meaning.FITS_NO_DATA,
    ends_gate="the model can only answer NaN or infinity",
    sees="B02 B16 C05 C21",
    sees_too="C08",
)
def check(model: Facts) -> Iterator[Evidence]:
    """A moving mean, moving variance, gamma or beta holds NaN or infinity.

    What it detects
    ---------------
    Any value of a batch norm's four vectors that is not a finite number.

    Why it matters
    --------------
    The channel is NaN in inference, and one layer later everything is. Training does not show it, because it normalises
    with batch statistics; and the moving ones never recover, because NaN stays in an average forever.

    How it decides
    --------------
    Counts NaN and infinity in each vector that was read. NaN in the moving variances of a few layers alone, with
    finite means, points to batches of one value a channel (1x1 feature maps, batch 1): the fused kernel divides by
    m - 1 = 0. NaN everywhere points to a run that diverged.

    Not detected
    ------------
    Values that could not be read, and infinities that arise only while computing (BN305).

    Fix
    ---
    One value a channel: a larger batch per replica, `drop_remainder=True`, or the layer frozen or not fused:

        dataset = dataset.batch(32, drop_remainder=True)
        slim.batch_norm(net, fused=False)

    Then re-estimate: `bncheck repair PATH -o OUT --data images/`. Where gamma or beta are NaN, go back to an earlier
    checkpoint (`bncheck inspect run DIR` names the last good one).

    In PyTorch: find where the first NaN arises, and keep batch norm in float32 under mixed precision:

        torch.autograd.set_detect_anomaly(True)

    Then re-estimate: `torch.optim.swa_utils.update_bn(loader, model)`.

    References
    ----------
    tensorflow#34062, tensorflow#48845, tensorflow/models#5066, tensorflow#15919, keras#9582.
    Failure modes B02, B11, B16, C04, C05, C08, C21.
    """
    bad = [layer for layer in model.layers if not all(map(_finite, _vectors(layer)))]
    if not bad:
        return
    by_role = {
        role: (
            sum(_counts(vector)[0] for layer in bad for vector in _vectors(layer) if vector.role.value == role),
            sum(_counts(vector)[1] for layer in bad for vector in _vectors(layer) if vector.role.value == role),
        )
        for role in ("mean", "variance", "gamma", "beta")
    }
    found = [
        Measurement(name=f"{kind} in {role}", value=count, limit=0, unit="channels")
        for role, counts in by_role.items()
        for kind, count in zip(("NaN", "infinite"), counts, strict=True)
        if count
    ]
    said = ", ".join(f"{item.value} {item.name}" for item in found)
    only_variance = sum(map(sum, by_role.values())) == by_role["variance"][0]
    hint = " Only variances are NaN: did batches hold one value per channel?" if only_variance else ""
    yield Evidence(
        layers=names(bad),
        message=f"NaN or infinity in {many(len(bad), 'layer')} ({said}): {listing(names(bad))}.{hint}",
        location=next(vector.name for vector in _vectors(bad[0]) if not _finite(vector)),
        measurements=tuple(found),
    )


def _vectors(layer: Layer) -> tuple[Vector, ...]:
    return (layer.mean, layer.variance, layer.gamma, layer.beta)


def _finite(vector: Vector) -> bool:
    return vector.bounds is None or all(map(math.isfinite, vector.bounds))


def _counts(vector: Vector) -> tuple[int, int]:
    """(NaN, infinite) values."""
    if vector.values is None:
        return 0, 0
    return int(np.isnan(vector.values).sum()), int(np.isinf(vector.values).sum())


def clean() -> tuple[Facts, ...]:
    """Finite values, however large or small; vectors that are absent."""
    return (
        facts(batch_norm("bn", mean=[1e3, -1e3, 0.1, 0.2], variance=[4e3, 1e-2, 1.0, 3.0])),
        facts(batch_norm("bn", gamma=None, beta=None)),
    )


def broken() -> tuple[Facts, ...]:
    """NaN in a variance alone; infinity in a mean; a run that diverged."""
    nan, inf = float("nan"), float("inf")
    return (
        facts(batch_norm("image_pooling/bn", variance=nan), batch_norm("bn")),
        facts(batch_norm("bn", mean=[0.1, inf, 0.2, 0.3])),
        facts(batch_norm("bn", mean=nan, variance=nan, gamma=nan, beta=nan)),
    )
