"""BN202 some-updates-not-wired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.training import moved, roles, run_by_training, still, to_be_wired, together, trainers
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.fixes import repaired
from bncheck.rules.shared.wiring_fix import collection_of, per_network, trained_with, wire
from bncheck.testing import batch_norm, untouched, unwired, update, updates, wired, with_graph

_BY_HAND = " Yet their statistics have moved: the script runs those updates by hand, or they were restored."


@rule(
    "BN202",
    "some-updates-not-wired",
    severity=Severity.ERROR,
    needs=Needs.GRAPH,
    explained_by=("BN215",),
    milder_than=("BN201",),
    meaning=Meaning.WIRING_FAULT | Meaning.FITS_NO_DATA | Meaning.STATISTICS_STAY,
    sees="A03",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Training runs the updates of some layers but not of others.

    What it detects
    ---------------
    Layers whose updates no train op reaches while it reaches those of others; layers of which only the mean or only
    the variance is updated; layers that two train ops optimise while only one of them runs the updates.

    Why it matters
    --------------
    One layer with initial statistics is enough to ruin inference: every later layer gets input that training never
    produced. The half that is wired makes the code look right.

    How it decides
    --------------
    As BN201, layer by layer; a layer is wired if a train op runs an update of its mean and one of its variance.
    Several train ops that each update their own network (GANs) are healthy, and so is an update that runs with another
    train op than its own. Layers wired up to some depth and none after it: `UPDATE_OPS` was read too early. ERROR where
    an unwired layer's statistics never moved or are not given, WARNING where all moved. Two train ops of which one
    updates: WARNING, or a note where the statistics moved.

    Not detected
    ------------
    Towers that share variables: one wired tower counts (BN216). Frozen layers are not asked for.

    Fix
    ---
    TF-slim, tf.layers: collect after the last layer, and per network where there are several train ops:

        {WIRE_UPDATES}
        {WIRE_PER_NETWORK}

    Keras in a TF1 graph: `model.get_updates_for(images)` of *every* model that is trained.
    This checkpoint, without retraining: `bncheck repair PATH -o OUT --data images/`.

    References
    ----------
    ageron/handson-ml#56, taki0112/Spectral_Normalization-Tensorflow#1, DCGAN-tensorflow#289, google/compare_gan#8.
    Failure modes A03, A13, B09; P1.
    """
    if model.graph is None or not model.graph.train_ops:
        return
    layers = to_be_wired(model)
    bare = [layer for layer in layers if not run_by_training(layer)]
    reached = [layer for layer in layers if run_by_training(layer)]
    if not reached:
        return
    if bare:
        yield _unwired(model, bare, layers)
    half = [layer for layer in reached if roles(run_by_training(layer)) != roles(layer.updates)]
    if half:
        yield _half(model, half)
    halves = set(half)
    lagging = [layer for layer in reached if layer not in halves and _idle_trainers(layer)]
    if lagging:
        yield _lagging(lagging)


def _moved_by(model: Facts) -> str:
    told = repaired(model)
    return f" Yet their statistics have moved: they were {told}." if told else _BY_HAND


def _unwired(model: Facts, bare: Sequence[Layer], layers: Sequence[Layer]) -> Evidence:
    values = moved(bare)
    count = sum(len(layer.updates) for layer in bare)
    total = sum(len(layer.updates) for layer in layers)
    pattern, code = _pattern(model, bare, layers)
    return Evidence(
        layers=tuple(layer.name for layer in bare),
        message=f"No train op runs the updates of {len(bare)} of {many(len(layers), 'layer')}. {pattern}"
        + (_moved_by(model) if values else ""),
        severity=Severity.INFO if repaired(model) else Severity.WARNING if values else Severity.ERROR,
        confidence=Confidence.MEDIUM if values else Confidence.HIGH,
        location=bare[0].updates[0].name,
        fix=fixes.training_code(code) if repaired(model) else fixes.training_code_and_repair(model, code),
        measurements=(
            Measurement(name="update ops run by no train op", value=count, limit=0, unit="ops"),
            Measurement(name="update ops", value=total, unit="ops"),
            Measurement(name="layers whose statistics never moved", value=still(bare), unit="layers"),
        ),
    )


