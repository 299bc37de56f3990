"""BN206 mode-switch-left-open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Purpose, Site, Switch
from bncheck.facts.training import (
    moved,
    run_by_training,
    served_outputs,
    still,
    trainers,
    training_sites,
)
from bncheck.facts.wording import many
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import Framework, in_framework, made_with
from bncheck.testing import batch_norm, served, serving, switch, untouched, unwired, wired, with_graph


@rule(
    "BN206",
    "mode-switch-left-open",
    severity=Severity.WARNING,
    needs=Needs.GRAPH,
    meaning=Meaning.WIRING_FAULT,
    sees="A09 F03 F04 F07",
)
def check(model: Facts) -> Iterator[Evidence]:
    """A switch still decides between batch and stored statistics, where it should be fixed.

    What it detects
    ---------------
    Serving and predict graphs whose batch norm hangs on `is_training`, `phase_train` or `keras_learning_phase`; and
    training graphs whose placeholder defaults to False and, as the values tell, was never fed True.

    Why it matters
    --------------
    What the model computes depends on a switch that is easy to miss: left unset, it is an error or the wrong mode. A
    condition around batch norm keeps converters from folding it. In training, a default of False makes batch norm use
    statistics 0 and 1, without any error.

    How it decides
    --------------
    Serving or predict graph: ERROR (served) or WARNING if the default selects batch statistics. A served switch
    without default: ERROR if no signature takes it, WARNING else. WARNING if the default selects statistics that are
    not given; ERROR if those never moved while gamma or beta did; INFO else.
    Training graph: silent, a placeholder is the normal way there; ERROR if it drives all trained layers, the train op
    runs their updates, and yet no statistic moved while gamma or beta did: then it was never True. That holds for
    variables and comparisons (`keep_prob < 1`) as well, which are told with their names.

    Not detected
    ------------
    What callers feed. In a served graph a switch that is a variable or computed is a note only.

    Fix
    ---
    Build the graph for serving with a Python bool; feed the switch while training:

        {CONSTANT_MODE}
        # TF-slim, tf.layers
        session.run(train_op, {images: batch, is_training: True})
        # Keras in a TF1 graph
        session.run(train_op, {images: batch, "keras_learning_phase:0": True})

    References
    ----------
    lindawangg/COVID-Net#163, tensorflow#28580, deezer/spleeter#151, stable-baselines#373, tensorflow#23253.
    Failure modes A09, F03, F04.
    """
    graph = model.graph
    if graph is None:
        return
    if graph.purpose is Purpose.TRAINING and not graph.serving:
        yield from _never_fed(model)
        return
    switches: dict[Switch, dict[Layer, None]] = {}
    for layer in model.layers:
        for site in layer.sites:
            if site.mode is Mode.SWITCHED and site.switch is not None and _asked_for(site, serving=graph.serving):
                switches.setdefault(site.switch, {})[layer] = None
    for found, layers in switches.items():
        yield _left_open(model, found, list(layers), serving=graph.serving)


def _asked_for(site: Site, *, serving: bool) -> bool:
    return bool(served_outputs(site.outputs)) if serving else True


def _left_open(model: Facts, found: Switch, layers: Sequence[Layer], *, serving: bool) -> Evidence:
    values = moved(layers)
    taken = None if model.graph is None else model.graph.signature_inputs
    decided = found.default is not None and found.train_when is not None
    if not found.kind.startswith("placeholder"):
        severity, reading = Severity.INFO, f"is {found.kind}: the graph does not tell its value"
    elif found.kind == "placeholder" and serving and taken is not None and found.predicate not in taken:
        severity = Severity.ERROR
        reading = "has no default, and no signature takes it, so no client can run the model"
    elif not decided:
        severity = Severity.WARNING if serving or values is False else Severity.INFO
        reading = "has no default, so every caller must feed it"
    elif found.default == found.train_when:
        severity = Severity.ERROR if serving else Severity.WARNING
        reading = f"defaults to {found.default}: unless it is fed, the model uses batch statistics"
    else:
        junk = still(layers) == len(layers) and any(layer.affine_moved for layer in layers)
        severity = Severity.INFO if values else Severity.ERROR if junk else Severity.WARNING
        reading = f"defaults to {found.default}: stored statistics"
    unmoved = still(layers)
    seen = (
        f" The statistics of {unmoved} of {many(len(layers), 'layer')} never moved: either training never fed "
        f"{found.train_when}, so the weights fit them, or they are junk."
        if unmoved
        else ""
    )
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"`{found.predicate}` switches {many(len(layers), 'layer')} between batch and stored statistics and "
        f"{reading}.{seen}",
        severity=severity,
        confidence=Confidence.HIGH if found.train_when is not None else Confidence.MEDIUM,
        location=found.predicate,
        fix=fixes.training_code(_settled(model, found, layers), note="for export"),
        measurements=(
            Measurement(name="layers switched", value=len(layers), limit=0, unit="layers"),
            Measurement(name="layers whose statistics never moved", value=unmoved, unit="layers"),
        ),
    )


def _settled(model: Facts, found: Switch, layers: Sequence[Layer]) -> str:
    """Code that imports the graph anew with a constant in place of the placeholder, by its own name."""
    framework = made_with(model, layers)
    if framework is Framework.KERAS or not found.kind.startswith("placeholder") or found.train_when is None:
        return in_framework(remedies.CONSTANT_MODE, framework)
    return (
        "with tf.Graph().as_default(), tf.Session() as session:\n"
        f'    settled = {{"{found.predicate}:0": tf.constant({not found.train_when})}}\n'
        '    saver = tf.train.import_meta_graph(f"{checkpoint}.meta", input_map=settled)\n'
        "    saver.restore(session, checkpoint)\n"
        "    # export this session's graph"
    )


def _never_fed(model: Facts) -> Iterator[Evidence]:
    """A09: wired, trained, and still initial can only mean that the switch was never on."""
    trained = [layer for layer in model.layers if trainers(layer) and training_sites(layer)]
    layers = [layer for layer in trained if all(_decided_at_run_time(site) for site in training_sites(layer))]
    if not layers or len(layers) < len(trained) or still(layers) < len(layers):
        return
    if not all(map(run_by_training, layers)) or not any(layer.affine_moved for layer in layers):
        return
    found = next(s.switch for s in training_sites(layers[0]) if s.switch is not None)
    yield Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{_never_on(found)}: gamma or beta moved in {many(len(layers), 'layer')}, the train op runs the "
        "updates, and "
        "yet no statistic moved. The model was trained in eval mode, and its weights fit that.",
        severity=Severity.ERROR,
        confidence=Confidence.HIGH if found.default is not None else Confidence.MEDIUM,
        location=found.predicate,
        fix=fixes.training_code(_turned_on(found)),
        includes=("BN101",),
        measurements=(
            Measurement(name="layers whose statistics never moved", value=still(layers), limit=0, unit="layers"),
        ),
    )


def _decided_at_run_time(site: Site) -> bool:
    return site.mode is Mode.SWITCHED and site.switch is not None and site.switch.kind != "constant"


def _never_on(found: Switch) -> str:
    """Which condition was never met in training, and what it is."""
    if found.kind == "variable":
        held = "" if found.default is None else f" that is {found.default} in the checkpoint"
        return f"`{found.predicate}`, a variable{held}, was never {found.train_when} in training"
    if found.kind == "computed":
        made_of = f" (`{found.made_of}`)" if found.made_of else ""
        return f"`{found.predicate}`{made_of} was never {found.train_when} in training"
    default = "has no default" if found.default is None else f"defaults to {found.default}"
    return f"`{found.predicate}` {default} and was never fed {found.train_when} in training"


def _turned_on(found: Switch) -> str:
    """Code that trains with the switch on, by its own name."""
    if found.kind == "variable":
        return (
            f'switch = next(v for v in tf.global_variables() if v.op.name == "{found.predicate}")\n'
            f"# before training; {not found.train_when} before evaluation\n"
            f"switch.load({found.train_when}, session)"
        )
    name, value = found.turned_on_by or (found.predicate, found.train_when)
    told = f'"{value}"' if isinstance(value, str) else value
    return f'session.run(train_op, {{images: batch, "{name}:0": {told}}})'


def clean() -> tuple[Facts, ...]:
    """A constant mode; a training graph with its placeholder; not moved because not wired (BN201's), or not trained."""
    off = switch("keras_learning_phase", "placeholder-with-default", default=False)
    return (
        serving(served(batch_norm("bn"))),
        with_graph(wired(batch_norm("bn"), mode=Mode.SWITCHED)),
        with_graph(_switched(unwired(untouched("bn")), off)),
        with_graph(_switched(wired(batch_norm("bn", mean=0.0, variance=1.0, gamma=1.0, beta=0.0)), off)),
    )


def broken() -> tuple[Facts, ...]:
    """A served switch: on by default, without default, off; a predict graph never moved; never fed in training."""
    kind = "placeholder-with-default"
    off, on = (switch("keras_learning_phase", kind, default=value) for value in (False, True))
    return (
        serving(served(batch_norm("bn"), Mode.SWITCHED, switch=on)),
        serving(served(batch_norm("bn"), Mode.SWITCHED)),
        serving(served(batch_norm("bn"), Mode.SWITCHED, switch=off)),
        with_graph(served(untouched("bn"), Mode.SWITCHED, switch=off, outputs=())),
        with_graph(_switched(wired(untouched("bn")), off)),
        serving(served(batch_norm("bn"), Mode.SWITCHED), signature_inputs=frozenset({"images"})),
        with_graph(_switched(wired(untouched("bn")), switch("is_training", "variable", default=False))),
    )


def _switched(layer: Layer, by: Switch) -> Layer:
    return replace(layer, sites=tuple(replace(site, mode=Mode.SWITCHED, switch=by) for site in layer.sites))
