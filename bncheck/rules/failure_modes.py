"""How batch norm breaks, 96 modes, and which rule sees each: the table in the README is rendered from here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bncheck.rules.rule import Rule

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
    """One way in which batch norm breaks; rules say themselves which they see."""

    id: str
    title: str
    reason: str = ""
    """Why no rule sees it: no file shows it, or it is no fault."""


FAILURE_MODES: tuple[FailureMode, ...] = (
    FailureMode("A01", "update ops not attached to the train op"),
    FailureMode("A02", "TF-slim batch norm with a raw optimizer"),
    FailureMode("A03", "UPDATE_OPS read too early or in another graph"),
    FailureMode("A04", "control dependencies around an op that exists already"),
    FailureMode("A05", "dependency put on the loss instead of the train op"),
    FailureMode("A06", "tf.keras batch norm inside a TF1 session graph"),
    FailureMode("A07", "`model.updates` of another input"),
    FailureMode("A08", "Estimator with Keras batch norm"),
    FailureMode("A09", "learning phase that defaults to False and is never fed"),
    FailureMode("A10", "`training` left at its default False"),
    FailureMode("A11", "TF2 loop without `training=True`"),
    FailureMode("A12", "Keras 3 on JAX, non-trainable state not threaded back"),
    FailureMode("A13", "`training` not forwarded to sub-layers"),
    FailureMode("A14", "update op collected inside a conditional"),
    FailureMode("A15", "batch norm inside a while loop"),
    FailureMode("A16", "hand-written averages that are never applied"),
    FailureMode("A17", "hand-written batch norm without any statistics"),
    FailureMode("A18", "TF-Hub module trained without its updates"),
    FailureMode("A19", "v1 layers under TF2 behaviour"),
    FailureMode("B01", "updates that run outside their branch"),
    FailureMode("B02", "tensor `training=False` times uncomputed moments"),
    FailureMode("B03", "validation graph built in training mode with reuse"),
    FailureMode("B04", "updates hung on the loss, not on the train op"),
    FailureMode("B05", "frozen layers whose statistics keep moving"),
    FailureMode("B06", "frozen layers that train on batch statistics"),
    FailureMode(
        "B07",
        "meaning of `trainable=False` changed in TF2",
        "The files hold the flag, not which of its two meanings the author had in mind.",
    ),
    FailureMode("B08", "hard-coded `training=True`"),
    FailureMode("B09", "GAN: one network's step updates the other's statistics"),
    FailureMode("B10", "GAN: real and generated batches share statistics"),
    FailureMode("B11", "several updates of one layer in one step"),
    FailureMode(
        "B12",
        "statistics per micro-batch under gradient accumulation",
        "Accumulation leaves no trace in the files, and the statistics are noisier but not wrong.",
    ),
    FailureMode("B13", "padding and masks enter the statistics"),
    FailureMode("B14", "dropout right before batch norm"),
    FailureMode(
        "B15",
        "an evaluation hook moves the statistics of the live model",
        "It happens in Python, between steps; the files hold only its result.",
    ),
    FailureMode("B16", "last batch of size 1"),
    FailureMode("C01", "decay too high for the length of the run"),
    FailureMode("C02", "momentum convention inverted"),
    FailureMode("C03", "zero-debias applied by half"),
    FailureMode("C04", "negative moving variance"),
    FailureMode("C05", "one value a channel in the fused kernel"),
    FailureMode("C06", "batch too small"),
    FailureMode(
        "C07",
        "biased against Bessel-corrected variance",
        "The gap is 1 / (2 N); it is shown as the noise floor of `compare`, not as a fault.",
    ),
    FailureMode("C08", "half-precision statistics"),
    FailureMode("C09", "variance computed wrongly across replicas"),
    FailureMode("C10", "statistics from one tower by accident"),
    FailureMode(
        "C11",
        "every rank has statistics of its own",
        "One rank's checkpoint is consistent in itself; the others are not given.",
    ),
    FailureMode(
        "C12",
        "statistics averaged over replicas on saving",
        "The saved mean over replicas is a good estimate; the live model it differs from is missing.",
    ),
    FailureMode("C13", "averaged weights without new statistics"),
    FailureMode("C14", "average of the averages"),
    FailureMode("C15", "target network whose statistics are never copied"),
    FailureMode("C16", "statistics treated as weights"),
    FailureMode("C17", "weight decay on gamma and beta"),
    FailureMode("C18", "dead channels"),
    FailureMode("C19", "statistics from another domain"),
    FailureMode("C20", "averages stale at a large learning rate"),
    FailureMode("C21", "pitfalls of batch renormalisation"),
    FailureMode("D01", "Saver of trainable variables only"),
    FailureMode("D02", "weights-only load drops the statistics"),
    FailureMode("D03", "restore that leaves scopes out"),
    FailureMode("D04", "Keras weights loaded by automatic names"),
    FailureMode("D05", "order of weights depends on the trainable flags"),
    FailureMode("D06", "object checkpoint restored with expect_partial"),
    FailureMode("D07", "model built without the batch norm argument scope"),
    FailureMode("D08", "checkpoint from before the statistics settled"),
    FailureMode("E01", "epsilon of another framework"),
    FailureMode("E02", "epsilon below the fused kernel's minimum"),
    FailureMode("E03", "vectors in the wrong order"),
    FailureMode("E04", "Caffe's scale factor ignored"),
    FailureMode("E05", "standard deviation stored as variance"),
    FailureMode(
        "E06",
        "no gamma or no beta",
        "No fault: absent is told from missing (BN115), and every rule takes gamma as 1 and beta as 0.",
    ),
    FailureMode("E07", "wrong channel axis"),
    FailureMode("E08", "converter writes momentum 1"),
    FailureMode("E09", "home-made frozen batch norm class"),
    FailureMode("E10", "redundant bias before batch norm"),
    FailureMode(
        "E11",
        "numerics of layer versions differ",
        "Differences of rounding between kernels lie below the noise floor of `compare`.",
    ),
    FailureMode("F01", "exported graph still in training mode"),
    FailureMode("F02", "learning phase 1 baked in at export"),
    FailureMode("F03", "phase placeholder left in the served graph"),
    FailureMode("F04", "conditional batch norm in the served graph"),
    FailureMode("F05", "updates left in the served graph"),
    FailureMode("F06", "freezing drops the statistics"),
    FailureMode("F07", "nobody can tell the mode of a SavedModel"),
    FailureMode("F08", "Keras 3 export hides batch norm from name-based tools"),
    FailureMode("G01", "training graph given to the converter"),
    FailureMode("G02", "fault masked with default ranges"),
    FailureMode("G03", "batch norm after no foldable op"),
    FailureMode("G04", "folding tools that fold wrongly"),
    FailureMode(
        "G05",
        "quantization-aware rewrite of a graph in inference mode",
        "The rewriter refuses such a graph by itself, and no file comes of it.",
    ),
    FailureMode("G06", "quantization-aware training that never freezes batch norm"),
    FailureMode("G07", "per-tensor collapse after folding"),
    FailureMode("G08", "bias cut off at 32 bits"),
    FailureMode("G09", "per-channel scales that do not help"),
    FailureMode("G10", "quantizer between convolution and batch norm"),
    FailureMode("G11", "quantizing a model that was broken before"),
    FailureMode("G12", "shift of the mean by quantized weights"),
    FailureMode(
        "G13",
        "parity of fused kernels is not bit-exact",
        "Rounding of another order of summation lies below the noise floor of `compare`.",
    ),
)


def seen_by(mode: FailureMode, rules: Iterable[Rule]) -> tuple[str, ...]:
    """Codes of the rules that see a mode, the most telling first."""
    known = tuple(rules)
    first = [rule.code for rule in known if mode.id in rule.sees]
    return (*first, *(rule.code for rule in known if mode.id in rule.sees_too))


def markdown_table() -> str:
    """The table of the README: a row for each family and mode, with codes or the reason why there is none."""
    from bncheck.rules import RULES  # noqa: PLC0415 - a table of data does not load the rules unless rendered

    lines = ["| mode | what goes wrong | seen by |", "|---|---|---|"]
    for letter, family in FAMILIES.items():
        lines.append(f"| **{letter}** | **{family}** | |")
        modes = [mode for mode in FAILURE_MODES if mode.id.startswith(letter)]
        lines += [f"| {mode.id} | {mode.title} | {', '.join(seen_by(mode, RULES)) or mode.reason} |" for mode in modes]
    return "\n".join(lines) + "\n"
