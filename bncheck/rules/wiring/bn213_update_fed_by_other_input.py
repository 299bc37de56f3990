"""BN213 update-fed-by-other-input."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Site, Update
from bncheck.facts.training import trainers
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.layer_calls import eval_copy
from bncheck.rules.shared.wiring_fix import per_network
from bncheck.testing import batch_norm, site, update, wired, with_graph

_VALIDATION = re.compile(
    r"(^|[/_.\-])(x?va|xva|val|valid|validation|eval|evaluation|test|dev)([/_.\-:\d]|$)", re.IGNORECASE
)


@rule(
    "BN213",
    "update-fed-by-other-input",
    severity=Severity.WARNING,
    needs=Needs.GRAPH,
    meaning=Meaning.WIRING_FAULT | Meaning.STATISTICS_STAY,
    sees="A07 B03 B09",
    sees_too="B10",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The train op also runs updates fed by data it does not train on.

    What it detects
    ---------------
    Updates that a train op runs although their batch moments come from another input than the loss: a validation tower
    built in train mode with reuse, `model.updates` of a Keras input that is never fed. As notes: a GAN's discriminator
    that averages real and generated batches into one, a train op that updates a network it does not train.

    Why it matters
    --------------
    Validation data flow into the statistics, so validation looks better than it is, and every training step needs a
    validation batch. Averages over two kinds of data fit neither.

    How it decides
    --------------
    An update whose site no gradient flows from is none of the loss's: WARNING if its inputs differ from those of the
    sites that learn, INFO if they are the same. Where the gradients are not known, two updates of one variable that
    have no input in common: WARNING of low confidence if a name says val, valid, eval, test or dev, else INFO, for
    siamese networks and towers with queues of their own look the same. Switches and rates are no inputs.

    Not detected
    ------------
    Two towers that read one placeholder, fed with different data by turns.

    Fix
    ---
    The second tower in eval mode, in which it queues no updates:

        {EVAL_MODE_COPY}

    Keras in a TF1 graph: `model.get_updates_for(train_images)` instead of `model.updates`.
    GANs, for each train op:

        {WIRE_PER_NETWORK}

    References
    ----------
    tensorflow#4361, aiUIUC/pyAIUtils#21, tensorflow#26322, DCGAN-tensorflow#266, DCGAN-tensorflow#289, compare_gan#8.
    Failure modes A07, B03, B09, B10; P7.
    """
    graph = model.graph
    if graph is None or not graph.train_ops:
        return
    outside = [layer for layer in model.layers if _outside(layer)]
    if outside:
        yield _by_gradient(model, outside)
    rest = [layer for layer in model.layers if not _outside(layer)]
    unclear = [layer for layer in rest if len(_inputs(layer)) > 1]
    if unclear:
        yield _by_inputs(model, unclear)
    strangers: dict[str, list[Layer]] = {}
    for layer in rest:
        for op in _strangers(layer):
            strangers.setdefault(op, []).append(layer)
    for train_op in graph.train_ops:
        if train_op.name in strangers:
            yield _by_owner(model, train_op.name, strangers[train_op.name])


def _outside(layer: Layer) -> list[Update]:
    """Updates run by training whose site no gradient flows from."""
    sites = {s.name: s for s in layer.sites}
    return [u for u in layer.updates if u.train_ops and u.site in sites and sites[u.site].backpropagated is False]


def _learns(layer: Layer) -> bool:
    """Whether gradients flow from any site of the layer; from none of a head that is in no loss."""
    return any(s.backpropagated for s in layer.sites)


def _learning_inputs(model: Facts, layer: Layer) -> set[str]:
    """What feeds the sites that the layer learns at or, where it learns nowhere, those of the whole model."""
    own = {name for s in layer.sites if s.backpropagated for name in s.inputs}
    return own or {name for other in model.layers for s in other.sites if s.backpropagated for name in s.inputs}


def _by_gradient(model: Facts, layers: Sequence[Layer]) -> Evidence:
    found = [(layer, u) for layer in layers for u in _outside(layer)]
    known = {layer.name: _learning_inputs(model, layer) for layer in layers}
    foreign = dict.fromkeys(name for layer, u in found for name in u.inputs if name not in known[layer.name])
    fed = f"their input is {quoted(foreign)}, not the training data" if foreign else "they see the same data"
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{quoted(op for _, u in found for op in u.train_ops)} also runs {many(len(found), 'update op')} of "
        f"sites that it does not train ({quoted(dict.fromkeys(u.site or '' for _, u in found), 2)}): {fed}.",
        severity=Severity.WARNING if foreign else Severity.INFO,
        confidence=Confidence.HIGH,
        location=found[0][1].name,
        fix=_in_eval_mode(model, layers) if foreign or any(map(_learns, layers)) else remedies.NOTHING,
        measurements=(Measurement(name="updates fed by other inputs", value=len(found), limit=0, unit="ops"),),
    )


