"""BN204 trained-in-eval-mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, RunFacts
from bncheck.facts.training import has_statistics, run_by_training, trainers, training_sites
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.wiring_fix import train_mode
from bncheck.testing import batch_norm, facts, graph_facts, site, unread, untouched, unwired, wired, with_graph


@rule(
    "BN204",
    "trained-in-eval-mode",
    severity=Severity.ERROR,
    needs=Needs.GRAPH,
    meaning=Meaning.WIRING_FAULT | Meaning.STATISTICS_STAY,
    refuses_repair="its weights fit the statistics that are stored",
    sees="A10",
    sees_too="A11 A13",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Training normalises with the stored statistics, so batch norm only scales and shifts.

    What it detects
    ---------------
    Layers whose gamma or beta is optimised while every site that training goes through is in eval mode.

    Why it matters
    --------------
    With statistics at 0 and 1, batch norm normalises nothing: training is slow and unstable. Train and eval mode agree,
    so comparing them shows nothing, and repairing the statistics afterwards would break the model: its weights fit the
    initial ones.

    How it decides
    --------------
    By the mode of the sites that the train op depends on. Statistics that never moved: ERROR. Statistics that moved:
    a note of low confidence, for fine-tuning a pretrained network on its stored statistics is a deliberate practice
    (detection, segmentation). Not given: ERROR of medium confidence where it holds for all layers, WARNING where
    only for some. Layers whose gamma and beta are not optimised are frozen on purpose and left alone.

    Not detected
    ------------
    Keras models trained by `fit` or a loop of one's own (no training graph); BN101 sees their values.

    Fix
    ---
    Tell the layers that they train, then train again; statistics alone cannot save this run:

        {TRAIN_MODE}

    and run the updates with the train op (BN201). If the freeze is meant, freeze gamma and beta too, or ignore this.

    References
    ----------
    dmzou/RSRAE#2, tensorflow#10118, tensorflow#32864, keras#20378. Failure modes A10, A11, A12, B06.
    """
    if model.graph is None or not model.graph.train_ops:
        return
    optimised = [
        layer for layer in model.layers if layer.trained_by and has_statistics(layer) and training_sites(layer)
    ]
    frozen = [layer for layer in optimised if all(s.mode is Mode.EVAL for s in training_sites(layer))]
    if not frozen:
        return
    suspect = [layer for layer in frozen if layer.moved is not True]
    never = [layer for layer in suspect if layer.moved is False]
    if suspect:
        all_of_them = len(suspect) == len(optimised)
        yield _evidence(
            model,
            suspect,
            Severity.ERROR if never or all_of_them else Severity.WARNING,
            Confidence.HIGH if never else Confidence.MEDIUM,
            optimised=len(optimised),
            reading=f" In {len(never)} of them the statistics never moved, so batch norm only scales and shifts there."
            if never
            else " Give the checkpoint to see whether the statistics were ever trained.",
        )
    deliberate = [layer for layer in frozen if layer.moved is True]
    if deliberate:
        yield _evidence(
            model,
            deliberate,
            Severity.INFO,
            Confidence.LOW,
            optimised=len(optimised),
            reading=" The step updates these as well, so training and evaluation compute the same."
            if all(map(run_by_training, deliberate))
            else " Their statistics come from earlier training, which is fine if this is fine-tuning with frozen "
            "statistics.",
        )


def _evidence(
    model: Facts, layers: Sequence[Layer], severity: Severity, confidence: Confidence, *, optimised: int, reading: str
) -> Evidence:
    meant = severity is Severity.INFO
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{quoted(op for layer in layers for op in trainers(layer))} trains {len(layers)} of "
        f"{many(optimised, 'layer')} "
        f"in eval mode, with the stored statistics.{reading}",
        severity=severity,
        confidence=confidence,
        location=training_sites(layers[0])[0].name,
        fix=remedies.NOTHING if meant else fixes.training_code(train_mode(model, layers)),
        includes=() if meant else ("BN101", "BN102"),
        measurements=(
            Measurement(name="layers trained in eval mode", value=len(layers), limit=0, unit="layers"),
            Measurement(name="layers optimised", value=optimised, unit="layers"),
        ),
    )


def clean() -> tuple[Facts, ...]:
    """Train mode; a switch; frozen gamma and beta; an evaluation tower in eval mode beside the training tower."""
    frozen = replace(unwired(untouched("backbone"), mode=Mode.EVAL), trained_by=(), updates=())
    towers = wired(batch_norm("bn"))
    towers = replace(towers, sites=(*towers.sites, site("val/bn/FusedBatchNormV3", Mode.EVAL)))
    return (
        with_graph(wired(batch_norm("bn"))),
        with_graph(wired(batch_norm("bn"), mode=Mode.SWITCHED)),
        with_graph(wired(batch_norm("head")), frozen),
        with_graph(towers),
    )


def broken() -> tuple[Facts, ...]:
    """tf.layers' default; a graph alone; a new head left in eval mode; a pretrained network (a note)."""
    a, b, head = (replace(unwired(untouched(name), mode=Mode.EVAL), updates=()) for name in ("a", "b", "head"))
    pretrained = replace(unwired(batch_norm("pretrained"), mode=Mode.EVAL), updates=())
    return (
        with_graph(a, b),
        facts(unread(a), unread(b), graph=graph_facts(a, b), run=RunFacts()),
        with_graph(pretrained, head),
        with_graph(pretrained),
    )
