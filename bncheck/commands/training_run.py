"""The checkpoints of a training run: found at any depth, judged one by one, put in the order of their steps."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bncheck.commands.target import Memory, Target, read_target, unreadable
from bncheck.engine.shards import Engine, engine, results
from bncheck.facts.errors import NoModel, ReadError, Unreadable, Unsupported
from bncheck.facts.findings import KERNELS, NotChecked, Report
from bncheck.facts.record import Record
from bncheck.settings.options import Options
from bncheck.sources import is_model_folder, run_dir
from bncheck.sources.files import names
from bncheck.sources.remote import RemotePath

_NUMBER = re.compile(r"\d+")
_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_WORTH_PROCESSES = 12
"""Checkpoints from which on starting other processes takes less time than it saves."""
_STRETCH = 16
"""Neighbours that are judged in one go, by one process; of a long run only the first and the last by their kernels."""
_LONG = 12
"""Checkpoints from which on kernels may stay unread."""
_WORTH_LEAVING_OUT = 4
"""Neighbours from which on that is worth asking: the two at the ends are read."""
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
    stretches = [tuple(paths[n : n + _STRETCH]) for n in range(0, len(paths), _STRETCH)]
    shards = [_Shard(paths=stretch, options=options, long=len(paths) >= _LONG) for stretch in stretches]
    if where == Engine():
        judging = _Judging(options)
        return [report for shard in shards for report, _ in judging.stretch(shard)]
    from bncheck.commands.sent_reports import unpacked  # noqa: PLC0415 - long runs alone need it

    sent = results(where, _judge_shard, shards, lost=_lost_shard)
    return [report for one in sent for report in unpacked(one)]


_Judged = tuple[Report, object]


class _Shard(Record):
    """Neighbours in a run, which mostly have one graph."""

    paths: tuple[Path, ...]
    options: Options
    long: bool
    """Whether the run is."""


_judging: list[_Judging] = []
"""Of this process, with the graph of the shard before."""


def _judge_shard(shard: _Shard) -> bytes:
    from bncheck.commands.sent_reports import packed  # noqa: PLC0415 - long runs alone need it

    if not _judging or _judging[0].options != shard.options:
        _judging[:] = [_Judging(shard.options)]
    judged = _judging[0].stretch(shard)
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
        self._with_kernels: dict[Path, Target] = {}
        """Of the stretch."""

    def stretch(self, shard: _Shard) -> list[_Judged]:
        """Neighbours in a run, each with its `Facts.like`.

        What depends on kernels takes more time than all else, and seldom changes. Where the first and the last have
        findings of the same kinds, and the same ones with their kernels unread, those of the others stay unread too,
        unless they have findings of other kinds then; else the halves are such stretches.
        """
        self._with_kernels.clear()
        paths = shard.paths
        if not shard.long or len(paths) < _WORTH_LEAVING_OUT:
            return [self.one(path) for path in paths]
        return self._within(paths, self.one(paths[0]), self.one(paths[-1]))

    def _within(self, paths: Sequence[Path], first: _Judged, last: _Judged) -> list[_Judged]:
        """The same, of which the ends are judged."""
        between = paths[1:-1]
        if len(paths) >= _WORTH_LEAVING_OUT and self._alike((paths[0], first), (paths[-1], last)):
            told = f"those of {paths[0].name} and {paths[-1].name} were read, and changed no finding"
            return [first, *(self._unread(path, _kinds(first[0]), told) for path in between), last]
        if len(paths) < _WORTH_LEAVING_OUT:
            return [first, *map(self.one, between), last]
        middle = len(paths) // 2
        found = self.one(paths[middle])
        before = self._within(paths[: middle + 1], first, found)
        return [*before, *self._within(paths[middle:], found, last)[1:]]

    def _alike(self, *ends: tuple[Path, _Judged]) -> bool:
        """Whether findings are of the same kinds, and kernels change nothing about them."""
        reports = [report for _, (report, like) in ends if like is not None]
        return (
            len(reports) == len(ends)
            and all(_kinds(report) == _kinds(reports[0]) for report in reports)
            and all(_found(report) == _found(self._without_kernels(path)) for path, (report, _) in ends)
        )

    def _without_kernels(self, path: Path) -> Report:
        """The report on a checkpoint that shares its graph, had its kernels not been read."""
        from bncheck.recognise.graph.read_again import without_kernels  # noqa: PLC0415 - long runs with graphs need it

        target = self._with_kernels[path]
        return target.judged(replace(target.facts, layers=without_kernels(target.facts.layers)))

    def _unread(self, path: Path, kinds: object, told: str) -> _Judged:
        """One whose kernels stay unread, if its findings are of these kinds; `told` is why they may."""
        report, like = self.one(path, kernels=False)
        if like is None:
            return report, like  # it has another graph, and was judged in full
        if _kinds(report) != kinds:
            return self.one(path)
        left_out = NotChecked(what=KERNELS, why=told, how=f"bncheck inspect checkpoint {shlex.quote(str(path))}")
        return replace(report, not_checked=(*report.not_checked, left_out)), like

    def one(self, path: Path, *, kernels: bool = True) -> _Judged:
        """A single checkpoint; without `kernels` only as far as it shares its graph with one before."""
        try:
            target = read_target(path, self.options, memory=self.memory, kernels=kernels)
            if kernels:
                self._with_kernels[path] = target
            return target.judged(), target.facts.like
        except ReadError as error:
            return unreadable(path, error, self.options.settings), None


def _kinds(report: Report) -> object:
    """The verdict, and what was found."""
    return report.verdict, {(each.code, each.severity) for each in report.findings}


def _found(report: Report) -> object:
    """The same, and where."""
    return report.verdict, {(each.code, each.severity, each.layers) for each in report.findings}


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
