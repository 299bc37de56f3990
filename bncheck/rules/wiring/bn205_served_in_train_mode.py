"""BN205 served-in-train-mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import Facts, Layer, Mode, Origin, Purpose, Site
from bncheck.facts.training import has_statistics, served_outputs
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import in_framework, made_with
from bncheck.testing import batch_norm, facts, keras_file, served, serving, site, switch, wired, with_graph


@rule("BN205", "served-in-train-mode", severity=Severity.ERROR, needs=Needs.SITES, sees="B08 F01 F02 F06 F07 G01 G06")
def check(model: Facts) -> Iterator[Evidence]:
    """The model to be served normalises with the statistics of whatever batch it gets.

    What it detects
    ---------------
    Sites in train mode on which a serving output depends, in a SavedModel or frozen graph; graphs without an optimizer
    that apply a layer in train mode only; `training=True` written into a call of a Keras model; a TorchScript file that
    `torch.jit.trace` made of a model in train mode, or `torch.jit.script`, until `eval()` is called on it.

    Why it matters
    --------------
    A prediction then depends on the other samples of its batch, a batch of one is normalised to nearly nothing, the
    trained statistics are never used, and converters reject the graph or leave batch norm unfolded.

    How it decides
    --------------
    ERROR for a serving output that depends on a train-mode site of a layer that has moving statistics, or of a
    fused op in a frozen graph, where freezing has dropped the statistics that nothing reads (medium confidence:
    code that calls the fused op by hand may never have had any). The same of an ONNX model in which a linear
    layer's output is divided by its deviation over the batch. ERROR for TorchScript whose code calls `batch_norm`
    with a constant that says train mode: `eval()` does not change it any more. WARNING where a script was saved in
    train mode, where the graph only predicts (a MetaGraph), and for Keras, where a call's `training=True` may or
    may not win (Keras 2: yes; Keras 3.15: the model's own flag does). Training functions that no signature calls
    are no fault, nor are signatures named `train...`, which on-device training exports on purpose, nor instance
    norm on a fused op.

    Not detected
    ------------
    A layer without moving statistics written out as moments in a TensorFlow graph (BN220). A mode that must be fed
    (BN206).

    Fix
    ---
    Build the graph for inference, restore, then export; rewriting the attribute in place is not enough:

        # Keras in TF1: before building or loading
        tf.keras.backend.set_learning_phase(0)
        {EVAL_MODE}

    References
    ----------
    tensorflow#15599, tensorflow/serving#1266, qubvel/segmentation_models#223, alibaba/graph-learn#141,
    tensorflow#50502. Failure modes F01, F02, B08, G01; P16.
    """
    layers = [layer for layer in model.layers if has_statistics(layer)]
    graph = model.graph
    if graph is None:
        traced = [layer for layer in layers if model.format.kind is FileKind.PYTORCH and _all_train(layer)]
        if traced:
            yield replace(
                _evidence(model, traced, Severity.ERROR, "`torch.jit.trace` recorded train mode in"),
                fix=fixes.training_code(remedies.TRACED_IN_EVAL_MODE, note="for export"),
            )
        kept = [layer for layer in layers if model.format.kind is FileKind.PYTORCH and any(map(_left_on, layer.sites))]
        if kept:
            yield _saved_in_train_mode(kept)
        found = [layer for layer in layers if layer.origin is Origin.CONFIG and _all_train(layer)]
        if found:
            yield _evidence(model, found, Severity.WARNING, "`training=True` is fixed in the calls of")
    elif graph.serving:
        found = [layer for layer in layers if _served(layer)]
        if found:
            outputs = quoted(out for layer in found for s in _served(layer) for out in served_outputs(s.outputs))
            yield _evidence(model, found, Severity.ERROR, f"Computing {outputs} uses train mode in")
        dropped = [layer for layer in model.layers if statistics_dropped(model, layer)]
        if dropped:
            yield _dropped(model, dropped)
    elif graph.purpose is Purpose.INFERENCE:
        found = [layer for layer in layers if _all_train(layer)]
        if found:
            yield _evidence(model, found, Severity.WARNING, "The graph trains nothing, yet uses train mode in")


def _left_on(site: Site) -> bool:
    """Whether a TorchScript module is in train mode as it is loaded."""
    return site.mode is Mode.SWITCHED and site.switch is not None and site.switch.default is True


def _saved_in_train_mode(layers: list[Layer]) -> Evidence:
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"`torch.jit.script` saved {many(len(layers), 'layer')} in train mode: the model stays in it, once "
        "loaded, until `eval()` is called, and predictions depend on the batch.",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        location=layers[0].sites[0].name,
        fix=fixes.training_code(remedies.SCRIPTED_IN_EVAL_MODE, note="for export"),
        measurements=(Measurement(name="sites in train mode", value=len(layers), limit=0, unit="sites"),),
    )


_FROZEN = ("FusedBatchNorm", "ReduceMean")
"""Forms of sites: TensorFlow's fused op, and ONNX' means over the batch."""


def _served(layer: Layer) -> list[Site]:
    return [s for s in layer.sites if s.mode is Mode.TRAIN and served_outputs(s.outputs)]


def statistics_dropped(model: Facts, layer: Layer) -> bool:
    """Whether a frozen graph serves a fused op in train mode, or ONNX one in parts: what is not read is not kept."""
    frozen = model.graph is not None and model.graph.serving and not model.graph.variables
    return frozen and not has_statistics(layer) and any(s.form.startswith(_FROZEN) for s in _served(layer))


def _dropped(model: Facts, layers: list[Layer]) -> Evidence:
    sites = [s for layer in layers for s in _served(layer)]
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"Computing {quoted(out for s in sites for out in served_outputs(s.outputs))} uses train mode in "
        f"{many(len(layers), 'layer')}: the training graph was frozen, without the moving statistics.",
        severity=Severity.ERROR,
        confidence=Confidence.MEDIUM,
        location=sites[0].name,
        fix=fixes.training_code(
            in_framework(remedies.EVAL_MODE, made_with(model, layers)),
            note="restore the checkpoint into this graph, then freeze it",
        ),
        measurements=(Measurement(name="sites in train mode", value=len(sites), limit=0, unit="sites"),),
    )


def _all_train(layer: Layer) -> bool:
    return bool(layer.sites) and all(s.mode is Mode.TRAIN for s in layer.sites)


def _evidence(model: Facts, layers: list[Layer], severity: Severity, what: str) -> Evidence:
    sites = [s for layer in layers for s in layer.sites if s.mode is Mode.TRAIN]
    total = sum(has_statistics(layer) for layer in model.layers)
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{what} {len(layers)} of {many(total, 'layer')}. Predictions depend on the batch, and the moving "
        "statistics are unused.",
        severity=severity,
        confidence=Confidence.HIGH if severity is Severity.ERROR else Confidence.MEDIUM,
        location=sites[0].name,
        fix=fixes.training_code(in_framework(remedies.EVAL_MODE, made_with(model, layers)), note="for export"),
        measurements=(Measurement(name="sites in train mode", value=len(sites), limit=0, unit="sites"),),
    )


def _torch_script(layer: Layer) -> Facts:
    return facts(layer, path="model.pt", format=Format(FileKind.PYTORCH))


def clean() -> tuple[Facts, ...]:
    """Eval mode; a training function nobody calls; a `train` signature; a training graph; Keras with its argument;
    TorchScript in eval mode.
    """
    uncalled = served(batch_norm("bn"))
    uncalled = replace(uncalled, sites=(*uncalled.sites, site("train_fn/bn/FusedBatchNormV3", Mode.TRAIN)))
    argument = replace(served(batch_norm("bn"), Mode.SWITCHED, outputs=()), origin=Origin.CONFIG)
    return (
        serving(served(batch_norm("bn"))),
        serving(uncalled),
        serving(served(batch_norm("bn"), Mode.TRAIN, outputs=("train/loss",))),
        with_graph(wired(batch_norm("bn"))),
        keras_file(argument),
        _torch_script(batch_norm("bn")),
    )


def broken() -> tuple[Facts, ...]:
    """A SavedModel exported from the training graph; a predict graph in train mode; a hard-coded `training=True`; a
    model traced, and one scripted, in train mode; the training graph, frozen.
    """
    frozen = served(batch_norm("bn", mean=None, variance=None), Mode.TRAIN)
    baked = replace(served(batch_norm("bn"), Mode.TRAIN, outputs=()), origin=Origin.CONFIG)
    traced = served(batch_norm("bn"), Mode.TRAIN, outputs=())
    return (
        serving(served(batch_norm("a"), Mode.TRAIN), served(batch_norm("b"), Mode.TRAIN)),
        with_graph(served(batch_norm("bn"), Mode.TRAIN, outputs=())),
        keras_file(baked),
        _torch_script(traced),
        _torch_script(served(batch_norm("bn"), Mode.SWITCHED, switch=switch(kind="variable", default=True))),
        serving(frozen, variables={}),
    )
