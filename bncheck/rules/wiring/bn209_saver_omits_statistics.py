"""BN209 saver-omits-statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, GraphFacts, Layer, Presence, Saver, Vector
from bncheck.facts.wording import many, quoted
from bncheck.numerics.init_share import init_share
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.testing import batch_norm, facts, graph_facts, saver, unread, untouched, wired, with_graph

SAVE_ALL = """\
# all global variables; or, where a list is needed:
saver = tf.train.Saver()
statistics = [v for v in tf.global_variables() if "moving_" in v.name]
saver = tf.train.Saver(tf.trainable_variables() + statistics + [global_step])"""

MUCH_INITIAL = 0.05
"""Part of a statistic from which a warm start without it does harm, as BN103 has it."""


@rule(
    "BN209",
    "saver-omits-statistics",
    severity=Severity.ERROR,
    needs=Needs.GRAPH,
    explains=("BN101", "BN102", "BN103"),
    meaning=Meaning.WIRING_FAULT,
    sees="D01",
    sees_too="D03",
)
def check(model: Facts) -> Iterator[Evidence]:
    """A Saver saves or restores a layer's weights but leaves out its moving statistics.

    What it detects
    ---------------
    Layers whose gamma, beta or kernel some Saver writes while no Saver writes their moving mean or variance: the
    classic is `Saver(tf.trainable_variables())`, for statistics are not trainable. And warm starts that restore gamma
    and beta alone, where the statistics are, in good part, still their initial values.

    Why it matters
    --------------
    After a restore the statistics are what the initialiser gave, 0 and 1, or restoring fails. Training went well, and
    so did evaluation in the same process; once restored elsewhere, the model normalises with other numbers.

    How it decides
    --------------
    A Saver's list is a constant in the graph (`SaveV2/tensor_names`), so this needs no checkpoint. Savers that cover a
    part, such as a backbone's, are fine as long as another writes the statistics. WARNING where a given checkpoint
    holds the statistics after all: then another Saver wrote it. What a restore reads is a constant as well
    (`RestoreV2`): one that fills gamma or beta and no statistics is the cause where they never moved, and, with medium
    confidence, where more than a twentieth of them is initial.

    Not detected
    ------------
    Savers made after the MetaGraph was exported. Layers that no Saver writes at all are not meant to be kept.

    Fix
    ---
    TF-slim, tf.layers, tf.keras in a TF1 graph: save all global variables,

        {SAVE_ALL}

    Keras: `model.save` and `model.save_weights` write all; do not save `trainable_weights` by hand.
    A checkpoint written without them is repaired by `bncheck repair PATH -o OUT --data images/`.

    References
    ----------
    skflow#117, SfMLearner#17, google/youtube-8m#55. Failure modes D01, D02; P6.
    """
    graph = model.graph
    if graph is None:
        return
    yield from _not_restored(model, graph)
    if not graph.savers:
        return
    written = frozenset[str]().union(*(saver.variables for saver in graph.savers))
    found = {layer: lost for layer in model.layers if (lost := _omitted(graph, layer, written))}
    if not found:
        return
    layers, lost = list(found), [vector for vectors in found.values() for vector in vectors]
    held = all(vector.presence is Presence.PRESENT for vector in lost)
    writers = quoted(saver.name for saver in graph.savers)
    also = " This checkpoint holds them, so another Saver wrote it." if held else ""
    yield Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{writers} saves the weights of {many(len(layers), 'layer')} but leaves out "
        f"{many(len(lost), 'statistic')}: {quoted(v.name for v in lost)}.{also}",
        severity=Severity.WARNING if held else Severity.ERROR,
        confidence=Confidence.MEDIUM if held else Confidence.HIGH,
        location=graph.savers[0].name,
        fix=fixes.training_code_and_repair(model, SAVE_ALL),
        measurements=(
            Measurement(name="statistics that no Saver writes", value=len(lost), limit=0, unit="variables"),
            Measurement(name="Savers", value=len(graph.savers), unit="ops"),
        ),
    )


def _omitted(graph: GraphFacts, layer: Layer, written: frozenset[str]) -> list[Vector]:
    """Statistics of a layer that no Saver writes although one writes its weights."""
    linear = [layer.linear.kernel] if layer.linear is not None else []
    weights = [v.name for v in (layer.gamma, layer.beta) if v.presence is not Presence.ABSENT] + linear
    if not written.intersection(weights):
        return []
    lost = [v for v in layer.statistics if v.presence is not Presence.ABSENT and v.name in graph.variables]
    return [vector for vector in lost if vector.name not in written]


def _not_restored(model: Facts, graph: GraphFacts) -> Iterator[Evidence]:
    """Restores that fill the weights of layers whose statistics are initial, and not these."""
    for restore in graph.restores if graph.train_ops else ():
        layers = [layer for layer in model.layers if _filled_by_half(layer, restore) and _initial(layer, model)]
        if not layers:
            continue
        never = [layer for layer in layers if layer.moved is False]
        kept = (
            f"where those of {many(len(never), 'layer')} still are"
            if never
            else "and a good part of each is still initial"
        )
        yield Evidence(
            layers=tuple(layer.name for layer in layers),
            message=f"`{restore.name}` restores gamma or beta of {many(len(layers), 'layer')} from another "
            "checkpoint, but "
            f"not the moving mean and variance: training started from initial statistics, {kept}. Statistics are not "
            "trainable, so a list of trainable variables holds none.",
            confidence=Confidence.HIGH if never else Confidence.MEDIUM,
            location=restore.name,
            fix=fixes.training_code_and_repair(
                model, _restore_all(layers, restore), note="where the checkpoint is restored"
            ),
            measurements=(
                Measurement(name="layers restored without statistics", value=len(layers), limit=0, unit="layers"),
                Measurement(name="variables restored", value=len(restore.variables), unit="variables"),
            ),
        )
        return


def _filled_by_half(layer: Layer, restore: Saver) -> bool:
    affine = {v.name for v in (layer.gamma, layer.beta) if v.presence is not Presence.ABSENT}
    statistics = {v.name for v in layer.statistics if v.presence is not Presence.ABSENT}
    filled = restore.variables
    return bool(statistics and affine & filled) and not statistics & filled


def _initial(layer: Layer, model: Facts) -> bool:
    """Whether the statistics are what the initialiser gave, or what too few updates left of it."""
    if layer.moved is False:
        return bool(layer.affine_moved)
    share = init_share(layer, model.run.updates)
    return bool(layer.moved) and share is not None and share > MUCH_INITIAL


def _restore_all(layers: list[Layer], restore: Saver) -> str:
    """The same restore with the statistics, in the scope of what it restored so far."""
    scopes = {name.partition("/")[0] for name in restore.variables}
    scope = f"{scopes.pop()}/" if len(scopes) == 1 else ""
    ends = sorted({f"/{v.name.rpartition('/')[2]}" for layer in layers for v in layer.statistics})
    inside = f' if v.op.name.startswith("{scope}")' if scope else ""
    return (
        f"weights = [v for v in tf.trainable_variables(){inside}]\n"
        f"ends = ({', '.join(repr(end).replace(chr(39), chr(34)) for end in ends)},)\n"
        f"statistics = [v for v in tf.global_variables(){inside or ' if True'} and v.op.name.endswith(ends)]\n"
        "tf.train.Saver(weights + statistics).restore(session, pretrained)"
    ).replace("if True and ", "if ")


def clean() -> tuple[Facts, ...]:
    """A Saver of everything; a backbone's Saver beside it; a layer that no Saver writes; a graph without Savers."""
    a, b = wired(batch_norm("a")), wired(batch_norm("b"))
    return (
        with_graph(a),
        with_graph(a, b, savers=(saver(a, without=("mean", "variance"), name="warm/SaveV2"), saver(a, b))),
        with_graph(a, b, savers=(saver(a),)),
        with_graph(a, savers=()),
        with_graph(a, restores=(saver(a, without=("mean", "variance")), saver(a))),
    )


def broken() -> tuple[Facts, ...]:
    """Saver(trainable_variables()); without the variance only; a checkpoint that another Saver wrote."""
    layer = wired(batch_norm("bn"))
    trainable = (saver(layer, without=("moving_mean", "moving_variance")),)
    alone = unread(layer)
    return (
        facts(alone, graph=graph_facts(alone, savers=trainable)),
        with_graph(
            replace(layer, mean=alone.mean, variance=alone.variance), savers=(saver(layer, without=("variance",)),)
        ),
        with_graph(layer, savers=trainable),
        with_graph(wired(untouched("bn")), restores=(*trainable, saver(layer))),
    )
