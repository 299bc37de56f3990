"""The checkpoints of a training run: found at any depth, judged one by one, put in the order of their steps."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bncheck.commands.target import Memory, read_target, unreadable
from bncheck.engine.shards import Engine, engine, results
from bncheck.facts.errors import NoModel, ReadError, Unreadable, Unsupported
from bncheck.facts.findings import Report
from bncheck.facts.record import Record
from bncheck.settings.options import Options
from bncheck.sources import is_model_folder, run_dir
from bncheck.sources.files import names
from bncheck.sources.remote import RemotePath

_NUMBER = re.compile(r"\d+")
_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_WORTH_PROCESSES = 12
"""Checkpoints from which on starting other processes takes less time than it saves."""
_SHARD = 20
"""Checkpoints that a process judges in one go."""
_MOST_FOLDERS = 100_000


def judged_runs(directory: Path, options: Options) -> tuple[Report, ...]:
    """A report for each checkpoint, run by run, in the order of their steps. Raises as `inspect_run`."""
    found: list[Report] = []
    for folder, paths in _runs(directory):
        reports = [replace(report, run=str(folder)) for report in _judged(paths, options)]
        found += [reports[n] for n in _in_order(reports)]
    return tuple(found)


def _judged(paths: Sequence[Path], options: Options) -> list[Report]:
    """In the order of the paths, wherever they are judged."""
    many = len(paths) >= _WORTH_PROCESSES and not isinstance(paths[0], RemotePath)
    where = engine(options.engine) if options.engine or many else Engine()
    if where == Engine():
        return list(map(_Judging(options), paths))
    from bncheck.commands.sent_reports import unpacked  # noqa: PLC0415 - long runs alone need it

    size = max(1, min(_SHARD, -(-len(paths) // max(where.workers, 1))))
    shards = [_Shard(paths=tuple(paths[n : n + size]), options=options) for n in range(0, len(paths), size)]
    sent = results(where, _judge_shard, shards, lost=_lost_shard)
    return [report for one in sent for report in unpacked(one)]


class _Shard(Record):
    """Neighbours in a run, which mostly have one graph."""

    paths: tuple[Path, ...]
    options: Options


_judging: list[_Judging] = []
"""Of this process, with the graph of the shard before."""


def _judge_shard(shard: _Shard) -> bytes:
    from bncheck.commands.sent_reports import packed  # noqa: PLC0415 - long runs alone need it

    if not _judging or _judging[0].options != shard.options:
        _judging[:] = [_Judging(shard.options)]
    judging = _judging[0]
    judged = [(judging(path), judging.like) for path in shard.paths]
    return packed([report for report, _ in judged], [like for _, like in judged])


def _lost_shard(shard: _Shard) -> bytes:
    from bncheck.commands.sent_reports import packed  # noqa: PLC0415 - long runs alone need it

    lost = [Unreadable(path, "the process that judged it crashed twice") for path in shard.paths]
    settings = shard.options.settings
    reports = [unreadable(path, error, settings) for path, error in zip(shard.paths, lost, strict=True)]
    return packed(reports, [None] * len(reports))


class _Judging:
    """Judges one checkpoint of a run after the other."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.memory = Memory(options)
        self.like: object = None
        """`Facts.like` of the last one."""

    def __call__(self, path: Path) -> Report:
        self.like = None
        try:
            target = read_target(path, self.options, memory=self.memory)
            self.like = target.facts.like
            return target.judged()
        except ReadError as error:
            return unreadable(path, error, self.options.settings)


def _runs(directory: Path) -> list[tuple[Path, list[Path]]]:
    """(folder, checkpoints) of each run. Raises NotFound, NoModel, Unsupported, Unreadable."""
    by_folder: dict[Path, list[Path]] = {}
    nothing: ReadError | None = None
    try:
        by_folder[directory] = _targets(directory)
    except (NoModel, Unsupported) as error:
        nothing = error
    by_folder |= {folder: paths for folder in _below(directory) if (paths := _inner_targets(folder))}
    if nothing is not None and not by_folder:
        raise nothing
    if len(by_folder) > 1 and all(len(paths) == 1 for paths in by_folder.values()):
        return [(directory, [paths[0] for paths in by_folder.values()])]
    return list(by_folder.items())


def _below(directory: Path) -> Iterator[Path]:
    """All folders inside, but for those that are models themselves, or are hidden; links are not followed."""
    count = 0
    if isinstance(directory, RemotePath):
        yield from _below_remote(directory)
        return
    for place, inner, _ in os.walk(directory):
        folder = Path(place)
        if folder != directory:
            count += 1
            yield folder
        inner[:] = sorted(
            (name for name in inner if not name.startswith(".") and not _is_model(folder / name)), key=_by_numbers
        )
        if count > _MOST_FOLDERS:
            return


def _below_remote(directory: RemotePath) -> Iterator[Path]:
    for name in sorted(names(directory), key=_by_numbers):
        folder = directory / name
        if not name.startswith(".") and folder.is_dir() and not _is_model(folder):
            yield folder
            yield from _below_remote(folder)


def _is_model(folder: Path) -> bool:
    try:
        return is_model_folder(folder)
    except ReadError:
        return False


def _targets(folder: Path) -> list[Path]:
    """The checkpoints of a folder or, where there are none, its Keras files. Raises as `run_dir`."""
    try:
        return run_dir(folder)
    except NoModel:
        files = [folder / name for name in names(folder) if name.endswith(_KERAS_SUFFIXES)]
        if not files:
            raise
        return sorted(files, key=lambda path: _by_numbers(path.name))


def _inner_targets(folder: Path) -> list[Path]:
    """None where there are none; the folder itself where it cannot be listed, for reading it tells why."""
    try:
        return _targets(folder)
    except (NoModel, Unsupported):
        return []
    except ReadError:
        return [folder]


def _by_numbers(name: str) -> tuple[list[int], str]:
    return [int(number[:18]) for number in _NUMBER.findall(name)], name


def _in_order(reports: Sequence[Report]) -> list[int]:
    """Places in the order of the steps that the files hold, whatever their names.

    One whose step is unknown stays behind the one that its name follows.
    """
    order: list[tuple[int, int]] = []
    latest = -1
    for place, report in enumerate(reports):
        latest = latest if report.target.step is None else report.target.step
        order.append((latest, place))
    return [place for _, place in sorted(order)]
