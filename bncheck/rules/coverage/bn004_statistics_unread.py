"""BN004 statistics-unread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.formats import FileKind
from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Facts, Layer, Presence, RunFacts
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts, graph_facts, unread, wired


@rule("BN004", "statistics-unread", severity=Severity.WARNING, needs=Needs.NOTHING)
def check(model: Facts) -> Iterator[Evidence]:
    """Statistics exist whose values could not be read, so they were judged only in part or not at all.

    What it detects
    ---------------
    Moving means and variances that the checkpoint declares and whose data are missing: an absent shard, an index
    without data, a type that is not read.

    Why it matters
    --------------
    A pass says nothing about values that were not read. With only an index, "never moved" is still decided exactly,
    from each tensor's checksum; sizes, init share and dead channels stay unknown.

    How it decides
    --------------
    Only where a checkpoint was given. INFO where checksums decided whether the statistics moved, WARNING where not
    even that is known. Statistics that the file ought to hold and does not are a fault of their own (BN108).

    Not detected
    ------------
    Damage inside the data: a checksum that does not match ends the run with exit code 2 instead.

    Fix
    ---
    Put the data shards beside the index, under the same prefix:

        # .index, .meta and every .data-*-of-*
        gsutil cp "gs://bucket/run/model.ckpt-300.*" run/
        bncheck inspect checkpoint run/model.ckpt-300

    This holds alike for checkpoints of TF-slim, tf.layers and Keras (`variables/variables.data-*` of a SavedModel).

    References
    ----------
    DESIGN section 4, "index only". Failure modes D01, D06 are what an unread statistic may hide.
    """
    if not model.run.values:
        return
    partly = [layer for layer in model.layers if _unread(layer) and layer.moved is not None]
    unknown = [layer for layer in model.layers if _unread(layer) and layer.moved is None]
    if partly:
        yield _evidence(
            partly,
            model,
            Severity.INFO,
            "Checksums show whether they moved (BN101, BN102), but not sizes, dead channels or init share.",
        )
    if unknown:
        yield _evidence(unknown, model, Severity.WARNING, "Whether they ever moved is unknown, too.")
    known = {vector.name for layer in model.layers for vector in layer.statistics}
    others = [gap for gap in model.gaps if gap.kind is GapKind.STATISTICS and gap.where not in known]
    if others:
        yield Evidence(
            layers=(),
            message=f"{many(len(others), 'statistic')} could not be read ({others[0].why}): "
            f"{quoted(gap.where for gap in others)}.",
            location=others[0].where,
            fix=others[0].how,
            measurements=(Measurement(name="statistics unread", value=len(others), limit=0, unit="vectors"),),
        )


def _unread(layer: Layer) -> bool:
    return any(vector.presence is Presence.UNREAD for vector in layer.statistics)


def _evidence(layers: list[Layer], model: Facts, severity: Severity, rest: str) -> Evidence:
    vectors = [v for layer in layers for v in layer.statistics if v.presence is Presence.UNREAD]
    reason = next((v.reason for v in vectors if v.reason), "they are missing")
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"The values of {len(layers)} of {many(len(model.layers), 'layer')} were not read: {reason}. {rest}",
        severity=severity,
        location=vectors[0].name,
        fix="" if model.format.kind is not FileKind.ONNX else "Judge the model that this was exported from.",
        measurements=(Measurement(name="statistics unread", value=len(vectors), limit=0, unit="vectors"),),
    )


def clean() -> tuple[Facts, ...]:
    """All values read; a graph alone, of which nobody expects values."""
    layer = wired(batch_norm("bn"))
    alone = facts(unread(layer), graph=graph_facts(layer), run=RunFacts())
    return (facts(batch_norm("bn")), alone)


def broken() -> tuple[Facts, ...]:
    """An index without its data, decided by checksum; a layer in an absent shard; a gap of no known layer."""
    gap = Gap(kind=GapKind.STATISTICS, where="bn_2/moving_variance", why="is of type bfloat16 with unknown layout")
    return (
        facts(index_only(batch_norm("bn")), run=RunFacts(values=True, index_only=True)),
        facts(batch_norm("a"), unread(batch_norm("b"), "data shard 1 of 2 is absent")),
        facts(batch_norm("bn"), gaps=(gap,)),
    )


def index_only(layer: Layer) -> Layer:
    """`layer` as an index tells it: never constant by its checksums, its values absent."""
    held = unread(layer, "only the index was given")
    return replace(
        held,
        mean=replace(held.mean, constant_checked=True, constant=layer.mean.constant),
        variance=replace(held.variance, constant_checked=True, constant=layer.variance.constant),
    )
