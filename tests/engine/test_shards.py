"""Shards in this process, in others, and on a real dask cluster: the same results, whatever ends on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bncheck.engine.shards import Engine, engine, results
from bncheck.facts.errors import UsageError

LOCAL = (Engine(), Engine(workers=2))


@pytest.mark.parametrize("where", LOCAL, ids=["this process", "two processes"])
def test_results_are_in_order(where: Engine) -> None:
    """As many as shards, in their order."""
    assert list(results(where, _square, range(7), lost=_none)) == [n * n for n in range(7)]


def test_a_lost_process_is_replaced(tmp_path: Path) -> None:
    """A process that is killed in the middle loses nothing: its shard is worked on again, and so are its neighbours."""
    shards = [(n, str(tmp_path / "killed")) for n in range(5)]
    assert list(results(Engine(workers=2), _kill_once, shards, lost=_none)) == [0, 1, 4, 9, 16]


def test_a_shard_that_always_ends_its_process_stops_no_other() -> None:
    """It is given up after the second time, and said to be lost; all others have their results."""
    found = list(results(Engine(workers=2), _kill_at_three, range(5), lost=_none))
    assert found == [0, 1, 4, None, 16]


def test_what_work_raises_is_raised() -> None:
    """An error is no lost process."""
    with pytest.raises(ZeroDivisionError):
        list(results(Engine(workers=2), _divide, [1, 0, 2], lost=_none))


@pytest.mark.parametrize("told", ["", "local:", "local:0", "local:x", "dask://", "dask://host", "spark://a:1", "LOCAL"])
def test_other_engines_are_refused(told: str) -> None:
    """With what there is."""
    with pytest.raises(UsageError, match="local:N"):
        engine(told)


def test_engines() -> None:
    """By their names."""
    assert engine("local:3") == Engine(workers=3)
    assert engine("dask://node-1:8786") == Engine(workers=0, address="node-1:8786")
    assert engine("local").workers >= 1


@pytest.fixture(scope="module")
def cluster() -> Iterator[Engine]:
    """Two worker processes and their scheduler."""
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as found:
        yield engine(found.scheduler_address.replace("tcp://", "dask://"))


def test_dask_gives_the_same(cluster: Engine) -> None:
    """From other processes than this one, in order."""
    assert list(results(cluster, _square, range(7), lost=_none)) == [n * n for n in range(7)]
    assert os.getpid() not in set(results(cluster, _process, range(4), lost=_none))


def test_dask_gives_a_killed_workers_shard_to_another(cluster: Engine, tmp_path: Path) -> None:
    """Nothing is lost."""
    shards = [(n, str(tmp_path / "killed")) for n in range(5)]
    assert list(results(cluster, _kill_once, shards, lost=_none)) == [0, 1, 4, 9, 16]
    assert (tmp_path / "killed").exists()


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is named with its address."""
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkeypatch.setattr("bncheck.engine.dask_cluster._SECONDS", 1)
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:9"):
        list(results(engine("dask://127.0.0.1:9"), _square, [1, 2], lost=_none))


def _none(_: object) -> None:
    return None


def _square(number: int) -> int | None:
    return number * number


def _process(_: int) -> int | None:
    return os.getpid()


def _divide(number: int) -> float | None:
    return 1 / number


def _kill_once(shard: tuple[int, str]) -> int | None:
    number, marker = shard
    if number == 2 and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def _kill_at_three(number: int) -> int | None:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number
