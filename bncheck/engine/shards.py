"""One seam, `concurrent.futures.Executor`: shards of work go in, results come out in their order, wherever they ran."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from bncheck.facts.errors import UsageError
from bncheck.facts.record import Record

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

LOCAL: Final = "local"
DASK: Final = "dask://"
_AHEAD = 2
"""Shards that each process is given before it has answered."""

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
        return Engine(workers=processors())
    name, colon, count = told.partition(":")
    if name == LOCAL and colon and count.isascii() and count.isdigit() and int(count) > 0:
        return Engine(workers=int(count))
    address = told.removeprefix(DASK)
    if told.startswith(DASK) and ":" in address:
        return Engine(workers=0, address=address)
    raise UsageError(f"there is no engine {told!r}: use local, local:N (processes) and dask://host:port")


def require_engine(told: str | None) -> None:
    """Raises UsageError for an engine that there is not; None: nobody asks for one."""
    if told is not None:
        engine(told)


def results(where: Engine, work: Callable[[_S], _R], shards: Iterable[_S], *, lost: Callable[[_S], _R]) -> Iterator[_R]:
    """The result of each shard, in order; no more than a few shards are taken ahead of the result that is asked for.

    A shard whose process ends is worked on again, by itself; `lost` makes the result of one that has ended two. What
    `work` raises is raised here. On other machines, `work` and the shards are sent as pickles. Whoever stops asking
    ends the work. Raises UsageError where dask is not installed or its scheduler does not answer.
    """
    source = iter(shards)
    if where == Engine():
        yield from map(work, source)
        return
    over = False
    while not over:
        over = True
        with _crew(where) as crew:
            flying = deque(crew.sent(work, shard) for shard in islice(source, crew.ahead))
            try:
                while flying:
                    shard, future = flying.popleft()
                    found = crew.result(future)
                    if found is None:
                        over = False  # those that fly with it may have ended too: none is sent after them
                        found = _again(where, work, shard) or (lost(shard),)
                    yield found[0]
                    if over:
                        flying.extend(crew.sent(work, shard) for shard in islice(source, 1))
            finally:
                for _, future in flying:
                    future.cancel()


def _again(where: Engine, work: Callable[[_S], _R], shard: _S) -> tuple[_R] | None:
    """The result of a shard that is worked on by itself, so that it takes no other with it; None: it is lost again."""
    with _crew(where) as crew:
        return crew.result(crew.sent(work, shard)[1])


class _Crew(Record, eq=False):
    """Processes at work."""

    executor: Executor
    ahead: int
    """Shards that they are given at a time."""
    losses: tuple[type[Exception], ...] = (BrokenExecutor,)
    """What a future raises whose process has ended."""

    def sent(self, work: Callable[[_S], _R], shard: _S) -> tuple[_S, Future[_R]]:
        """A shard and its result to be."""
        try:
            return shard, self.executor.submit(work, shard)
        except BrokenExecutor as error:
            never: Future[_R] = Future()
            never.set_exception(error)
            return shard, never

    def result(self, future: Future[_R]) -> tuple[_R] | None:
        """None where its process has ended."""
        try:
            return (future.result(),)
        except self.losses:
            return None


@contextmanager
def _crew(where: Engine) -> Iterator[_Crew]:
    if where.address:
        from bncheck.engine.dask_cluster import cluster  # noqa: PLC0415 - optional

        with cluster(where.address) as found:
            yield _Crew(executor=found.executor, ahead=_AHEAD * found.threads, losses=(BrokenExecutor, *found.losses))
        return
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415 - start-up

    with ProcessPoolExecutor(where.workers, mp_context=_context()) as executor:
        yield _Crew(executor=executor, ahead=_AHEAD * where.workers)


def _context() -> BaseContext:
    """Forked where nothing speaks against it: that saves importing all anew in each process."""
    import multiprocessing  # noqa: PLC0415 - start-up

    forks = sys.platform == "linux" and "tensorflow" not in sys.modules
    return multiprocessing.get_context("fork" if forks else "spawn")


def processors() -> int:
    """Of this machine, that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