def _pattern(model: Facts, bare: Sequence[Layer], layers: Sequence[Layer]) -> tuple[str, str]:
    """What the unwired layers have in common, and the code that mends it."""
    ops = {trainers(layer) for layer in bare}
    unwired_ones = set(bare)
    others = {trainers(layer) for layer in layers if layer not in unwired_ones}
    first = len(layers) - len(bare)
    own = collection_of(bare)
    if own and not any(
        own in update.collections for layer in layers if layer not in unwired_ones for update in layer.updates
    ):
        told = f"Only their updates are in the collection `{own}`, which is not read."
        return told, remedies.wire_collection(own, beside_others=True)
    code = wire(model, bare)
    if not ops & others:
        names = quoted(op for group in ops for op in group)
        told = f"They are the layers that {names} trains, without running any update."
        if trained_with(model, bare):
            told += " The train ops share no variable, as in a GAN: each must run its own updates."
        return told, per_network(model, bare)
    if list(layers[first:]) == list(bare):
        early = (
            f"The first {first} of {len(layers)} are wired, and none from `{bare[0].name}` on: UPDATE_OPS may have "
            "been read before the rest was built."
        )
        return early, code
    if list(layers[: len(bare)]) == list(bare):
        replaced = (
            f"Only those from `{layers[len(bare)].name}` on are wired: the list of updates may have been overwritten, "
            "or collected with a scope."
        )
        return replaced, code
    return f"Not wired: {quoted(layer.name for layer in bare)}.", code


def _half(model: Facts, half: Sequence[Layer]) -> Evidence:
    lacking = [
        vector
        for layer in half
        for vector in layer.statistics
        if vector.role in roles(layer.updates) and vector.role not in roles(run_by_training(layer))
    ]
    which = " or ".join(dict.fromkeys(vector.role.value for vector in lacking))
    values = together([vector.moved for vector in lacking])
    return Evidence(
        layers=tuple(layer.name for layer in half),
        message=f"The train op updates only one statistic of {many(len(half), 'layer')}: it does not run the op that "
        f"writes the moving {which}.",
        severity=Severity.WARNING if values else Severity.ERROR,
        confidence=Confidence.MEDIUM if values else Confidence.HIGH,
        location=lacking[0].name,
        fix=fixes.training_code_and_repair(model, wire(model, half)),
        measurements=(Measurement(name="layers updated by half", value=len(half), limit=0, unit="layers"),),
    )


def _idle_trainers(layer: Layer) -> tuple[str, ...]:
    """Train ops that optimise the layer and run no update of it, while another that optimises it does."""
    running = {op for update in layer.updates for op in update.train_ops}
    own = trainers(layer)
    return tuple(op for op in own if op not in running) if running & set(own) else ()


def _lagging(layers: Sequence[Layer]) -> Evidence:
    idle = dict.fromkeys(op for layer in layers for op in _idle_trainers(layer))
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{quoted(idle)} also trains {many(len(layers), 'layer')} but runs none of the updates; only the other "
        "train op does.",
        severity=Severity.INFO if moved(layers) else Severity.WARNING,
        confidence=Confidence.MEDIUM,
        location=next(iter(idle)),
        fix=fixes.training_code(remedies.WIRE_UPDATES, note="for every train op"),
        measurements=(Measurement(name="train ops without updates", value=len(idle), limit=0, unit="ops"),),
    )


def clean() -> tuple[Facts, ...]:
    """All wired; a GAN whose train ops update their own network, or each other's; none wired at all (BN201's)."""
    return (
        with_graph(wired(batch_norm("a")), wired(batch_norm("b"))),
        with_graph(wired(batch_norm("d"), "d_adam"), wired(batch_norm("g"), "g_adam")),
        with_graph(wired(batch_norm("d"), "d_adam"), wired(batch_norm("g"), "g_adam", train_ops=("d_adam",))),
        with_graph(unwired(batch_norm("a")), unwired(batch_norm("b"))),
    )


def broken() -> tuple[Facts, ...]:
    """Read too early; one network of a GAN; the mean only; the same by hand; a second train op without updates."""
    late = [unwired(untouched(f"conv{n}")) for n in (3, 4, 5)]
    half = replace(wired(batch_norm("bn", variance=1.0)), updates=(update("bn", train_ops=("Adam",)), updates("bn")[1]))
    two = replace(wired(batch_norm("bn")), trained_by=("Adam", "warmup"))
    return (
        with_graph(wired(batch_norm("conv1")), wired(batch_norm("conv2")), *late),
        with_graph(wired(batch_norm("d"), "d_adam"), unwired(untouched("g"), "g_adam")),
        with_graph(half),
        with_graph(wired(batch_norm("a")), unwired(batch_norm("b"))),
        with_graph(two),
    )
