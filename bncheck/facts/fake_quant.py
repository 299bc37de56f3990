"""Facts of quantization-aware training: the ranges within which a graph rounds, and when training changes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bncheck.facts.arrays import PerChannel


class Rounds(Enum):
    """What a FakeQuant op rounds."""

    WEIGHTS = "weights"
    ACTIVATIONS = "activations"


@dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """One end of a range: a stored variable of shape () or (channels,)."""

    name: str
    key: str = ""
    """Of the stored tensor; empty where there is none."""
    values: PerChannel | None = None
    """None where they are not at hand."""
    initial: float | None = None
    """What the graph initialises it with; None unknown."""
    companion: str = ""
    """Key of the biased average that a zero-debiased update writes it from; empty where there is none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedRange:
    """The range of one FakeQuant op."""

    name: str
    """The op."""
    rounds: Rounds
    low: Bound
    high: Bound
    bits: int
    narrow: bool
    """Whether the lowest level is left out, as for weights."""
    per_channel: bool = False
    layer: str | None = None
    """The batch norm that is folded into the weights which it rounds."""
    extent: tuple[PerChannel, PerChannel] | None = None
    """(lowest, highest) folded weight with the stored statistics, 0 included; None for activations, or unread."""
    noise: float | None = None
    """Energy of the rounding error against that of the folded weights, within the recorded range."""
    least_noise: float | None = None
    """The same within `extent`."""


@dataclass(frozen=True, kw_only=True)
class StepReached:
    """A step from which training goes on otherwise, and how far it came."""

    step: int
    counter: str
    """Name of the variable that counts."""
    at: int | None
    """Its stored value; None where it is not at hand."""

    @property
    def reached(self) -> bool | None:
        """Whether the last step of training was past it; None unknown."""
        return None if self.at is None else self.at >= self.step


@dataclass(frozen=True, kw_only=True, eq=False)
class FakeQuantFacts:
    """All of it in one graph."""

    ranges: tuple[RecordedRange, ...]
    """In forward order."""
    folded: int
    """Batch norms that the graph folds into the weights itself."""
    corrected: bool = False
    """Whether it is a graph of training, which takes the batch's statistics until batch norm is frozen."""
    freeze: StepReached | None = None
    """From when on batch norm normalises with the moving statistics, which then stand still (`freeze_bn_delay`)."""
    delay: StepReached | None = None
    """From when on values are rounded (`quant_delay`)."""
