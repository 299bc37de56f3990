"""What the checkpoints of one training run tell together that none of them tells alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum

from bncheck.facts.findings import Severity
from bncheck.facts.record import Record


class EventKind(Enum):
    """What happened to the statistics in the course of a run."""

    NEVER_STARTED = "updates never start"
    FROZEN = "statistics stay as they were"
    """All through the run, at other values than the initial ones: a fine-tune keeps them, or forgets the updates."""
    STOPPED = "updates stop"
    PAUSED = "updates pause"
    DIED = "channels die"
    JUMPED = "statistics jump"
    OTHER_LAYERS = "other layers"
    """The checkpoints do not hold the same layers: they are of several networks."""


class RunEvent(Record):
    """One thing that happened, and between which two checkpoints."""

    kind: EventKind
    severity: Severity
    message: str
    after: int | None = None
    """Place of the last checkpoint before it; None: it was so from the start."""
    by: int | None = None
    """Place of the first checkpoint that shows it; None: none does yet."""
    layers: tuple[str, ...] = ()


class CauseWindow(Record):
    """In which checkpoints a cause was found."""

    code: str
    slug: str
    severity: Severity
    spans: tuple[tuple[int, int], ...]
    """(first, last) places, both included, of each stretch of readable checkpoints."""

    @property
    def checkpoints(self) -> int:
        """How many have it, unreadable ones between them counted."""
        return sum(last - first + 1 for first, last in self.spans)


class RunStory(Record):
    """The story of one run. Places count its checkpoints from 0, in the order of their steps."""

    path: str
    """The folder that all checkpoints lie in."""
    names: tuple[str, ...]
    """Each checkpoint's, below that folder."""
    steps: tuple[int | None, ...]
    layers: int
    """The most that any checkpoint has."""
    events: tuple[RunEvent, ...] = ()
    causes: tuple[CauseWindow, ...] = ()
    outlook: str = ""
    """Since when, or from when on, the init share no longer matters."""
    series: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Title -> a number for each checkpoint, None unknown."""
    without_kernels: int = 0
    """Checkpoints of which nothing was judged that depends on kernels, for it changed nothing in those around them."""
    first_good: int | None = None
    """The first checkpoint with nothing to object to: of those, the first to quantize."""
    last_good: int | None = None
    why_none: str = ""
    """Why no checkpoint is good, where none is."""

    def at(self, place: int) -> str:
        """A checkpoint as sentences name it: "step 300 (model.ckpt-300)"."""
        step, name = self.steps[place], self.names[place]
        return name if step is None else f"step {step:,} ({name})"
