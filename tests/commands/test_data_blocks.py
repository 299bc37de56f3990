"""Data run in blocks, in this process, in others and on a real dask cluster: what one pass tells, to 1e-12."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.commands import data_blocks
from bncheck.commands.compare import compare_train_vs_eval
from bncheck.engine.shards import Engine
from bncheck.facts.errors import BncheckError, UsageError
from bncheck.facts.repairs import RepairReport
from bncheck.repair import repair
from bncheck.sources import open_model

pytestmark = pytest.mark.tensorflow

TINY = Path(__file__).parents[2] / "fixtures" / "tiny" / "healthy" / "create_train_op" / "model.ckpt-80"
DIGITS = Path(__file__).parents[2] / "fixtures" / "mobilenet_v2" / "forgotten" / "model.ckpt-300"
BATCH, BLOCKS = 16, 3
"""Samples of a batch of TINY, as its graph has it; blocks of the data, the last of one batch."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that grow brighter, so that every block differs."""
    samples = BATCH * (data_blocks.BATCHES * (BLOCKS - 1) + 1)
    images = np.random.default_rng(3).normal(size=(samples, 6, 6, 3)) + np.linspace(-1, 1, samples)[:, None, None, None]
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, allow_pickle=False, images=images.astype(np.float32))
    return path


@pytest.fixture(scope="module")
def one_pass(data: Path) -> dict[str, Any]:
    """What a comparison tells without an engine."""
    return compared(data)


def compared(data: Path, **more: Any) -> dict[str, Any]:
    """The comparison of a report, as JSON."""
    found: dict[str, Any] = json.loads(compare_train_vs_eval(TINY, data=data, **more).to_json())["comparison"]
    return found


def require_equal(found: Any, wanted: Any) -> None:
    """Alike to 1e-12 in every number; seconds apart."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted.keys() - {"seconds"}:
            require_equal(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            require_equal(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-12, abs=1e-15)
    else:
        assert found == wanted


def test_blocks_tell_what_one_pass_tells(data: Path, one_pass: dict[str, Any]) -> None:
    """Whole batches in order; the last block is a short one."""
    heard: list[tuple[int, int | None]] = []
    blocks = compared(data, engine="local:1", progress=lambda done, all_: heard.append((done, all_)))
    require_equal(blocks, one_pass)
    assert heard == [(128, 272), (256, 272), (272, 272)]


def changed_blocks(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[data_blocks.DataBlock, Callable[[], Any]], Any]
) -> None:
    """What a block gives is what `change` makes of it."""

    def results(_where: Engine, work: Callable[[Any], Any], blocks: Iterable[Any], *, lost: object) -> Iterator[Any]:
        del lost
        for block in blocks:
            yield change(block, lambda block=block: work(block))

    monkeypatch.setattr(data_blocks, "results", results)


def test_a_block_that_is_lost_is_left_out_and_told(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others stand; the first, or two in a row, are too much."""
    changed_blocks(monkeypatch, lambda block, work: None if block.first == data_blocks.BATCHES else work())
    found = compared(data, engine="local:2")["data"]
    assert (found["samples"], found["batches"]) == (BATCH * (data_blocks.BATCHES + 1), data_blocks.BATCHES + 1)
    assert "without batches 9 to 16" in found["description"]
    changed_blocks(monkeypatch, lambda block, work: None if not block.first else work())
    with pytest.raises(BncheckError, match="batches 1 to 8"):
        compared(data, engine="local:2")
    changed_blocks(monkeypatch, lambda block, work: None if block.first else work())
    with pytest.raises(BncheckError, match="batches 17 to 24"):
        compared(data, engine="local:2")


def test_a_model_that_is_saved_meanwhile_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two models make no sums."""
    changed_blocks(monkeypatch, lambda block, work: replace(work(), model="another") if block.first else work())
    with pytest.raises(BncheckError, match="changed while its data were run"):
        compared(data, engine="local:2")


def test_another_engine_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    """For a comparison and for a repair."""
    with pytest.raises(UsageError, match="there is no engine 'spark'"):
        compare_train_vs_eval(tmp_path / "none", data=tmp_path / "none", engine="spark")
    with pytest.raises(UsageError, match="there is no engine 'spark'"):
        repair(tmp_path / "none", tmp_path / "out", data=tmp_path / "none", engine="spark")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two worker processes and their scheduler."""
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as found:
        yield found.scheduler_address.replace("tcp://", "dask://")


def kill_a_worker(engine: str) -> None:
    """One process of those that work."""
    if engine.startswith("local"):
        process = next(child for child in multiprocessing.active_children() if child.pid is not None)
        process.kill()
        return
    import distributed

    with distributed.Client(engine.replace("dask://", "tcp://"), set_as_default=False) as client:
        pids = client.run(os.getpid)
    os.kill(next(iter(pids.values())), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local:2", "dask"])
def test_a_killed_process_changes_no_comparison(
    engine: str, data: Path, one_pass: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """One of two is killed once the first block is there."""
    where = request.getfixturevalue("cluster") if engine == "dask" else engine
    killed: list[int] = []

    def kill(done: int, _: int | None) -> None:
        if not killed:
            killed.append(done)
            kill_a_worker(where)

    require_equal(compared(data, engine=where, progress=kill), one_pass)
    assert killed == [128]


@pytest.mark.slow
def test_a_killed_process_changes_no_repair(cluster: str, tmp_path: Path) -> None:
    """Digits, forgotten updates: every tensor and every figure on trial, with one of two workers killed."""
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    from fixtures.digits import digits

    found = digits()
    images = tmp_path / "images.npz"
    np.savez(images, allow_pickle=False, images=found.train_images[:576], labels=found.train_labels[:576])
    killed: list[int] = []

    def kill(stage: str, done: int) -> None:
        if stage == "estimate" and done and not killed:
            killed.append(done)
            kill_a_worker(cluster)

    def repaired(name: str, **more: Any) -> tuple[RepairReport, dict[str, Any]]:
        (tmp_path / name).mkdir()
        report = repair(DIGITS, tmp_path / name / "model", data=images, tolerance=0.0, **more)
        tensors = open_model(tmp_path / name / "model").tensors
        return report, {key: np.asarray(tensors[key].read()) for key in tensors}

    here, values = repaired("here")
    there, others = repaired("there", engine=cluster, progress=kill)
    assert killed
    assert values.keys() == others.keys()
    for key, value in values.items():
        np.testing.assert_array_equal(others[key], value)
    require_equal(json.loads(there.to_json())["trial"], json.loads(here.to_json())["trial"])
    for one, other in ((there.compared_before, here.compared_before), (there.compared_after, here.compared_after)):
        assert one is not None
        assert other is not None
        assert [layer.local_nmse for layer in one.layers] == pytest.approx(
            [layer.local_nmse for layer in other.layers], rel=1e-12
        )
