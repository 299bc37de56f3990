"""How batch norm breaks, 96 modes, and which rule sees each: the table in the README is rendered from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CODES: Mapping[str, str] = MappingProxyType(
    {
        "BN001": "no-batch-norm-found",
        "BN002": "layer-not-understood",
        "BN003": "mode-unknown",
        "BN004": "statistics-unread",
        "BN005": "train-op-not-found",
        "BN101": "never-moved",
        "BN102": "some-layers-never-moved",
        "BN103": "init-share-too-high",
        "BN104": "one-of-pair-moved",
        "BN105": "non-finite",
        "BN106": "negative-variance",
        "BN107": "dead-channels",
        "BN108": "statistics-missing",
        "BN109": "vectors-swapped",
        "BN110": "exploding-variance",
        "BN111": "low-precision-statistics",
        "BN112": "collapsed-gamma",
        "BN113": "half-applied-debias",
        "BN114": "averaged-weights-stale-statistics",
        "BN115": "checkpoint-graph-mismatch",
        "BN116": "statistics-equal-reference",
        "BN201": "update-not-wired",
        "BN202": "some-updates-not-wired",
        "BN203": "no-update-op",
        "BN204": "trained-in-eval-mode",
        "BN205": "served-in-train-mode",
        "BN206": "mode-switch-left-open",
        "BN207": "update-outside-its-branch",
        "BN208": "too-many-updates-per-step",
        "BN209": "saver-omits-statistics",
        "BN210": "statistics-trained-or-regularised",
        "BN211": "decay-suspicious",
        "BN212": "epsilon-mismatch",
        "BN213": "update-fed-by-other-input",
        "BN214": "update-reachable-from-output",
        "BN215": "update-in-dead-branch-or-loop",
        "BN216": "other-tower-not-wired",
        "BN217": "axis-mismatch",
        "BN218": "redundant-bias",
        "BN219": "dropout-before-batch-norm",
        "BN220": "always-batch-statistics",
        "BN301": "output-junk-in-eval",
        "BN302": "layer-diverges",
        "BN303": "batch-too-small-to-judge",
        "BN304": "data-unlike-training",
        "BN305": "non-finite-activation",
        "BN306": "batch-dependent-eval",
        "BN401": "quantized-output-junk",
        "BN402": "layer-loses-precision",
        "BN403": "per-tensor-range-collapse",
        "BN404": "dead-channel-fold-scale",
        "BN405": "bias-saturated",
        "BN406": "not-folded",
        "BN407": "folded-other-statistics",
        "BN408": "broken-before-quantization",
        "BN409": "tensors-unmatched",
        "BN501": "worse-than-before",
    }
)
"""All codes ever given, with their slugs; stable, never reused. A code may be given before its rule is there."""

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "A": "The statistics are never updated",
        "B": "Updated, but at the wrong time, with the wrong data, or too often",
        "C": "Updated, but the numbers are wrong",
        "D": "Save and restore",
        "E": "Porting and configuration",
        "F": "Export and freezing",
        "G": "Folding and quantization",
    }
)


@dataclass(frozen=True)
class FailureMode:
    """One way in which batch norm breaks: the codes that see it, or the reason why none does."""

    id: str
    title: str
    codes: tuple[str, ...] = ()
    reason: str = ""


def _seen(identity: str, title: str, codes: str) -> FailureMode:
    """A mode that rules see, most telling first; `codes` without their "BN"."""
    return FailureMode(identity, title, tuple(f"BN{code}" for code in codes.split()))


def _unseen(identity: str, title: str, reason: str) -> FailureMode:
    """A mode that no file shows, or that is no fault."""
    return FailureMode(identity, title, reason=reason)


FAILURE_MODES: tuple[FailureMode, ...] = (
    _seen("A01", "update ops not attached to the train op", "201 101 301"),
    _seen("A02", "TF-slim batch norm with a raw optimizer", "201 101"),
    _seen("A03", "UPDATE_OPS read too early or in another graph", "201 202 102"),
    _seen("A04", "control dependencies around an op that exists already", "201 101"),
    _seen("A05", "dependency put on the loss instead of the train op", "201 101"),
    _seen("A06", "tf.keras batch norm inside a TF1 session graph", "201 101"),
    _seen("A07", "`model.updates` of another input", "213"),
    _seen("A08", "Estimator with Keras batch norm", "201 101"),
    _seen("A09", "learning phase that defaults to False and is never fed", "206 101"),
    _seen("A10", "`training` left at its default False", "204 101"),
    _seen("A11", "TF2 loop without `training=True`", "101 204"),
    _seen("A12", "Keras 3 on JAX, non-trainable state not threaded back", "101"),
    _seen("A13", "`training` not forwarded to sub-layers", "102 204"),
    _seen("A14", "update op collected inside a conditional", "215"),
    _seen("A15", "batch norm inside a while loop", "215"),
    _seen("A16", "hand-written averages that are never applied", "203 101"),
    _seen("A17", "hand-written batch norm without any statistics", "220"),
    _seen("A18", "TF-Hub module trained without its updates", "201 116"),
    _seen("A19", "v1 layers under TF2 behaviour", "203 101"),
    _seen("B01", "updates that run outside their branch", "207"),
    _seen("B02", "tensor `training=False` times uncomputed moments", "105 305"),
    _seen("B03", "validation graph built in training mode with reuse", "213 208"),
    _seen("B04", "updates hung on the loss, not on the train op", "201"),
    _unseen(
        "B05",
        "frozen layers whose statistics keep moving",
        "Frozen weights show only against an earlier checkpoint; `inspect run DIR` shows both.",
    ),
    _seen("B06", "frozen layers that train on batch statistics", "302"),
    _unseen(
        "B07",
        "meaning of `trainable=False` changed in TF2",
        "The files hold the flag, not which of its two meanings the author had in mind.",
    ),
    _seen("B08", "hard-coded `training=True`", "205 214 306"),
    _seen("B09", "GAN: one network's step updates the other's statistics", "213"),
    _seen("B10", "GAN: real and generated batches share statistics", "208 213"),
    _seen("B11", "several updates of one layer in one step", "208 106 110"),
    _unseen(
        "B12",
        "statistics per micro-batch under gradient accumulation",
        "Accumulation leaves no trace in the files, and the statistics are noisier but not wrong.",
    ),
    _seen("B13", "padding and masks enter the statistics", "302 304"),
    _seen("B14", "dropout right before batch norm", "219"),
    _unseen(
        "B15",
        "an evaluation hook moves the statistics of the live model",
        "It happens in Python, between steps; the files hold only its result.",
    ),
    _seen("B16", "last batch of size 1", "105 110"),
    _seen("C01", "decay too high for the length of the run", "103 211"),
    _seen("C02", "momentum convention inverted", "211"),
    _seen("C03", "zero-debias applied by half", "113"),
    _seen("C04", "negative moving variance", "106"),
    _seen("C05", "one value a channel in the fused kernel", "105"),
    _seen("C06", "batch too small", "302 303"),
    _unseen(
        "C07",
        "biased against Bessel-corrected variance",
        "The gap is 1 / (2 N); it is shown as the noise floor of `compare`, not as a fault.",
    ),
    _seen("C08", "half-precision statistics", "111 105"),
    _seen("C09", "variance computed wrongly across replicas", "302 106"),
    _seen("C10", "statistics from one tower by accident", "216"),
    _unseen(
        "C11",
        "every rank has statistics of its own",
        "One rank's checkpoint is consistent in itself; the others are not at hand.",
    ),
    _unseen(
        "C12",
        "statistics averaged over replicas on saving",
        "The saved mean over replicas is a good estimate; the live model it differs from is not at hand.",
    ),
    _seen("C13", "averaged weights without new statistics", "114 302"),
    _seen("C14", "average of the averages", "114"),
    _seen("C15", "target network whose statistics are never copied", "102 116"),
    _seen("C16", "statistics treated as weights", "210"),
    _seen("C17", "weight decay on gamma and beta", "112 210"),
    _seen("C18", "dead channels", "107 404"),
    _seen("C19", "statistics from another domain", "116 304"),
    _seen("C20", "averages stale at a large learning rate", "302"),
    _seen("C21", "pitfalls of batch renormalisation", "105 302"),
    _seen("D01", "Saver of trainable variables only", "209 108"),
    _seen("D02", "weights-only load drops the statistics", "101 108"),
    _seen("D03", "restore that leaves scopes out", "102 115"),
    _seen("D04", "Keras weights loaded by automatic names", "101 102"),
    _seen("D05", "order of weights depends on the trainable flags", "109"),
    _seen("D06", "object checkpoint restored with expect_partial", "102 115"),
    _seen("D07", "model built without the batch norm argument scope", "115"),
    _seen("D08", "checkpoint from before the statistics settled", "103"),
    _seen("E01", "epsilon of another framework", "212"),
    _seen("E02", "epsilon below the fused kernel's minimum", "212"),
    _seen("E03", "vectors in the wrong order", "109"),
    _seen("E04", "Caffe's scale factor ignored", "302"),
    _seen("E05", "standard deviation stored as variance", "302"),
    _unseen(
        "E06",
        "no gamma or no beta",
        "No fault: absent is told from missing (BN115), and every rule takes gamma as 1 and beta as 0.",
    ),
    _seen("E07", "wrong channel axis", "217"),
    _seen("E08", "converter writes momentum 1", "211"),
    _seen("E09", "home-made frozen batch norm class", "002 302"),
    _seen("E10", "redundant bias before batch norm", "218"),
    _unseen(
        "E11",
        "numerics of layer versions differ",
        "Differences of rounding between kernels lie below the noise floor of `compare`.",
    ),
    _seen("F01", "exported graph still in training mode", "205"),
    _seen("F02", "learning phase 1 baked in at export", "205"),
    _seen("F03", "phase placeholder left in the served graph", "206"),
    _seen("F04", "conditional batch norm in the served graph", "206"),
    _seen("F05", "updates left in the served graph", "214"),
    _seen("F06", "freezing drops the statistics", "205 220"),
    _seen("F07", "nobody can tell the mode of a SavedModel", "003 205 206"),
    _seen("F08", "Keras 3 export hides batch norm from name-based tools", "001"),
    _seen("G01", "training graph given to the converter", "205 406"),
    _seen("G02", "fault masked with default ranges", "401"),
    _seen("G03", "batch norm after no foldable op", "406"),
    _seen("G04", "folding tools that fold wrongly", "407 409"),
    _unseen(
        "G05",
        "quantization-aware rewrite of a graph in inference mode",
        "The rewriter refuses such a graph by itself, and no file comes of it.",
    ),
    _seen("G06", "quantization-aware training that never freezes batch norm", "205 302"),
    _seen("G07", "per-tensor collapse after folding", "403"),
    _seen("G08", "bias cut off at 32 bits", "405"),
    _seen("G09", "per-channel scales that do not help", "404 402"),
    _seen("G10", "quantizer between convolution and batch norm", "406 402"),
    _seen("G11", "quantizing a model that was broken before", "408"),
    _seen("G12", "shift of the mean by quantized weights", "402"),
    _unseen(
        "G13",
        "parity of fused kernels is not bit-exact",
        "Rounding of another order of summation lies below the noise floor of `compare`.",
    ),
)


def markdown_table() -> str:
    """The table of the README: a row for each family and mode, with codes or the reason why there is none.

    `*` marks codes whose rule is not in this version.
    """
    from bncheck.rules import RULES  # noqa: PLC0415 - a table of data does not load the rules unless rendered

    at_work = {rule.code for rule in RULES}
    lines = ["| mode | what goes wrong | seen by |", "|---|---|---|"]
    for letter, family in FAMILIES.items():
        lines.append(f"| **{letter}** | **{family}** | |")
        for mode in FAILURE_MODES:
            if mode.id.startswith(letter):
                codes = ", ".join(code if code in at_work else f"{code}*" for code in mode.codes)
                lines.append(f"| {mode.id} | {mode.title} | {codes or mode.reason} |")
    return "\n".join(lines) + "\n"
