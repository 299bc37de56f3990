"""One seam, `concurrent.futures.Executor`: shards of work go in, results come out in their order, wherever they ran."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from bncheck.facts.errors import UsageError
from bncheck.facts.record import Record

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

LOCAL: Final = "local"
DASK: Final = "dask://"
_ATTEMPTS = 2
"""How often a shard may lose the process that works on it."""

_S = TypeVar("_S")
_R = TypeVar("_R")


class Engine(Record):
    """Where shards are worked on."""

    workers: int = 1
    """Processes of this machine; 1: this process itself."""
    address: str = ""
    """Of a dask scheduler, "host:port"; empty: this machine."""


def engine(told: str | None) -> Engine:
    """`local`, `local:4` or `dask://host:port`; None: all processors of this machine. Raises UsageError for another."""
    if told is None or told == LOCAL:
        return Engine(workers=_processors())
    name, colon, count = told.partition(":")
    if name == LOCAL and colon and count.isascii() and count.isdigit() and int(count) > 0:
        return Engine(workers=int(count))
    address = told.removeprefix(DASK)
    if told.startswith(DASK) and ":" in address:
        return Engine(workers=0, address=address)
    raise UsageError(f"there is no engine {told!r}: use local, local:N (processes) and dask://host:port")


def results(where: Engine, work: Callable[[_S], _R], shards: Sequence[_S], *, lost: Callable[[_S], _R]) -> Iterator[_R]:
    """The result of each shard, in order.

    A shard whose process ends is worked on again; `lost` makes the result of one that has ended two. What `work` raises
    is raised here. On other machines, `work` and the shards are sent as pickles. Raises UsageError where dask is not
    installed or its scheduler does not answer.
    """
    if where.workers == 1 or (not where.address and len(shards) < 2):
        yield from map(work, shards)
        return
    done: dict[int, _R] = {}
    for attempt in range(_ATTEMPTS):
        left = [n for n in range(len(shards)) if n not in done]
        # what is left after a loss goes one by one, so that one shard does not take others with it
        for group in [left] if not attempt else [[n] for n in left]:
            _gather(where, work, shards, group, done)
        if len(done) == len(shards):
            break
    for n, shard in enumerate(shards):
        yield done[n] if n in done else lost(shard)


def _gather(
    where: Engine, work: Callable[[_S], _R], shards: Sequence[_S], group: Sequence[int], done: dict[int, _R]
) -> None:
    """Adds the results of those shards of a group that did not lose their process."""
    with _executor(where, len(group)) as executor:
        futures: dict[int, Future[_R]] = {}
        try:
            futures |= {n: executor.submit(work, shards[n]) for n in group}
        except BrokenExecutor:
            return
        for n, future in futures.items():
            found = _result(future)
            if found is not None:
                done[n] = found[0]


def _result(future: Future[_R]) -> tuple[_R] | None:
    try:
        return (future.result(),)
    except BrokenExecutor:
        return None


@contextmanager
def _executor(where: Engine, shards: int) -> Iterator[Executor]:
    if where.address:
        from bncheck.engine.dask_cluster import cluster  # noqa: PLC0415 - optional

        with cluster(where.address) as executor:
            yield executor
        return
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415 - start-up

    with ProcessPoolExecutor(min(where.workers, shards), mp_context=_context()) as executor:
        yield executor


def _context() -> BaseContext:
    """Forked where nothing speaks against it: that saves importing all anew in each process."""
    import multiprocessing  # noqa: PLC0415 - start-up

    forks = sys.platform == "linux" and "tensorflow" not in sys.modules
    return multiprocessing.get_context("fork" if forks else "spawn")


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
