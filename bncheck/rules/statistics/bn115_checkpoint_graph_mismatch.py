"""BN115 checkpoint-graph-mismatch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import Facts, GraphFacts, Layer, Presence, Purpose, Role, RunFacts, Vector
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import names
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts, graph_facts, wired

STATISTICS = ("/moving_mean", "/moving_variance")
"""How keys of statistics end where nothing but their name tells."""


@rule(
    "BN115",
    "checkpoint-graph-mismatch",
    severity=Severity.ERROR,
    needs=Needs.GRAPH | Needs.VALUES,
    ends_gate="graph and checkpoint belong to different models",
    refuses_repair="graph and checkpoint belong to different models, so layers cannot be matched",
    sees="D07",
    sees_too="D03 D06",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Graph and checkpoint do not hold the same batch norm.

    What it detects
    ---------------
    Gammas and betas of the graph that the checkpoint lacks, vectors of another shape, and statistics in the checkpoint
    that the graph has no variable for.

    Why it matters
    --------------
    A lenient restore leaves what the checkpoint lacks at its initial value and drops the rest. A network built without
    its `arg_scope` has biases where the checkpoint has batch norm, and runs.

    How it decides
    --------------
    By variable names, which are keys in a TF1 checkpoint. A gamma or beta that is missing and a shape that differs are
    errors, as is a graph without a single one of the checkpoint's statistics. Statistics of the checkpoint that only
    some of the graph's layers lack are a warning in a training graph, and a note in an inference graph, which leaves
    auxiliary heads out on purpose. Missing statistics are BN108's.

    Not detected
    ------------
    Differences behind an object graph (TF2), whose keys are paths and not names.

    Fix
    ---
    Build the network with the argument scope it was trained with:

        with slim.arg_scope(mobilenet_v2.training_scope(is_training=False)):
            logits, endpoints = mobilenet_v2.mobilenet(images)

    and restore strictly: no `ignore_missing_vars`, no `expect_partial()`, no `by_name=True`.

    References
    ----------
    tensorflow/models#1615, tensorflow/models#422, tensorflow/models#2977, FCN-GoogLeNet#6, tensorflow#43554.
    Failure modes D03, D04, D06, D07.
    """
    graph, keys = model.graph, model.run.keys
    if graph is None or keys is None:
        return
    lacking = [x for x in model.layers if Presence.MISSING in (x.gamma.presence, x.beta.presence)]
    if lacking:
        yield Evidence(
            layers=names(lacking),
            message=(
                f"The checkpoint lacks gamma or beta of {many(len(lacking), 'layer')} of the graph: "
                f"{listing(names(lacking))}."
            ),
            measurements=(Measurement(name="layers without gamma or beta", value=len(lacking), limit=0),),
        )
    reshaped = [x for x in model.layers if any(_differs(vector, graph.variables) for vector in _vectors(x))]
    if reshaped:
        first = next(vector for vector in _vectors(reshaped[0]) if _differs(vector, graph.variables))
        yield Evidence(
            layers=names(reshaped),
            message=(
                f"Checkpoint and graph have different shapes in {many(len(reshaped), 'layer')} ({first.name}: "
                f"{first.shape} instead of {graph.variables[first.name]}): {listing(names(reshaped))}."
            ),
            location=first.name,
            measurements=(Measurement(name="layers of another shape", value=len(reshaped), limit=0),),
        )
    yield from _unknown_to_graph(model, graph, keys)


def _unknown_to_graph(model: Facts, graph: GraphFacts, keys: frozenset[str]) -> Iterator[Evidence]:
    """Statistics of the checkpoint that no variable of the graph, and no layer under another key, stands for."""
    held = {key for key in keys if key.endswith(STATISTICS)}
    used = {vector.name for layer in model.layers for vector in layer.statistics} | set(graph.variables)
    saved = {key for saver in graph.savers for key in saver.keys}
    extra = sorted({key.rpartition("/")[0] for key in held - used - saved})
    if not extra or not graph.variables:
        return
    none_known = not any(key in used or key in saved for key in held)
    partly = Severity.INFO if graph.purpose is Purpose.INFERENCE else Severity.WARNING
    yield Evidence(
        layers=tuple(extra),
        message=(
            f"The checkpoint holds moving statistics of {many(len(extra), 'layer')} that the graph has no variable for:"
            " "
            f"{listing(extra)}." + (" The graph has none of the checkpoint's batch norm." if none_known else "")
        ),
        severity=Severity.ERROR if none_known else partly,
        measurements=(Measurement(name="layers unknown to the graph", value=len(extra), limit=0, unit="layers"),),
    )


def _vectors(layer: Layer) -> tuple[Vector, ...]:
    return (layer.mean, layer.variance, layer.gamma, layer.beta)


def _differs(vector: Vector, variables: Mapping[str, tuple[int, ...] | None]) -> bool:
    """Whether the stored shape contradicts the graph's; unknown dimensions (-1) fit anything."""
    expected = variables.get(vector.name)
    if expected is None or vector.shape is None or vector.presence in (Presence.MISSING, Presence.ABSENT):
        return False
    alike = len(expected) == len(vector.shape) and all(
        want in (have, -1) for want, have in zip(expected, vector.shape, strict=True)
    )
    return not alike


def _of(layer: Layer, extra: tuple[str, ...] = ()) -> Facts:
    """A training graph with this layer of 4 channels, and a checkpoint of its vectors that holds `extra` keys."""
    held = frozenset(vector.name for vector in _vectors(layer) if vector.presence is Presence.PRESENT)
    graph = graph_facts(wired(layer), variables={vector.name: (4,) for vector in _vectors(layer)})
    run = RunFacts(values=True, keys=held | frozenset(extra), global_step=1000, updates=1000)
    return facts(wired(layer), graph=graph, run=run)


def clean() -> tuple[Facts, ...]:
    """The same in both; no graph; an object graph's keys, which are no names."""
    return (
        _of(batch_norm("bn")),
        facts(batch_norm("bn")),
        _of(batch_norm("bn"), ("model/bn/moving_mean/.ATTRIBUTES/VARIABLE_VALUE",)),
    )


def broken() -> tuple[Facts, ...]:
    """A gamma missing; another shape; a checkpoint with more layers; a graph built without the argument scope."""
    layer = batch_norm("bn")
    gone = Vector(role=Role.GAMMA, presence=Presence.MISSING, name="bn/gamma", reason="not in the checkpoint")
    more = ("head/bn/moving_mean", "head/bn/moving_variance")
    bare = GraphFacts(
        path="model.meta",
        format=Format(FileKind.META_GRAPH),
        nodes=9,
        purpose=Purpose.INFERENCE,
        variables={"conv/biases": (4,)},
    )
    return (
        _of(replace(layer, gamma=gone)),
        _of(replace(layer, beta=replace(layer.beta, shape=(8,)))),
        _of(layer, more),
        facts(graph=bare, run=RunFacts(values=True, keys=frozenset(more), global_step=9)),
    )
