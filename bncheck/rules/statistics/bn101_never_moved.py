"""BN101 never-moved."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.formats import FileKind
from bncheck.facts.layers import Facts, Layer, RunFacts, Vector
from bncheck.facts.wording import many
from bncheck.numerics.channels import names, never_moved, trained
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.fixes import keeps_its_statistics, training_code, training_code_and_repair
from bncheck.rules.shared.frameworks import in_framework, made_with
from bncheck.rules.shared.modes import accuracies, eval_is_better, train_meets_labels
from bncheck.rules.shared.standing_still import counters_tell, let_move, ruled_out
from bncheck.rules.shared.wiring_fix import train_mode
from bncheck.testing import batch_norm, facts, untouched


@rule(
    "BN101",
    "never-moved",
    severity=Severity.ERROR,
    needs=Needs.VALUES,
    explained_by=("BN201", "BN203", "BN204", "BN206", "BN211", "BN215"),
    meaning=Meaning.VALUES_FAULT | Meaning.FITS_NO_DATA | Meaning.INITIAL_VALUES,
    sees="A11 A12 D02 D04",
    sees_too="A01 A02 A04 A05 A06 A08 A09 A10 A16 A19",
)
def check(model: Facts) -> Iterator[Evidence]:
    """No moving mean or variance ever left its initial value, although the model was trained.

    What it detects
    ---------------
    Every moving mean is bit-exactly its initial value (0) and every moving variance too (1), in all layers, while
    something else shows that training took place.

    Why it matters
    --------------
    With `is_training=False`, and once folded for quantization, each layer normalises with mean 0 and variance 1 instead
    of its own statistics: the model was trained with other statistics, or batch norm only scales and shifts.

    How it decides
    --------------
    Equality is exact, for one update with decay 0.999 already leaves 0.005 and 1.003. Where only the index of a
    checkpoint is given, its checksums are compared with those of that many zeros and ones. Training shows in betas
    (else gammas) that moved, in optimizer slots other than zero, or in the count of updates; the step counter alone
    does not tell, since fine-tuning resets it. Layers whose gamma and beta never moved either, while others' did, are
    frozen on purpose and not accused. If nothing moved at all the model is not trained yet: a note, no error; a WARNING
    if biases of other layers moved, for then the weights were loaded, or copied, without those of batch norm. Labels
    tell more: where eval mode meets more of them than train mode, the weights were trained with these statistics, a
    WARNING; where train mode meets them though nothing of batch norm moved, weights were loaded without it, an ERROR.

    Measured, on MobileNetV2 and digits: 90.9 % with batch statistics, 10.3 % with the stored ones.

    Not detected
    ------------
    Statistics copied from another checkpoint that never moved since (BN116 does, given `--reference`). Converters that
    multiply the statistics into gamma and beta and leave 0 and 1 behind look the same and are fine.

    Fix
    ---
    In the training code (TF-slim, tf.layers; `slim.learning.create_train_op` does this by itself):

        {WIRE_UPDATES}

    Keras layers in a TF1 session: run `model.updates` with the train op, feed the learning phase 1. Keras, custom
    loop: call `model(x, training=True)` inside the tape.
    This checkpoint, without retraining:

        bncheck repair PATH -o OUT --data images/

    References
    ----------
    tensorflow#11965, tensorflow#7469, tensorflow#9179, tensorflow#19643, tensorflow#32864; deezer/spleeter#151.
    Failure modes A01 to A13, A16, A18, A19, D02.
    """
    judged = [layer for layer in model.layers if never_moved(layer) is not None]
    if not judged or not all(never_moved(layer) for layer in judged):
        return
    moved = [layer for layer in judged if trained(layer)]
    accused = [layer for layer in judged if layer.affine_moved is not False] if moved else judged
    fits = eval_is_better(model.comparison)
    severity, confidence, reading = _measured_standing(model) or _standing(model.run, judged, moved)
    idle = len(judged) - len(accused)
    left = _NOT_BY_FIT if moved and model.format.kind is FileKind.KERAS else ""
    rest = f" In {many(idle, 'layer')} gamma and beta have not: frozen, or unused." if idle else ""
    yield Evidence(
        layers=names(accused),
        message=(
            f"{_since(model.run)}{_initial(judged)} in {len(judged)} of {many(len(judged), 'layer')}{reading}{rest}"
            f"{(counters_tell(accused) or ruled_out(model, accused) or left) if severity is Severity.ERROR else ''}"
        ),
        severity=severity,
        confidence=confidence,
        fix="None needed if the model is not trained yet." if severity is Severity.INFO else _fix(model, accused),
        why=_FITS if fits else "",
        measurements=_measurements(model.run, judged, moved),
    )


def _measured_standing(model: Facts) -> tuple[Severity, Confidence, str] | None:
    """The same where running the model on labelled data tells what its files do not."""
    comparison = model.comparison
    if comparison is None or comparison.data.synthetic:
        return None
    if eval_is_better(comparison):
        fit = "the weights fit them, so the model was trained in eval mode"
        return Severity.WARNING, Confidence.HIGH, f", yet {accuracies(comparison)}: {fit}."
    if _left_out(model):
        kept = "no beta or gamma has moved either, though the other weights are trained"
        return Severity.ERROR, Confidence.HIGH, f"; {kept} ({accuracies(comparison)}). {_NOT_LOADED}"
    return None


def _left_out(model: Facts) -> bool:
    """Whether train mode meets the labels though no gamma or beta ever moved: the rest of the model is trained."""
    comparison = model.comparison
    if comparison is None or comparison.data.synthetic or not train_meets_labels(comparison):
        return False
    layers = [layer for layer in model.layers if never_moved(layer)]
    return not any(map(trained, layers)) and any(layer.affine_moved is False for layer in layers)


_COUNTED_ON = re.compile(r"batch_normalization_\d+")
_NOT_BY_FIT = (
    " `fit` updates them in every layer it trains. So a custom loop called the model without "
    "`training=True`, or a clone, or an average of weights, was given the trainable weights alone."
)
_FITS = (
    "Batch norm normalises nothing in this model, which slows training; the trained weights work all the same, and new "
    "statistics would break them."
)
_NOT_LOADED = (
    "The weights were loaded without those of batch norm, perhaps because of their names, or batch norm was frozen "
    "from the start."
)


def _standing(run: RunFacts, judged: list[Layer], moved: list[Layer]) -> tuple[Severity, Confidence, str]:
    """Whether that is a fault, how surely, and the words for what the rest of the model shows."""
    counted = max(run.updates or 0, run.global_step or 0)
    slots = run.optimizer_slots is not None and run.optimizer_slots[0] > 0
    if moved:
        meant_to = counted > 0 or slots or any(layer.updates for layer in moved)
        sure = Confidence.HIGH if meant_to else Confidence.MEDIUM
        return Severity.ERROR, sure, f", while {_affine(judged)} moved."
    seen = f"{counted:,} steps were counted" if counted else "the optimizer's slots are filled"
    if any(layer.affine_moved is False for layer in judged):
        if run.biases_moved:
            others = f"; no beta or gamma has moved either, although biases of other layers have. {_missed(judged)}"
            return Severity.WARNING, Confidence.MEDIUM, others
        if counted or slots:
            frozen = f"; no beta or gamma has moved either, although {seen}: batch norm was frozen, or is unused."
            return Severity.WARNING, Confidence.LOW, frozen
        return Severity.INFO, Confidence.HIGH, "; no beta or gamma has moved either: the model is not trained yet."
    if (run.updates or 0) > 0 or slots:
        return Severity.ERROR, Confidence.MEDIUM, f", although {seen}."
    if counted:
        return Severity.WARNING, Confidence.MEDIUM, f", although {seen}."
    return Severity.INFO, Confidence.LOW, "; whether the model was trained is unknown."


def _missed(judged: list[Layer]) -> str:
    """How weights come to be loaded without those of batch norm; by names that Keras counts on, where it shows."""
    numbers = [_COUNTED_ON.fullmatch(layer.name.rpartition("/")[2]) for layer in judged]
    if all(numbers) and judged:
        return (
            f"`{judged[0].name}` is a name that Keras gives by itself and counts on from model to model: "
            "`load_weights(by_name=True)` does not find it in a file of another model and leaves the layer as it was. "
            "Otherwise batch norm was frozen from the start."
        )
    return _NOT_LOADED


def _affine(judged: list[Layer]) -> str:
    """How many betas have moved ("52 of 52 betas have"), or gammas where there is no beta."""
    betas = [layer.beta.moved for layer in judged if layer.beta.moved is not None]
    gammas = [layer.gamma.moved for layer in judged if layer.gamma.moved is not None]
    known, word = (betas, "beta") if any(betas) else (gammas, "gamma")
    if len(known) == 1:
        return f"its {word} has"
    return f"{sum(known)} of {len(known):,} {word}s have"


def _since(run: RunFacts) -> str:
    steps = run.updates or run.global_step
    return f"After {many(steps, 'step')}, every " if steps else "Every "


def _initial(judged: list[Layer]) -> str:
    """The initial values in words: 0 and 1 unless the graph starts them elsewhere."""

    def usual(vector: Vector) -> bool:
        return vector.starts_at == vector.role.conventional_initial

    if all(usual(vector) for layer in judged for vector in layer.statistics):
        return "moving mean is exactly 0 and every moving variance exactly 1"
    return "moving mean and variance still has exactly its initial value"


def _fix(model: Facts, accused: list[Layer]) -> str:
    """Both remedies: the code that trains, and this file."""
    if model.run.biases_moved and accused and all(layer.affine_moved is False for layer in accused):
        return training_code(in_framework(remedies.LOAD_ALL, made_with(model)), note="where the weights are loaded")
    if keeps_its_statistics(model):
        return training_code_and_repair(model, train_mode(model))
    if _left_out(model):
        load = in_framework(remedies.LOAD_ALL, made_with(model))
        return training_code_and_repair(model, load, note="where the weights are loaded")
    return let_move(model, accused)


def _measurements(run: RunFacts, judged: list[Layer], moved: list[Layer]) -> tuple[Measurement, ...]:
    found = [
        Measurement(name="layers never moved", value=len(judged), limit=0, unit="layers"),
        Measurement(name="layers whose beta or gamma moved", value=len(moved), unit="layers"),
    ]
    if run.updates is not None:
        found.append(Measurement(name="updates", value=run.updates))
    if run.global_step is not None:
        found.append(Measurement(name="global step", value=run.global_step))
    if run.optimizer_slots is not None:
        found.append(Measurement(name="optimizer slots that moved", value=run.optimizer_slots[0]))
    return tuple(found)


def clean() -> tuple[Facts, ...]:
    """Moved by a hair; one layer moved (BN102's); one layer frozen on purpose beside one that works."""
    return (
        facts(batch_norm("bn", mean=5e-6, variance=1.000003)),
        facts(batch_norm("a"), untouched("b")),
        facts(batch_norm("a"), untouched("frozen", gamma=1.0, beta=0.0)),
        facts(batch_norm("batch_only", mean=None, variance=None)),
    )


def broken() -> tuple[Facts, ...]:
    """Updates forgotten; a fine-tune that reset its counter; no gamma and beta; not trained yet; not loaded."""
    return (
        facts(untouched("conv1/bn"), untouched("conv2/bn", gamma=None)),
        facts(untouched("bn"), run=RunFacts(values=True, global_step=0)),
        facts(untouched("bn", gamma=None, beta=None), run=RunFacts(values=True, global_step=300, updates=300)),
        facts(untouched("bn", gamma=1.0, beta=0.0), run=RunFacts(values=True, global_step=0)),
        facts(untouched("batch_normalization_2", gamma=1.0, beta=0.0), run=RunFacts(values=True, biases_moved=True)),
    )
