"""The stages of a gate, for all formats: what was done, what was not and why."""

from __future__ import annotations

from typing import Any

from bncheck.facts.findings import Gate, Stage, StageState

DONE, NOT_DONE = "✓", "✗"


def stages_told(gate: Gate) -> list[str]:
    """One part a stage: "static ✓ 0.1 s", or what it was instead, and why."""
    return [_told(stage) for stage in gate.stages]


def _told(stage: Stage) -> str:
    if stage.state is StageState.DONE:
        seconds = "" if stage.seconds is None else f" {stage.seconds:.1f} s"
        return f"{stage.name} {DONE}{seconds}"
    return f"{stage.name} {NOT_DONE} {stage.state.value}: {stage.why}"


def gate_document(gate: Gate | None) -> dict[str, Any] | None:
    """As plain dictionaries and lists; None where the report is no gate's."""
    if gate is None:
        return None
    return {
        "stages": [
            {"name": s.name, "state": s.state.value, "why": s.why, "how": s.how, "seconds": s.seconds}
            for s in gate.stages
        ],
        "against": gate.against,
        "max_time": gate.max_time,
        "max_memory": gate.max_memory,
        "seconds": gate.seconds,
        "peak_memory": gate.peak_memory,
    }
