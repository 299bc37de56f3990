"""BN407 folded-other-statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import FoldedLayer, FoldProof
from bncheck.facts.wording import listing, many
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.fixes import of_pytorch
from bncheck.testing import folded_layer, proved

_WHOSE = {
    "initial": "the initial statistics (mean 0, variance 1 unless configured otherwise), not the stored ones",
    "reference": "the statistics of the reference, not the stored ones",
    "shadow": "averages of the statistics, not the stored ones",
}


@rule(
    "BN407",
    "folded-other-statistics",
    severity=Severity.ERROR,
    needs=Needs.FOLD,
    explained_by=("BN101", "BN102"),
    sees="G04",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The weights of the TFLite or ONNX file have other statistics folded in than its source model holds.

    What it detects
    ---------------
    Layers whose folded kernel and bias in a TFLite or ONNX file are not those that the model's own weights, statistics
    and epsilon give: converted from the initial statistics, from an average of them, from another checkpoint, with
    another epsilon, or with layers mixed up. It also tells the layers that were not found in the file.

    Why it matters
    --------------
    Once folded, nothing in the file shows which statistics were used. A correct model is then wrong on the device, at
    every precision, and tools that compare a quantized file with its own float file see no difference.

    How it decides
    --------------
    For each layer kernel * gamma / sqrt(variance + epsilon) and beta - mean * gamma / sqrt(variance + epsilon), a
    convolution's bias included, are computed and compared with every operator of that shape. Folding multiplies each
    channel of the kernel by one number, so the operator is found by its kernel whatever was folded; names only settle
    ties. Kernel and bias must both agree within what rounding to the file's types explains: 1e-6 of a channel's largest
    number for float32, 2**-11 more for float16, half a step for integers. What the converter takes in besides is
    recognised: a multiplication or addition of one number (scaled images, hard swish), a second batch norm or scale, a
    dense layer behind, arithmetic that was left standing as MUL and ADD. Only where no such explanation fits is it an
    ERROR, with the statistics that do fit, where any given do. Another epsilon, and averages of the statistics
    without averaged weights, are a WARNING. Layers that were not found are a WARNING, and the verdict is inconclusive.
    A faithful fold of statistics that never moved is told too: the fault lies in the model (BN101).

    Not detected
    ------------
    Differences below half a step of an integer type. Channels whose kernel is zero hold no scale; their bias counts.
    Kernels that the graph computes (weight normalisation), and files whose kernels are sparse or stored in blocks.

    Fix
    ---
    Convert again from the checkpoint that was judged, with the variables restored before the graph is frozen:

        saver = tf.compat.v1.train.Saver()
        with tf.compat.v1.Session(graph=eval_graph) as session:
            # and no global_variables_initializer() after it
            saver.restore(session, "model.ckpt-300")
            converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, [images], [logits])

    In Keras load the weights into the model that is converted, `training=False`, and compare one layer before and
    after: `model.get_layer("bn").get_weights()`.

    In PyTorch: load the weights that were judged, and export in eval mode:

        model.load_state_dict(torch.load("model.pt"), strict=True)
        torch.onnx.export(model.eval(), (images,), "model.onnx")

    References
    ----------
    tensorflow#11370, tensorflow#31877, tensorflow#17974. Failure mode G04.
    """
    proof = model.fold
    if proof is None:
        return
    yield from _converted_elsewhere(proof)
    for kind in _WHOSE:
        yield from _named(proof, kind)
    yield from _different(proof)
    yield from _epsilons(proof)
    yield from _never_moved(model, proof)
    yield from _unmatched(proof)


def _converted_elsewhere(proof: FoldProof) -> Iterator[Evidence]:
    """Kernels of another model or another step: one finding, whatever was folded into them."""
    others = [layer for layer in proof.layers if layer.weights in ("other", "reference")]
    if not others:
        return
    of_reference = others[0].weights == "reference"
    whose = "the reference's" if of_reference else f"not those of {PurePath(proof.source).name}"
    yield Evidence(
        layers=_names(others),
        message=f"The weights of {_of(others, proof)} are {whose}: {listing(_names(others))}.{_reason(others)}",
        location=others[0].operator,
        measurements=_measured(others, proof),
    )


def _named(proof: FoldProof, kind: str) -> Iterator[Evidence]:
    found = [layer for layer in proof.layers if layer.folded == kind and layer.weights not in ("other", "reference")]
    if not found:
        return
    averaged = kind == "shadow"
    together = averaged and all(layer.weights == "shadow" for layer in found)
    also = ", together with averaged weights" if together else ""
    yield Evidence(
        layers=_names(found),
        message=f"{_of(found, proof, 'holds', 'hold')} {_WHOSE[kind]}{also}: {listing(_names(found))}.",
        severity=Severity.INFO if together else Severity.WARNING if averaged else None,
        location=found[0].operator,
        measurements=_measured(found, proof),
    )


