"""One way to open what is judged: every file of a target is opened once, whatever the command does with it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bncheck
from bncheck import sources
from bncheck.commands.target import read_runnable, read_target
from bncheck.facts.errors import UsageError
from bncheck.recognise import recognise
from bncheck.repair import repair
from bncheck.settings.options import Options

FIXTURES = Path(__file__).parents[2] / "fixtures" / "mobilenet_v2"
FORGOTTEN = FIXTURES / "forgotten" / "model.ckpt-300"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file is parsed in this process: "reader name" -> times. The real readers do it."""
    times: Counter[str] = Counter()
    really = sources._read

    def counted(source: str, path: Path) -> Any:
        times[f"{source} {path.name}"] += 1
        return really(source, path)

    monkeypatch.setattr(sources, "_read", counted)
    return times


@pytest.fixture
def recognised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets that were recognised, one after the other."""
    found: list[str] = []

    def counted(raw: Any, options: Any) -> Any:
        found.append(raw.path.name)
        return recognise(raw, options)

    monkeypatch.setattr("bncheck.commands.target.recognise", counted)
    return found


ONCE = {"bundle.checkpoint model.ckpt-300": 1, "graph.graphs model.ckpt-300.meta": 1}


def test_inspect_reads_once(read: Counter[str], recognised: list[str]) -> None:
    """The checkpoint and the graph beside it, also where the path is the graph's."""
    bncheck.inspect_checkpoint(FORGOTTEN)
    assert read == ONCE
    assert recognised == ["model.ckpt-300"]
    read.clear()
    bncheck.inspect_checkpoint(f"{FORGOTTEN}.meta")
    assert sorted(read.values()) == [1, 1]


def test_gate_reads_once(read: Counter[str], recognised: list[str]) -> None:
    """Though it judges twice, before a model would be run and at the end."""
    report = bncheck.gate(FORGOTTEN, data="synthetic", max_time=1e-9)
    assert report.gate is not None
    assert read == ONCE
    assert recognised == ["model.ckpt-300"]


@pytest.mark.tensorflow
def test_compare_reads_once(read: Counter[str], recognised: list[str]) -> None:
    """Recognised once to see that the files rest, and by what makes the twins."""
    bncheck.compare_train_vs_eval(FORGOTTEN, data="synthetic", batch_size=4, batches=1)
    assert read == ONCE
    assert recognised == ["model.ckpt-300"]


@pytest.mark.tensorflow
def test_repair_reads_each_side_once(read: Counter[str], recognised: list[str], tmp_path: Path) -> None:
    """The source and the copy."""
    for file in FORGOTTEN.parent.glob(f"{FORGOTTEN.name}.*"):
        shutil.copy(file, tmp_path)
    noise = np.random.default_rng(0).normal(size=(16, 64, 64, 3))
    np.savez(tmp_path / "d.npz", images=(noise.cumsum(1).cumsum(2) / 64).astype(np.float32))  # like clouds
    repair(tmp_path / FORGOTTEN.name, tmp_path / "fixed", data=tmp_path / "d.npz", batch_size=8)
    assert {name: times for name, times in read.items() if times > 1} == {}
    assert recognised == ["model.ckpt-300", "fixed"]


def test_network_is_given_once() -> None:
    """A graph and a backbone at once are refused before anything is read."""
    with pytest.raises(UsageError, match="exclude each other"):
        read_runnable("nowhere.ckpt", Options(graph="a.meta", model="mobilenet_v2"))


def test_graph_alone() -> None:
    """The `.meta` beside a checkpoint is the checkpoint's, unless it is to be judged by itself."""
    assert read_target(f"{FORGOTTEN}.meta", Options()).raw.tensors
    assert not read_target(f"{FORGOTTEN}.meta", Options(), alone=True).raw.tensors
