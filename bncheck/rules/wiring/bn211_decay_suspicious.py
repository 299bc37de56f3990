"""BN211 decay-suspicious."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import DecaySource, Facts, Layer, Origin
from bncheck.facts.wording import many
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import Framework, in_framework, made_with
from bncheck.testing import batch_norm, facts, keras_file, wired, with_graph

SMALL, LARGE = 0.5, 0.9999
"""Nobody averages over fewer than two batches by intent; beyond 0.9999 it takes 46,000 updates to forget the start;
the limits themselves are a guess."""
ROUNDING = 1e-6
"""Graphs hold 1 - decay in float32."""

SET = """\
# TF-slim
with slim.arg_scope([slim.batch_norm], decay=0.99): ...
# tf.layers
net = tf.layers.batch_normalization(net, momentum=0.99)
# Keras
x = tf.keras.layers.BatchNormalization(momentum=0.99)(x)
# PyTorch
layer = torch.nn.BatchNorm2d(channels, momentum=0.1)
# Flax
net = nn.BatchNorm(use_running_average=not train, momentum=0.99)(net)"""


@rule("BN211", "decay-suspicious", severity=Severity.WARNING, needs=Needs.NOTHING, sees="C02 E08", sees_too="C01")
def check(model: Facts) -> Iterator[Evidence]:
    """The decay of the moving averages is hardly intended.

    What it detects
    ---------------
    TensorFlow's decay (Keras: momentum) of 1 or more, of 0, below 0.5, below 0, or above 0.9999.

    Why it matters
    --------------
    TensorFlow's decay is the share that is *kept*; PyTorch's momentum the share that is *replaced*. A ported 0.1 keeps
    10 %: the statistics are those of the last batch or two. 1 keeps everything: they never move.

    How it decides
    --------------
    From the update ops (in whatever layout), else the configuration or PyTorch's module, else `--decay`. 1: ERROR,
    WARNING where the statistics moved all the same (converted models). Below 0 or above 1: ERROR, the average
    diverges. 0: WARNING, some do it on purpose (meta learning). Above 0 and below 0.5: WARNING. Above 0.9999: INFO;
    how much of the initial value is left is BN103's question.

    Not detected
    ------------
    A decay between 0.5 and 0.9999 that does not suit the run's length (BN103). A layer of which no decay is known.

    Fix
    ---
    TensorFlow's value is 1 minus PyTorch's:

        {SET}

    Statistics of a few batches are re-estimated by `bncheck repair PATH -o OUT --data images/`.

    References
    ----------
    pix2pix-tensorflow#126, deeplab-pytorch#79, pytorch/vision#8250, pytorch2keras#70, MetaLearning-TF2.0#5.
    Failure modes C02, E08, C01; P5.
    """
    groups: dict[float, list[Layer]] = {}
    for layer in model.layers:
        for decay in _decays(layer):
            if not SMALL <= decay <= LARGE + ROUNDING:
                groups.setdefault(decay, []).append(layer)
    for decay, layers in sorted(groups.items()):
        yield from _judged(model, decay, layers)


def _decays(layer: Layer) -> list[float]:
    """All decays that someone chose for the layer's updates, each once; its own where it has no update.

    One that a stuck counter holds at its first value was not chosen (BN224).
    """
    found = [update.decay for update in layer.updates if update.decay is not None and not update.stuck_counter]
    if any(update.stuck_counter for update in layer.updates):
        return list(dict.fromkeys(round(decay, 6) for decay in found))
    if not found and layer.decay is not None:
        found = [layer.decay]
    return list(dict.fromkeys(round(decay, 6) for decay in found))


def _judged(model: Facts, decay: float, layers: Sequence[Layer]) -> Iterator[Evidence]:
    name, value, ported = _told(model, decay, layers)
    if abs(decay - 1) <= ROUNDING:
        moved = [layer for layer in layers if layer.moved]
        never = [layer for layer in layers if not layer.moved]
        if never:
            text = f"a {name} of {value} means the statistics never move."
            yield _evidence(model, decay, never, (Severity.ERROR, Confidence.HIGH), text)
        if moved:
            text = (
                f"a {name} of {value} means the statistics never move; these did, so they come from elsewhere, such as "
                "a converter."
            )
            yield _evidence(model, decay, moved, (Severity.WARNING, Confidence.MEDIUM), text)
    elif decay < 0 or decay > 1:
        text = "outside 0 to 1 the average diverges."
        yield _evidence(model, decay, layers, (Severity.ERROR, Confidence.HIGH), text)
    elif decay == 0:
        text = f"a {name} of {value} keeps only the last batch, as some meta-learning code does on purpose."
        yield _evidence(model, decay, layers, (Severity.WARNING, Confidence.MEDIUM), text)
    elif decay < SMALL:
        text = f"each step keeps only {100 * decay:.3g} %, so the statistics cover just the last few batches. {ported}"
        yield _evidence(model, decay, layers, (Severity.WARNING, Confidence.HIGH), text)
    else:
        text = "it takes more than 46,000 updates to forget 99 % of the initial value."
        yield _evidence(model, decay, layers, (Severity.INFO, Confidence.HIGH), text)


def _told(model: Facts, decay: float, layers: Sequence[Layer]) -> tuple[str, str, str]:
    """(what their framework calls it, its value there, what it would be if it was taken over from another)."""
    if made_with(model, layers) is Framework.PYTORCH:
        return "momentum", f"{1 - decay:.6g}", f"If this is TensorFlow's momentum, PyTorch's is {decay:.6g}."
    name = "momentum" if layers[0].origin is Origin.CONFIG else "decay"
    return name, f"{decay:.6g}", f"If this is PyTorch's momentum, the decay is {1 - decay:.6g}."


def _evidence(
    model: Facts, decay: float, layers: Sequence[Layer], standing: tuple[Severity, Confidence], text: str
) -> Evidence:
    source = (layers[0].decay_from or DecaySource.GRAPH).value
    name, value, _ = _told(model, decay, layers)
    trained = model.run.values and standing[0] is not Severity.INFO
    code = in_framework(SET, made_with(model, layers))
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"The {name} of {many(len(layers), 'layer')} is {value} ({source}): {text}",
        severity=standing[0],
        confidence=standing[1],
        location=layers[0].updates[0].name if layers[0].updates else "",
        fix=fixes.training_code_and_repair(model, code) if trained else fixes.training_code(code),
        measurements=(Measurement(name="decay", value=decay, limit=LARGE if decay > LARGE else SMALL),),
    )


def clean() -> tuple[Facts, ...]:
    """The usual values, from a graph and from a configuration; a layer of which none is known."""
    return (
        *(with_graph(wired(batch_norm("bn"), decay=decay)) for decay in (0.9, 0.999, 0.9997, 0.9999)),
        keras_file(configured(0.99)),
        facts(batch_norm("bn")),
    )


def broken() -> tuple[Facts, ...]:
    """PyTorch's 0.1; 1 from a converter; 1, never moved; 0; 1.01; 0.99999 (a note)."""
    return (
        keras_file(configured(0.1)),
        keras_file(configured(1.0)),
        keras_file(configured(1.0, mean=0.0, variance=1.0)),
        with_graph(wired(batch_norm("bn"), decay=0.0)),
        with_graph(wired(batch_norm("bn"), decay=1.01)),
        with_graph(wired(batch_norm("bn"), decay=0.99999)),
    )


def configured(momentum: float, **vectors: float) -> Layer:
    """A Keras layer with this momentum; keywords as for `batch_norm`."""
    layer = batch_norm("batch_normalization")
    if vectors:
        layer = batch_norm("batch_normalization", mean=vectors["mean"], variance=vectors["variance"])
    return replace(
        layer, origin=Origin.CONFIG, decay=momentum, decay_from=DecaySource.CONFIGURATION, config={"momentum": momentum}
    )
