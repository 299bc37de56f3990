"""What a repair did: which layers, by which method, and what inspection and comparison say before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bncheck.facts.findings import ExitCode, Report
from bncheck.facts.inputs import InputSummary
from bncheck.facts.measurements import Comparison


@dataclass(frozen=True, kw_only=True)
class LayerRepair:
    """One layer that got new statistics."""

    layer: str
    mean: str
    """Key of the tensor in the file."""
    variance: str
    variance_ratio: float | None
    """Geometric mean over channels of new variance + epsilon over old; None where there was no finite old one."""
    share: float | None = None
    """Init share that was undone; None by data."""
    clipped: int = 0
    """Channels whose variance was set to 0, rounding having made it negative."""
    added: tuple[str, ...] = ()
    """Keys that the source lacked."""
    from_weights: float | None = None
    """Where the mean is the one that the weights before the layer predict: by how many deviations (root mean square)
    it differs from the average's; None where it is the average's, or comes from data."""
    mean_noise: float | None = None
    """Standard error of its median channel's mean, in deviations, as halves of the data differ; None without data."""
    variance_noise: float | None = None
    """The same of the natural logarithm of its variance."""


@dataclass(frozen=True, kw_only=True)
class LayerLeft:
    """One layer that stayed as it was."""

    layer: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RangeRepair:
    """One range of quantization-aware training that was recorded anew."""

    name: str
    """The op that rounds."""
    rounds: str
    """"weights" or "activations"."""
    low: str
    """Key of the tensor in the file."""
    high: str
    before: tuple[float, float] | None
    """(lowest, highest) over the channels; None where it was not at hand."""
    after: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class PopulationFacts:
    """What re-estimation ran on."""

    description: str
    samples: int
    batches: int
    batch_size: int
    converged: bool
    change: float
    """The largest change that the last batch made: of a layer's means in standard deviations, or log variances."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """What a model answers with new statistics, before they are written. Shares lie between 0 and 1; what is told of
    classes is None where no output is scores of classes, accuracies also without labels.
    """

    samples: int
    input: InputSummary
    labelled: int
    classes: int | None
    labels_seen: int
    """Different labels."""
    answers: int
    """Different classes that train mode answers with."""
    commonest: float | None
    """Share of samples that get train mode's most frequent answer."""
    accuracy_train: float | None
    accuracy_before: float | None
    """In eval mode as it is stored; None also where the file lacks statistics."""
    accuracy_after: float | None
    """In eval mode with new statistics, each sample judged by those of the halves of the data that it is not in."""
    agreement_before: float | None
    """Of eval mode as stored with train mode."""
    agreement_after: float | None
    error_after: float
    """NMSE of eval mode with new statistics against train mode."""
    halves_agreement: float | None
    """Between the models that either half of the data makes; None where a half is too small to make one."""
    halves_loss: float | None
    """Accuracy that the one would cost in the place of the other, by their own probabilities."""
    halves_loss_error: float | None
    """Its standard error, from samples and from ways to cut them."""
    splits: int
    """Ways in which the data were cut into halves; what is told of halves is the mean over them."""
    halves_error: float | None
    """NMSE of the one against the other."""
    entropy: float | None
    """Mean entropy of train mode's answers, in nats."""
    scrambled_entropy: float | None
    """The same on the same pixels dealt anew over the samples, in which nothing can be recognised."""
    range_factor: float | None = None
    """By how much the input is larger than that of the stored statistics, as the first layer tells; None: nothing."""


class RepairVerdict(Enum):
    """What a repair came to."""

    PASS = "pass"
    UNVERIFIED = "unverified"
    """Written, and nothing independent confirms it."""
    REFUSED = "refused"
    """Not written, for it makes nothing better."""
    FAIL = "fail"
    """Written, and the copy is still broken."""