def _in_eval_mode(model: Facts, layers: Sequence[Layer]) -> str:
    return fixes.training_code(eval_copy(model, layers), note="where the other tower is built")


def _inputs(layer: Layer) -> list[frozenset[str]]:
    """The different inputs of the updates of one variable that training runs, without what all have in common."""
    run = [u for u in layer.updates if u.train_ops]
    sets = list(dict.fromkeys(frozenset(u.inputs) for u in run if u.inputs))
    common = frozenset.intersection(*sets) if sets else frozenset()
    return list(dict.fromkeys(found - common for found in sets))


def _by_inputs(model: Facts, layers: Sequence[Layer]) -> Evidence:
    sets = list(dict.fromkeys(found for layer in layers for found in _inputs(layer)))
    names = sorted({name for found in sets for name in found})
    sites = sorted({u.site or "" for layer in layers for u in layer.updates if u.train_ops})
    known = all(s.backpropagated for layer in layers for s in layer.sites if s.mode is not Mode.EVAL)
    disjoint = sum(bool(found) for found in sets) > 1
    validation = not known and disjoint and any(_VALIDATION.search(name) for name in (*names, *sites))
    if validation:
        reading = "one looks like a validation tower built in train mode"
    elif model.graph is not None and len(model.graph.train_ops) > 1:
        reading = "as in a GAN whose real and generated batches share one average that fits neither"
    else:
        reading = "harmless for siamese networks and towers, a fault if one is a validation tower"
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"Training mixes {many(len(sets), 'kind')} of data into the statistics of "
        f"{many(len(layers), 'layer')} (fed by {quoted(names)}): {reading}.",
        severity=Severity.WARNING if validation else Severity.INFO,
        confidence=Confidence.LOW,
        location=layers[0].mean.name,
        fix=_in_eval_mode(model, layers) if validation else remedies.NOTHING,
        measurements=(Measurement(name="inputs that updates differ in", value=len(names), limit=0, unit="inputs"),),
    )


def _strangers(layer: Layer) -> set[str]:
    """Train ops that run an update of a layer that other train ops train, and update, by themselves."""
    own = trainers(layer)
    running = {op for u in layer.updates for op in u.train_ops}
    return set() if running.isdisjoint(own) else running.difference(own)


def _by_owner(model: Facts, train_op: str, layers: Sequence[Layer]) -> Evidence:
    owners = quoted(op for layer in layers for op in trainers(layer))
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"`{train_op}` also runs the updates of {many(len(layers), 'layer')} that {owners} trains and updates: "
        "each round of both updates these statistics twice.",
        severity=Severity.INFO,
        confidence=Confidence.MEDIUM,
        location=train_op,
        fix=fixes.training_code(per_network(model, layers)),
        measurements=(Measurement(name="layers updated by another's step", value=len(layers), limit=0, unit="layers"),),
    )


def clean() -> tuple[Facts, ...]:
    """One input; two towers on one placeholder; a validation tower in eval mode; a GAN wired per network."""
    layer = wired(batch_norm("bn"))
    evaluated = replace(layer, sites=(*layer.sites, site("val/bn/FusedBatchNormV3", Mode.EVAL, inputs=("val_images",))))
    return (
        with_graph(layer),
        with_graph(two_towers("images", "images", name="tower_1", learns=True)),
        with_graph(evaluated),
        with_graph(wired(batch_norm("d"), "d_adam"), wired(batch_norm("g"), "g_adam")),
    )


def broken() -> tuple[Facts, ...]:
    """A validation tower in train mode, by its gradients and by its name; a GAN's two inputs; its shared UPDATE_OPS."""
    shared = wired(batch_norm("g"), "g_adam", train_ops=("g_adam", "d_adam"))
    gan = two_towers("images", "noise", name="fake", learns=True)
    return (
        with_graph(two_towers("images", "other_images", name="bn_1", learns=False)),
        with_graph(two_towers("images", "images", name="bn_1", learns=False)),
        with_graph(two_towers("images", "val_images", name="val", learns=None)),
        with_graph(gan, wired(batch_norm("g"), "g_adam")),
        with_graph(shared, wired(batch_norm("d"), "d_adam")),
    )


def two_towers(first: str, second: str, *, name: str, learns: bool | None) -> Layer:
    """A layer applied to two inputs in train mode, whose updates the train op runs; `learns`: of the second tower."""
    layer = wired(batch_norm("bn"), inputs=(first,))
    known = None if learns is None else True
    own: tuple[Site, ...] = tuple(replace(s, inputs=(first,), backpropagated=known) for s in layer.sites)
    other = site(f"{name}/FusedBatchNormV3", train_ops=("Adam",), inputs=(second,), backpropagated=learns)
    again = tuple(
        update(
            "bn", u.role, name=f"{name}/{u.op}_{u.role.value}", site=other.name, inputs=(second,), train_ops=("Adam",)
        )
        for u in layer.updates
    )
    return replace(layer, sites=(*own, other), updates=(*layer.updates, *again))
