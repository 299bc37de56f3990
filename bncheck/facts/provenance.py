"""What the file beside a repaired model says of the repair, held against the statistics that the model has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncheck.facts.record import Record

if TYPE_CHECKING:
    from bncheck.facts.inputs import InputSummary


class Provenance(Record):
    """Where a model's statistics come from, as bncheck wrote it down."""

    file: str
    """Its name."""
    confirmed: bool
    """Whether the statistics are those that were written: their digest is the one in the file."""
    verdict: str = ""
    """Of the repair: "pass", "unverified"; empty where the file does not tell."""
    method: str = ""
    """"data" or "debias"."""
    samples: int | None = None
    """That the statistics were estimated from."""
    input: InputSummary | None = None
    """For which input they hold; None where the file does not tell."""

    @property
    def told(self) -> str:
        """As the rest of a sentence: "repaired by bncheck from 640 samples, verdict pass"."""
        source = f" from {self.samples:,} samples" if self.samples is not None else ""
        source = " without data (init share undone)" if self.method == "debias" else source
        return f"repaired by bncheck{source}" + (f", verdict {self.verdict}" if self.verdict else "")
