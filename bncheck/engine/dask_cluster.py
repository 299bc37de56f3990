"""A dask cluster as an executor: its scheduler gives a lost worker's shards to another."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, cast

from bncheck.facts.errors import UsageError
from bncheck.facts.extras import install
from bncheck.facts.record import Record

_SECONDS = 20
"""Within which a scheduler must answer."""


class Cluster(Record, eq=False):
    """A cluster that answers."""

    executor: Executor
    threads: int
    """Of all its workers together, as it is now."""
    losses: tuple[type[Exception], ...]
    """What a task raises that ended several workers."""


@contextmanager
def cluster(address: str) -> Iterator[Cluster]:
    """The cluster of the scheduler at "host:port". Raises UsageError where it does not answer, or dask is absent."""
    try:
        import distributed  # noqa: PLC0415 - optional
    except ImportError:
        raise UsageError(f"--engine dask:// needs dask.distributed: {install('dask')}") from None
    try:
        client = cast("Any", distributed).Client(f"tcp://{address}", timeout=_SECONDS, set_as_default=False)
    except OSError as error:
        raise UsageError(f"no dask scheduler answers at {address}: {error}") from None
    with client, client.get_executor(pure=False) as executor:
        threads = max(1, sum(client.ncores().values()))
        yield Cluster(executor=executor, threads=threads, losses=(cast("Any", distributed).KilledWorker,))
