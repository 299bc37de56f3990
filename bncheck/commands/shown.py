"""What running a model showed, as the process that ran it tells the one that asked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bncheck.facts.layers import Facts
from bncheck.facts.lite import LiteFacts
from bncheck.facts.measurements import Comparison, QuantizedComparison


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What running a model showed."""

    comparison: Comparison | None = None
    quantized: QuantizedComparison | None = None
    lite: LiteFacts | None = None
    """Of the quantized file."""
    network: Facts | None = None
    """What the network tells, where it was built by a backbone's name or the user's code."""

    def joined(self, facts: Facts) -> Facts:
        """With what the files tell."""
        lite = facts.lite if self.lite is None else self.lite
        return replace(facts, comparison=self.comparison, quantized=self.quantized, lite=lite)
