"""BN108 statistics-missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Presence, Role, Vector
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import names
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts


@rule(
    "BN108",
    "statistics-missing",
    severity=Severity.ERROR,
    needs=Needs.VALUES,
    explained_by=("BN209", "BN115"),
    ends_gate="a model cannot run without its statistics",
    sees_too="D01 D02",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The file lacks moving statistics that the model has.

    What it detects
    ---------------
    Layers with a moving mean or variance according to the graph or their gamma and beta, of which the checkpoint holds
    none.

    Why it matters
    --------------
    Restoring it raises an error, or, if the restore is lenient, leaves statistics at their initial values. The trained
    statistics are lost, but a repair can re-estimate them.

    How it decides
    --------------
    Missing is told from absent and from unread: a layer that normalises with batch moments only has none by design,
    and a missing data shard is reported as unread (BN004).

    Not detected
    ------------
    Statistics saved under a name that a restore does not look for, as far as no graph tells that name.

    Fix
    ---
    Moving statistics are variables, but not trainable ones. Save all of them:

        # not tf.trainable_variables()
        saver = tf.train.Saver(tf.global_variables())

    Keras: save the model or all `model.weights`, not `trainable_weights`; of Keras 3 models `tf.train.Checkpoint`
    leaves out layers that are kept in a Python list, `model.save_weights` does not. This checkpoint: take the
    statistics from an older one, or `bncheck repair PATH -o OUT --data images/`.

    In PyTorch: save the buffers too, not `named_parameters()` alone:

        torch.save(model.state_dict(), path)

    This checkpoint: take the statistics from an older one, or `torch.optim.swa_utils.update_bn(loader, model)`.

    In Flax: save both collections, not `params` alone:

        flax.serialization.to_bytes({"params": params, "batch_stats": batch_stats})

    This checkpoint: take the statistics from an older one, or let the net run over training images once more:

        _, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])

    References
    ----------
    skflow#117, SfMLearner#17, google/youtube-8m#55, tflearn#153. Failure modes D01, D02, D03, D06.
    """
    bad = [layer for layer in model.layers if any(_missing(vector) for vector in layer.statistics)]
    if not bad:
        return
    lost = [vector for layer in bad for vector in layer.statistics if _missing(vector)]
    kept = sum(any(vector.presence is Presence.PRESENT for vector in (layer.gamma, layer.beta)) for layer in bad)
    beside = f" It does hold gamma or beta of {kept}: were only trainable variables saved?" if kept else ""
    yield Evidence(
        layers=names(bad),
        message=(
            f"The file holds no {_what(lost)} for {len(bad)} of {many(len(model.layers), 'layer')}: "
            f"{listing(names(bad))}.{beside}"
        ),
        location=lost[0].name,
        measurements=(
            Measurement(name="statistics missing", value=len(lost), limit=0, unit="vectors"),
            Measurement(name="layers concerned", value=len(bad), unit="layers"),
        ),
    )


def _missing(vector: Vector) -> bool:
    return vector.presence is Presence.MISSING


def _what(lost: list[Vector]) -> str:
    roles = {vector.role for vector in lost}
    return " and ".join(f"moving {role.value}" for role in (Role.MEAN, Role.VARIANCE) if role in roles)


def _gone(role: Role) -> Vector:
    return Vector(role=role, presence=Presence.MISSING, name=f"bn/moving_{role.value}", reason="not in the checkpoint")


def _unread(role: Role) -> Vector:
    return Vector(role=role, presence=Presence.UNREAD, name=f"bn/moving_{role.value}", reason="data shard absent")


def clean() -> tuple[Facts, ...]:
    """All there; none by design; not at hand."""
    healthy = batch_norm("bn")
    return (
        facts(healthy),
        facts(batch_norm("batch_only", mean=None, variance=None)),
        facts(replace(healthy, mean=_unread(Role.MEAN), variance=_unread(Role.VARIANCE))),
    )


def broken() -> tuple[Facts, ...]:
    """Only trainable variables were saved; the variance alone is gone."""
    healthy = batch_norm("bn")
    return (
        facts(replace(healthy, mean=_gone(Role.MEAN), variance=_gone(Role.VARIANCE))),
        facts(replace(healthy, variance=_gone(Role.VARIANCE))),
    )
