"""What a repair did: which layers, by which method, and what inspection and comparison say before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bncheck.facts.findings import Report
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


@dataclass(frozen=True, kw_only=True)
class LayerLeft:
    """One layer that stayed as it was."""

    layer: str
    reason: str


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
class RepairReport:
    """The whole answer; it is what gets printed."""

    source: str
    output: str
    format: str
    method: str
    """"data" or "debias"."""
    repaired: tuple[LayerRepair, ...]
    left: tuple[LayerLeft, ...]
    files: tuple[str, ...]
    provenance: str
    before: Report
    after: Report
    population: PopulationFacts | None = None
    decay: float | None = None
    steps: int | None = None
    compared_before: Comparison | None = None
    compared_after: Comparison | None = None
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """That of inspecting the result."""
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
            "left": [vars(layer) for layer in self.left],
            "files": list(self.files),
            "provenance": self.provenance,
            "before": _side(self.before, self.compared_before),
            "after": _side(self.after, self.compared_after),
            "notes": list(self.notes),
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
