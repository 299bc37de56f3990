"""Limits of a gate: seconds of the whole, megabytes of what runs the model."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of a whole gate."""

    started: float
    """`time.monotonic()` at its start."""
    max_time: float | None = None
    """Seconds."""
    max_memory: float | None = None
    """Megabytes, of the process that runs the model."""

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def exceeded(self, memory: float | None = None) -> str:
        """Which limit is exceeded, as the rest of a sentence; empty while none is."""
        if self.max_time is not None and self.seconds > self.max_time:
            return f"the gate took longer than --max-time {self.max_time:g} (seconds)"
        if self.max_memory is not None and memory is not None and memory > self.max_memory:
            return f"running the model took more than --max-memory {self.max_memory:g} (megabytes)"
        return ""
