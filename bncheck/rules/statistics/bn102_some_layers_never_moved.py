"""BN102 some-layers-never-moved."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Origin
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import names, never_moved
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.fixes import training_code_and_repair
from bncheck.rules.shared.frameworks import Framework, made_with
from bncheck.rules.shared.standing_still import counters_tell, let_move, ruled_out
from bncheck.testing import batch_norm, facts, untouched


@rule(
    "BN102",
    "some-layers-never-moved",
    severity=Severity.ERROR,
    needs=Needs.VALUES,
    explained_by=("BN201", "BN202", "BN203", "BN204", "BN207", "BN215", "BN216"),
    milder_than=("BN101",),
    meaning=Meaning.VALUES_FAULT | Meaning.FITS_NO_DATA | Meaning.INITIAL_VALUES,
    sees="A13 C15 D03 D06",
    sees_too="A03 D04",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Some layers' moving statistics never left their initial values, while those of others did.

    What it detects
    ---------------
    Layers whose moving mean and variance are bit-exactly initial in a model where other layers' have moved.

    Why it matters
    --------------
    One such layer is enough: in inference it normalises with mean 0 and variance 1, and every later layer gets input
    that training never produced.

    How it decides
    --------------
    As BN101, layer by layer. A layer whose gamma or beta did move was trained and is an error; one whose gamma and
    beta are initial too is frozen on purpose, or new and not trained yet: a note. One without gamma and beta is an
    error of medium confidence. Which layers they are tells the cause: all layers from one on in forward order means
    that `UPDATE_OPS` was read before the rest of the model was built; all layers of one scope means a tower, branch or
    target network that is never updated.

    Not detected
    ------------
    A target network whose statistics were copied once and never again; BN116 sees it, given `--reference`.

    Fix
    ---
    TF-slim, tf.layers: collect the updates after the *whole* model is built, and without a scope that leaves some out:

        {WIRE_UPDATES}

    Keras: pass `training` on to every sub-layer in `call`. Target networks: copy `model.variables`, not only
    `trainable_variables`. This checkpoint: `bncheck repair PATH -o OUT --data images/`.

    References
    ----------
    ageron/handson-ml#56, mindee/doctr#47, tensorflow/models#9538, tensorflow/models#1795, DLR-RM/stable-baselines3#996.
    Failure modes A03, A13, A18, C10, C15, D03, D04, D06.
    """
    still = [layer for layer in model.layers if never_moved(layer)]
    moved = [layer for layer in model.layers if never_moved(layer) is False]
    if not still or not moved:
        return
    total = many(len(still) + len(moved), "layer")
    for layers, severity, confidence, reading in (
        ([x for x in still if x.affine_moved], Severity.ERROR, Confidence.HIGH, "although gamma or beta moved"),
        (
            [x for x in still if x.affine_moved is None],
            Severity.ERROR,
            Confidence.MEDIUM,
            "while the others moved",
        ),
        (
            [x for x in still if x.affine_moved is False],
            Severity.INFO,
            Confidence.MEDIUM,
            "nor did gamma and beta: frozen on purpose, not trained yet, or skipped when weights were loaded by name",
        ),
    ):
        if layers:
            yield Evidence(
                layers=names(layers),
                message=(
                    f"The moving mean and variance of {len(layers)} of {total} never moved, {reading}: "
                    f"{listing(names(layers))}.{_told(model, layers)}"
                ),
                severity=severity,
                confidence=confidence,
                fix=remedies.NOTHING if severity is Severity.INFO else _fix(model, layers),
                measurements=(
                    Measurement(name="layers never moved", value=len(layers), limit=0, unit="layers"),
                    Measurement(name="layers that moved", value=len(moved), unit="layers"),
                ),
            )


def _told(model: Facts, layers: list[Layer]) -> str:
    """The cause as far as it shows, as sentences with a space before."""
    if _averaged(model, layers):
        return " They are a copy of the weights, such as an average, that was made without the statistics."
    return ruled_out(model, layers) or _pattern(model, layers) + counters_tell(layers)


def _averaged(model: Facts, layers: list[Layer]) -> bool:
    """Whether PyTorch's file holds each of these layers under another place too, where it moved."""
    if not model.format.is_pytorch:
        return False
    inner = {layer.name.partition("/")[2] for layer in layers}
    moved = {layer.name.partition("/")[2] for layer in model.layers if layer not in layers}
    return "" not in inner and inner <= moved


def _fix(model: Facts, layers: list[Layer]) -> str:
    if _averaged(model, layers):
        return training_code_and_repair(model, remedies.AVERAGE_BUFFERS)
    return let_move(model, layers)


def _pattern(model: Facts, layers: list[Layer]) -> str:
    """What the set of layers has in common, as far as it tells the cause."""
    others = [layer for layer in model.layers if layer not in layers]
    ordered = all(layer.origin in (Origin.GRAPH, Origin.CONFIG) for layer in model.layers)
    scopes = {layer.name.partition("/")[0] for layer in layers}
    if len(layers) > 1 and len(scopes) == 1 and not any(other.name.partition("/")[0] in scopes for other in others):
        return f" They are all layers of `{scopes.pop()}`: a tower, branch or target network that is never updated?"
    if ordered and len(others) > 1 and model.layers[-len(layers) :] == tuple(layers):
        by_hand = made_with(model, layers) in (Framework.SLIM, Framework.LAYERS, Framework.OWN)
        why = "was UPDATE_OPS read before they were built" if by_hand else "were they frozen, or run in eval mode"
        return f" They are all layers from `{layers[0].name}` on: {why}?"
    return ""


def clean() -> tuple[Facts, ...]:
    """All moved; none moved (BN101's); a layer on batch moments only beside one that moved."""
    return (
        facts(batch_norm("a"), batch_norm("b", mean=0.01, variance=1.0003)),
        facts(untouched("a"), untouched("b")),
        facts(batch_norm("a"), batch_norm("batch_only", mean=None, variance=None)),
    )


def broken() -> tuple[Facts, ...]:
    """Updates collected too early; a target network; a layer without gamma and beta; a frozen layer (a note)."""
    return (
        facts(batch_norm("conv1"), batch_norm("conv2"), untouched("conv3"), untouched("conv4")),
        facts(batch_norm("online/a"), untouched("target/a"), untouched("target/b")),
        facts(batch_norm("a"), untouched("b", gamma=None, beta=None)),
        facts(batch_norm("a"), untouched("frozen", gamma=1.0, beta=0.0)),
    )
