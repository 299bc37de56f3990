"""BN002 layer-not-understood."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Facts
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts


@rule(
    "BN002",
    "layer-not-understood",
    severity=Severity.WARNING,
    confidence=Confidence.MEDIUM,
    needs=Needs.NOTHING,
    sees="E09",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Something looks like batch norm but could not be recognised, so it was not judged.

    What it detects
    ---------------
    Places where recognition saw part of a batch norm (moments, a reciprocal root with an epsilon, a lone moving
    variance, a custom Keras class) and could not complete it.

    Why it matters
    --------------
    A pass only covers the layers that were judged, not these.

    How it decides
    --------------
    Each such place is reported by recognition together with why; one finding for each reason.

    Not detected
    ------------
    Batch norm that leaves no trace that bncheck knows, such as a custom op.

    Fix
    ---
    Nothing has to be wrong. To have it judged, give more evidence (`--graph META` beside a bare checkpoint, the
    `.keras` file instead of weights only), or use a stock layer, which every converter understands too:

        # TF-slim
        net = slim.batch_norm(net, is_training=is_training)
        # tf.layers
        net = tf.layers.batch_normalization(net, training=is_training)
        # Keras
        x = tf.keras.layers.BatchNormalization()(x)

    If it is no batch norm: `--ignore BN002`, or an ignore with a reason in `[tool.bncheck]`.

    References
    ----------
    keras-resnet#46, Keras_object_detection#9 (custom subclasses). Failure modes E09, F08; P4.
    """
    for why, gaps in _by_reason(model).items():
        places = list(dict.fromkeys(gap.where for gap in gaps))
        how = next((gap.how for gap in gaps if gap.how), "")
        yield Evidence(
            layers=tuple(layer.name for layer in model.layers if layer.name in places),
            message=f"{many(len(places), 'place')} may hold batch norm and {_was(places)} not judged: {why}: "
            f"{quoted(places)}.",
            location=places[0],
            fix=how,
            measurements=(Measurement(name="places not understood", value=len(places), limit=0, unit="places"),),
        )


def _was(places: list[str]) -> str:
    return "was" if len(places) == 1 else "were"


def _by_reason(model: Facts) -> dict[str, list[Gap]]:
    reasons: dict[str, list[Gap]] = {}
    for gap in model.gaps:
        if gap.kind is GapKind.LAYER:
            reasons.setdefault(gap.why, []).append(gap)
    return reasons


def clean() -> tuple[Facts, ...]:
    """Everything understood; a gap of another kind."""
    other = Gap(kind=GapKind.STATISTICS, where="bn/moving_mean", why="data shard 1 of 2 is absent")
    return (facts(batch_norm("bn")), facts(batch_norm("bn"), gaps=(other,)))


def broken() -> tuple[Facts, ...]:
    """Axes that the graph computes, at two places; a variance without a mean."""
    axes = tuple(
        Gap(kind=GapKind.LAYER, where=f"norm_{n}/add_1", why="normalises over axes that the graph computes")
        for n in range(2)
    )
    lone = Gap(kind=GapKind.LAYER, where="head/running_var", why="a moving variance without a moving mean")
    return (facts(batch_norm("bn"), gaps=axes), facts(batch_norm("bn"), gaps=(lone,)))