def _different(proof: FoldProof) -> Iterator[Evidence]:
    found = [layer for layer in proof.layers if layer.folded == "other" and layer.weights != "other"]
    if not found:
        return
    yield Evidence(
        layers=_names(found),
        message=f"{_of(found, proof, 'holds', 'hold')} neither the stored statistics nor any known ones: "
        f"{listing([f'{layer.layer} ({layer.why})' if layer.why else layer.layer for layer in found])}.",
        location=found[0].operator,
        measurements=_measured(found, proof),
    )


def _epsilons(proof: FoldProof) -> Iterator[Evidence]:
    found = [
        layer
        for layer in proof.layers
        if layer.folded == "stored"
        and layer.epsilon is not None
        and layer.epsilon_known is not None
        and layer.epsilon != layer.epsilon_known
    ]
    if not found:
        return
    pairs = dict.fromkeys(f"{layer.epsilon:g} instead of {layer.epsilon_known:g}" for layer in found)
    yield Evidence(
        layers=_names(found),
        message=f"{_of(found, proof, 'was', 'were')} folded with another epsilon, {listing(list(pairs))}: "
        f"{listing(_names(found))}.",
        severity=Severity.WARNING,
        location=found[0].operator,
        measurements=_measured(found, proof),
    )


def _never_moved(model: Facts, proof: FoldProof) -> Iterator[Evidence]:
    found = [layer for layer in proof.layers if layer.never_moved and layer.folded == "stored"]
    if not found:
        return
    repair = remedies.UPDATE_BN if of_pytorch(model) else f"bncheck repair {proof.source} -o OUT --data images/"
    yield Evidence(
        layers=_names(found),
        message=f"{_of(found, proof, 'holds', 'hold')} the stored statistics, but these are still initial though "
        f"gamma or beta were trained: the conversion is right, the model was broken before: "
        f"{listing(_names(found))}.",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        location=found[0].operator,
        fix=f"Repair the model, then convert again:\n\n    {repair}",
        measurements=_measured(found, proof),
    )


def _unmatched(proof: FoldProof) -> Iterator[Evidence]:
    found = [layer for layer in proof.layers if layer.folded == "unmatched"]
    if not found:
        return
    yield Evidence(
        layers=_names(found),
        message=f"{_of(found, proof, 'was', 'were')} not found in the file: {listing(_names(found))}.{_reason(found)}",
        severity=Severity.WARNING,
        fix="Give the model the file was converted from, with its graph or configuration if there is one.",
        measurements=_measured(found, proof),
    )


def _of(layers: Sequence[FoldedLayer], proof: FoldProof, one: str = "", several: str = "") -> str:
    """How many layers, and a verb behind them."""
    verb = one if len(layers) == 1 else several
    return f"{len(layers)} of {many(len(proof.layers), 'layer')}{verb and ' '}{verb}"


def _names(layers: Sequence[FoldedLayer]) -> tuple[str, ...]:
    return tuple(layer.layer for layer in layers)


def _reason(layers: Sequence[FoldedLayer]) -> str:
    """The first layer's reason, as a sentence behind another."""
    return f" {layers[0].layer}: {layers[0].why}." if layers[0].why else ""


def _measured(layers: Sequence[FoldedLayer], proof: FoldProof) -> tuple[Measurement, ...]:
    first = layers[0]
    told = [
        Measurement(name="layers", value=len(layers), limit=0, unit="layers"),
        Measurement(name="layers in all", value=len(proof.layers), unit="layers"),
    ]
    if math.isfinite(first.error) and math.isfinite(first.tolerance):
        told.append(Measurement(name="difference of the first", value=first.error, limit=first.tolerance))
    return tuple(told)


def clean() -> tuple[Facts, ...]:
    """Every layer holds what is stored, with arithmetic of the converter's on top; no epsilon known; no layers."""
    return (
        proved(folded_layer("a"), folded_layer("b", why="times 0.00392157, taken in")),
        proved(folded_layer("a", epsilon=1e-3, epsilon_known=None), folded_layer("b", weights="shadow")),
        proved(),
    )


def broken() -> tuple[Facts, ...]:
    """Initial, reference, averaged, other statistics; other kernels; another epsilon; never moved; not found."""
    good = folded_layer("a")
    return (
        proved(good, folded_layer("b", folded="initial")),
        proved(folded_layer("a", folded="initial"), folded_layer("b", folded="initial")),
        proved(good, folded_layer("b", folded="reference")),
        proved(folded_layer("a", folded="reference", weights="reference")),
        proved(good, folded_layer("b", folded="shadow")),
        proved(good, folded_layer("b", folded="shadow", weights="shadow")),
        proved(good, folded_layer("b", folded="other", error=0.3, why="the statistics of c fit")),
        proved(
            good, folded_layer("b", folded="other", weights="other", error=float("inf"), why="the kernel is another")
        ),
        proved(good, folded_layer("b", epsilon=1e-5)),
        proved(good, folded_layer("b", never_moved=True)),
        proved(good, folded_layer("b", folded="unmatched", operator="", why="no operator has a kernel of its shape")),
        proved(folded_layer("a", folded="unmatched", operator="")),
    )
