"""Data in blocks of whole batches, each run by whichever process is free: together they tell what one pass tells.

A block is worked on by a function of the model's path, the options and the number of its first batch alone, and the
results are put together in the order of the data, so that neither the engine nor a process that ends changes them.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bncheck.commands.target import Target, read_runnable
from bncheck.compare.data.data import Data, open_data
from bncheck.compare.mode_sums import ModeSums, summed
from bncheck.compare.prepared import Prepared, prepare
from bncheck.compare.train_eval import comparison
from bncheck.compare.twins.twins import Twins, open_twins
from bncheck.engine.shards import engine, processors, results
from bncheck.facts.errors import BncheckError
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import Comparison, DataFacts
from bncheck.facts.record import Record
from bncheck.repair.estimate import runnable
from bncheck.repair.population import Run
from bncheck.repair.train_twin import TrainTwin, open_train_twin
from bncheck.settings.options import Options, silent

BATCHES = 8
"""Of a block: as many at least as what only the first ones tell is of (`mode_sums.FLOOR_BATCHES`)."""
_R = TypeVar("_R")


class DataBlock(Record, eq=False):
    """What a process is told to run."""

    run: str
    """Which run of bncheck asks: a process opens the model once for each."""
    path: str
    options: Options
    first: int
    """Its first batch; that of all data is 0."""
    threads: int
    """That TensorFlow adds up in: another number rounds otherwise, by as much as 1e-3 of a figure near 0."""


def compared_in_blocks(target: Target, prepared: Prepared, progress: Callable[[int, int | None], None]) -> Comparison:
    """Train mode against eval mode, as `train_eval.measure`, by the engine of the target's options.

    A block whose process ended twice is left out, and the description of the data says so. Raises as `measure`, and
    BncheckError where the files change meanwhile, or the first block or two in a row are lost.
    """
    start, model = time.perf_counter(), _fingerprint(prepared.facts)
    first: _ModeBlock | None = None
    lost: list[int] = []
    for number, found in enumerate(_results(target, _mode_block)):
        if found is None:
            if first is None or number - 1 in lost:
                raise _ended(number)
            lost.append(number)
            continue
        _require_same(target, model, found.model)
        if first is None:
            first = found
        else:
            first.sums.merge(found.sums)
        progress(first.sums.images, first.held)
        if found.sums.batches < BATCHES:
            break
    assert first is not None
    sums, data = first.sums, first.data
    told = "".join(f", without {_batches_of(number)}, whose process ended twice" for number in lost)

    def describe(samples: int, _batch_size: int, batches: int) -> DataFacts:
        return replace(data, description=data.description + told, samples=samples, batches=batches)

    return comparison(prepared, sums, describe, start)


def moments_in_blocks(target: Target) -> Iterator[Run]:
    """The moments of every site, batch by batch, for a repair. Raises BncheckError where a block is lost."""
    model: str | None = None
    for number, found in enumerate(_results(target, _train_block)):
        if found is None:
            raise _ended(number)
        model = model or found.model
        _require_same(target, model, found.model)
        yield from found.runs
        if len(found.runs) < BATCHES:
            return


def _results(target: Target, work: Callable[[DataBlock], _R]) -> Iterator[_R | None]:
    """What each block gives, in order and without end; None of one that is lost."""
    where = engine(target.options.engine)
    path, options = target.path, replace(target.options, options=None, progress=silent, expected=silent)
    if where.address:
        path, options = _absolute(path), replace(options, data=_absolute(str(options.data)))
        options = options if options.graph is None else replace(options, graph=_absolute(str(options.graph)))
    run, threads = uuid.uuid4().hex, processors()
    blocks = (
        DataBlock(run=run, path=path, options=options, first=first, threads=threads) for first in count(0, BATCHES)
    )
    try:
        yield from results(where, work, blocks, lost=_nothing)
    finally:
        _release()  # what this process opened, where it is the one that worked


def _nothing(_: DataBlock) -> None:
    """The result of a block that is lost."""


def _absolute(path: str) -> str:
    """For a process that works in another folder."""
    return str(Path(path).absolute()) if Path(path).parent.is_dir() and "://" not in path else path


class _ModeBlock(Record, eq=False):
    """What a block tells of both modes."""

    sums: ModeSums
    data: DataFacts
    """Of no sample yet."""
    held: int | None
    """Samples in all data; None where only reading tells."""
    model: str


class _TrainBlock(Record, eq=False):
    """What a block tells of train mode."""

    runs: tuple[Run, ...]
    model: str


class _Modes(Record, eq=False):
    """A model opened in both modes, for blocks of its data."""

    twins: Twins
    prepared: Prepared
    data: Data
    decided: list[ModeSums]
    """The sums of the first batch of all, once they were asked for."""

    def first(self) -> ModeSums:
        """By which all others are read."""
        if not self.decided:
            self.decided.append(summed(self.twins, self.prepared, self.data.block(0, 1)))
        return self.decided[0]


class _Train(Record, eq=False):
    """A model opened in train mode alone."""

    twin: TrainTwin
    data: Data
    facts: Facts


def _mode_block(block: DataBlock) -> _ModeBlock:
    opened = _opened(block, _open_modes)
    data = opened.data
    first = None if not block.first else opened.first()
    sums = summed(opened.twins, opened.prepared, data.block(block.first, BATCHES), first=first)
    return _ModeBlock(sums=sums, data=data.facts(0, 0, 0), held=data.samples, model=_fingerprint(opened.prepared.facts))


def _train_block(block: DataBlock) -> _TrainBlock:
    opened = _opened(block, _open_train)
    runs = ((opened.twin.run(images), len(images)) for images, _ in opened.data.block(block.first, BATCHES))
    return _TrainBlock(runs=tuple(runs), model=_fingerprint(opened.facts))


def _open_modes(block: DataBlock, stack: ExitStack) -> _Modes:
    assert block.options.data is not None
    prepared = prepare(read_runnable(block.path, block.options).raw, block.options)
    twins = stack.enter_context(open_twins(prepared.forward))
    return _Modes(
        twins=twins, prepared=prepared, data=open_data(block.options.data, twins.inputs, block.options), decided=[]
    )


def _open_train(block: DataBlock, stack: ExitStack) -> _Train:
    assert block.options.data is not None
    prepared = runnable(read_runnable(block.path, block.options).raw, block.options)
    twin = stack.enter_context(open_train_twin(prepared.forward))
    return _Train(twin=twin, data=open_data(block.options.data, twin.inputs, block.options), facts=prepared.facts)


_held: list[tuple[str, Any, ExitStack]] = []
"""What this process has opened, and for which run: to open a model takes longer than to run a block."""


def _opened(block: DataBlock, make: Callable[[DataBlock, ExitStack], _R]) -> _R:
    if not _held or _held[0][0] != block.run:
        _release()
        if block.threads != processors():
            os.environ["TF_NUM_INTRAOP_THREADS"] = str(block.threads)
        stack = ExitStack()
        _held.append((block.run, make(block, stack), stack))
    found: _R = _held[0][1]
    return found


def _release() -> None:
    while _held:
        _held.pop()[2].close()


def _fingerprint(facts: Facts) -> str:
    """Of what batch norm stores, which every step of training changes."""
    digest = hashlib.blake2b(digest_size=16)
    for layer in facts.layers:
        for vector in (layer.mean, layer.variance, layer.gamma, layer.beta):
            if vector.values is not None:
                digest.update(np.ascontiguousarray(vector.values).tobytes())
    return digest.hexdigest()


def _require_same(target: Target, one: str, other: str) -> None:
    if one != other:
        raise BncheckError(f"{target.path}: it changed while its data were run: try again once it is saved")


def _ended(number: int) -> BncheckError:
    return BncheckError(f"the process that ran {_batches_of(number)} of the data ended twice: out of memory?")


def _batches_of(number: int) -> str:
    """Of a block, counted from 1."""
    return f"batches {number * BATCHES + 1} to {(number + 1) * BATCHES}"