@dataclass(frozen=True, kw_only=True)
class RepairJudgement:
    """The verdict on a repair, and why."""

    verdict: RepairVerdict
    reasons: tuple[str, ...] = ()
    """Why it is not a pass: sentences."""
    told: tuple[str, ...] = ()
    """What carries it, and for which input it holds: sentences."""
    assumes: str = ""
    """What a pass takes for granted since no evidence tells, as a sentence; empty where it takes nothing."""
    samples_needed: int | None = None
    """About how many would settle the statistics; None where they are, or nothing tells."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RepairReport:
    """The whole answer; it is what gets printed."""

    source: str
    output: str
    format: str
    method: str
    """"data", "debias" or "rescue"."""
    repaired: tuple[LayerRepair, ...]
    left: tuple[LayerLeft, ...]
    files: tuple[str, ...]
    provenance: str
    before: Report
    after: Report
    ranges: tuple[RangeRepair, ...] = ()
    """Of quantization-aware training, which belong to the statistics."""
    averaged: tuple[LayerRepair, ...] = ()
    """Statistics of the averaged weights, where the checkpoint holds both and both were repaired."""
    averaged_before: Comparison | None = None
    averaged_after: Comparison | None = None
    population: PopulationFacts | None = None
    decay: float | None = None
    steps: int | None = None
    compared_before: Comparison | None = None
    compared_after: Comparison | None = None
    notes: tuple[str, ...] = ()
    trial: Trial | None = None
    """None without data."""
    judgement: RepairJudgement
    allow_unverified: bool = False

    @property
    def verdict(self) -> RepairVerdict:
        """FAIL where the copy was written and is still broken, whatever the trial said."""
        broken = bool(self.files) and self.after.exit_code is ExitCode.FAIL
        return RepairVerdict.FAIL if broken else self.judgement.verdict

    @property
    def assumes(self) -> str:
        """What the pass takes for granted; empty where it is none, or takes nothing."""
        return self.judgement.assumes if self.verdict is RepairVerdict.PASS else ""

    @property
    def exit_code(self) -> ExitCode:
        """FAIL where nothing was written or the copy is still broken, NOTHING where nothing confirms it."""
        if self.verdict in (RepairVerdict.REFUSED, RepairVerdict.FAIL):
            return ExitCode.FAIL
        if self.after.exit_code is ExitCode.PASS and self.verdict is RepairVerdict.UNVERIFIED:
            return ExitCode.PASS if self.allow_unverified else ExitCode.NOTHING
        return self.after.exit_code

    def to_json(self) -> str:
        """Everything but the layers' vectors, as JSON."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)

    def as_dict(self) -> dict[str, Any]:
        """What `to_json` writes."""
        return {
            "source": self.source,
            "output": self.output,
            "format": self.format,
            "method": self.method,
            "decay": self.decay,
            "steps": self.steps,
            "population": None if self.population is None else vars(self.population),
            "repaired": [{**vars(layer), "added": list(layer.added)} for layer in self.repaired],
            "averaged": [{**vars(layer), "added": list(layer.added)} for layer in self.averaged],
            "ranges": [vars(recorded) for recorded in self.ranges],
            "left": [vars(layer) for layer in self.left],
            "files": list(self.files),
            "provenance": self.provenance,
            "before": _side(self.before, self.compared_before),
            "after": _side(self.after, self.compared_after),
            "notes": list(self.notes),
            "verdict": self.verdict.value,
            "reasons": list(self.judgement.reasons),
            "told": list(self.judgement.told),
            "assumes": self.assumes,
            "samples_needed": self.judgement.samples_needed,
            "trial": None if self.trial is None else {**vars(self.trial), "input": vars(self.trial.input)},
            "exit_code": self.exit_code,
        }


def _side(report: Report, comparison: Comparison | None) -> Mapping[str, Any]:
    side: dict[str, Any] = {
        "verdict": report.verdict.value,
        "findings": [
            {"code": f.code, "slug": f.slug, "severity": f.severity.value, "layers": len(f.layers)}
            for f in report.findings
        ],
    }
    if comparison is not None:
        output = comparison.outputs[0] if comparison.outputs else None
        side["accuracy"] = {"train": comparison.accuracy.train, "eval": comparison.accuracy.eval}
        side["agreement"] = None if output is None else output.agreement
        side["output_nmse"] = None if output is None else output.nmse
    return side
