"""Which stages are planned for which model, how they end, and how measurements join what the files tell."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bncheck.commands.gate import parent as isolated
from bncheck.commands.gate.budget import Budget
from bncheck.commands.gate.child import Request
from bncheck.commands.gate.parent import Outcome
from bncheck.commands.gate.plan import Measuring
from bncheck.commands.shown import Shown
from bncheck.commands.target import Target
from bncheck.facts.findings import StageName, StageState
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import Facts
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel
from bncheck.testing import batch_norm, compared, difference, facts, folded, lite, with_graph

NETWORK = compared(difference("a"))
MEASURED = Shown(comparison=NETWORK.comparison)


def _ran(
    monkeypatch: pytest.MonkeyPatch,
    files: Facts,
    outcome: Outcome,
    **options: Any,
) -> tuple[Any, list[Request]]:
    """What comes of a run that ends so, and what was asked for; what runs in a process is tested with processes."""
    asked: list[Request] = []

    def run(request: Request, *_: object, **_named: object) -> Outcome:
        asked.append(request)
        return outcome

    monkeypatch.setattr(isolated, "run", run)
    given = Options(data="d.npz", **options)
    measuring = Measuring(
        options=given, budget=Budget(started=time.monotonic()), progress=lambda _stage, _done, _total: None
    )
    raw = RawModel(path=Path("model"), format=Format(FileKind.TF1_CHECKPOINT))
    target = Target(path="model", raw=raw, options=given, known=files)
    return measuring.ran(target), asked


def test_both_stages_in_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request for both; each stage has its own time."""
    outcome = Outcome(shown=MEASURED, reached={StageName.MODES: 4.0, StageName.QUANTIZED: 6.5})
    ran, (request,) = _ran(monkeypatch, facts(batch_norm("a")), outcome, scheme="dynamic", batches=3)
    asked = request.options
    assert (request.path, asked.data, asked.batches, asked.scheme) == ("model", "d.npz", 3, "dynamic")
    assert asked.quantize
    assert [(s.name, s.state, s.seconds) for s in ran.stages] == [
        (StageName.MODES, StageState.DONE, 4.0),
        (StageName.QUANTIZED, StageState.DONE, 2.5),
    ]


def test_without_quantized_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is that of train against eval alone."""
    outcome = Outcome(shown=MEASURED, reached={StageName.MODES: 4.0})
    ran, (request,) = _ran(monkeypatch, facts(batch_norm("a")), outcome, quantize=False)
    assert not request.options.quantize
    assert [s.state for s in ran.stages] == [StageState.DONE, StageState.LEFT_OUT]


@pytest.mark.parametrize(
    ("outcome", "states"),
    [
        (Outcome(state=StageState.OVER_BUDGET, why="long"), [StageState.OVER_BUDGET] * 2),
        (
            Outcome(shown=MEASURED, reached={StageName.MODES: 1.0}, state=StageState.OVER_BUDGET, why="long"),
            [StageState.DONE, StageState.OVER_BUDGET],
        ),
        (
            Outcome(shown=MEASURED, reached={StageName.MODES: 1.0}, state=StageState.IMPOSSIBLE, why="no such op"),
            [StageState.DONE, StageState.IMPOSSIBLE],
        ),
        (Outcome(shown=MEASURED, reached={StageName.MODES: 1.0}), [StageState.DONE, StageState.IMPOSSIBLE]),
    ],
)
def test_ends(outcome: Outcome, states: list[StageState], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was reached is done, the rest ended as the run did, and always with a reason."""
    ran, _ = _ran(monkeypatch, facts(batch_norm("a")), outcome)
    assert [s.state for s in ran.stages] == states
    assert all(s.why for s in ran.stages if s.state is not StageState.DONE)
    assert (ran.facts.comparison is None) is (outcome.shown is None)


def test_tflite(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TFLite file has no train mode, and is compared only with another one."""
    files = lite(folded("conv"))
    ran, asked = _ran(monkeypatch, files, Outcome())
    assert asked == []
    assert [s.state for s in ran.stages] == [StageState.LEFT_OUT] * 2
    ran, (request,) = _ran(
        monkeypatch, files, Outcome(shown=Shown(), reached={StageName.QUANTIZED: 1.0}), quantized="q.tflite"
    )
    assert request.options.quantized == "q.tflite"
    assert [s.state for s in ran.stages] == [StageState.LEFT_OUT, StageState.DONE]


def test_own_graph_knows_more_than_a_named_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--model` the wiring of the own graph stays; without one, or of other layers, the built one counts."""
    own = with_graph(batch_norm("a"))
    outcome = Outcome(shown=replace(MEASURED, network=NETWORK), reached={StageName.MODES: 1.0})
    ran, _ = _ran(monkeypatch, own, outcome, model="mobilenet_v2")
    assert ran.facts.graph is own.graph
    assert ran.facts.comparison is MEASURED.comparison
    bare, _ = _ran(monkeypatch, facts(batch_norm("a")), outcome, model="mobilenet_v2")
    assert bare.facts.comparison is MEASURED.comparison
    assert bare.facts.layers is NETWORK.layers
    other, _ = _ran(monkeypatch, replace(own, layers=(batch_norm("b"),)), outcome, model="mobilenet_v2")
    assert other.facts.layers is NETWORK.layers
