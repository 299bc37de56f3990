"""What samples look like before a model sees them: their range, and whether they can be data at all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class InputSummary:
    """Numbers of all samples together, as the model is given them; of several inputs the first."""

    samples: int
    distinct: int
    """Samples that differ from all before them, bit by bit."""
    low: float
    high: float
    mean: float
    deviation: float
    neighbours: float | None = None
    """Correlation of pixels with those beside and below them, -1 to 1; photographs have above 0.5, noise about 0. None
    where samples are no images."""
    declared: bool = False
    """Whether the user said in which range the model takes its input, by `--preprocess`."""

    @property
    def constant(self) -> bool:
        """Whether every number of every sample is the same."""
        return self.deviation == 0

    @property
    def centred(self) -> bool:
        """Whether 0 lies well inside the range, as preprocessing that subtracts a mean or half the range makes it."""
        return self.low < 0 < self.high and abs(self.mean) < self.deviation
