"""Where a checkpoint is: from what people name (prefix, one of its files, a directory) to its `.index`."""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from bncheck.facts.errors import NoModel, NotFound, ReadError
from bncheck.facts.record import Record
from bncheck.sources.bundle.sstable import MAGIC, entries, open_table
from bncheck.sources.files import is_file, names, read_tail, read_whole, status
from bncheck.sources.remote import RemotePath

_FILE = re.compile(r"(?P<stem>.*)\.(index|meta|data-\d{5}-of-\d{5})", re.DOTALL)
_V1_SHARD = re.compile(r"-(\d{5}|\?{5})-of-\d{5}\Z")
"""A Saver names all shards of a V1 checkpoint with `?` for the number."""
_V1_HEADER = b"\x0a"
"""Tag of `SavedTensorSlices.meta`, a message; a V2 header begins with its count of shards, a number."""
MAX_FILE = 1 << 31
"""Bytes of a V1 file that are read at most: it has no index, so it is read whole."""
_NUMBERED = re.compile(r"-(\d+)(?: ?\(\d+\)| copy| - Copy)?$")
"""The step that ends a prefix; browsers and file managers write "(1)" or "copy" behind it."""
_CHECKPOINT_PATH = re.compile(rb"^\s*model_checkpoint_path\s*:\s*([\"'])(.*?)(?<!\\)\1", re.MULTILINE | re.DOTALL)
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)", re.DOTALL)
_PLAIN_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}


class Place(Record):
    """One checkpoint; the stem is "" for files that are nothing but their suffix (`model/.index`)."""

    directory: Path
    stem: str
    notes: tuple[str, ...] = ()
    slices: tuple[Path, ...] = ()
    """The files of a V1 checkpoint, which has no index; empty for V2."""

    @property
    def index(self) -> Path:
        """The `.index` file, or the first file of a V1 checkpoint."""
        return self.slices[0] if self.slices else self.directory / f"{self.stem}.index"

    @property
    def prefix(self) -> Path:
        """What TensorFlow's Saver is given; the index itself where the stem is empty."""
        return self.directory / self.stem if self.stem else self.index

    def shard(self, number: int, count: int) -> Path:
        """One data file of `count`."""
        return self.directory / f"{self.stem}.data-{number:05d}-of-{count:05d}"


def find(path: Path) -> Place | None:
    """The checkpoint that a path means; None for a file that is no part of one.

    Raises NotFound, Unreadable, NoModel (a directory without a checkpoint).
    """
    found = status(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        place = _in_directory(path)
        if place is not None:
            return place
        if is_file(_beside(path, ".index")):
            return Place(directory=path.parent, stem=path.name)
        raise no_checkpoint(path)
    if path.name == "checkpoint" and found is not None:
        named = _in_directory(path.parent)
        if named is not None:
            return named
    match = _FILE.fullmatch(path.name)
    if match and is_file(path.parent / f"{match['stem']}.index"):
        return Place(directory=path.parent, stem=match["stem"])
    if is_file(_beside(path, ".index")):
        return Place(directory=path.parent, stem=path.name)
    if match and found is not None:
        raise NotFound(path, f"its index {match['stem']}.index is not beside it", hint="bncheck needs the index")
    if match and match[2] == "index" and is_file(path.parent / f"{match['stem']}.meta"):
        raise NotFound(path, "no such file", hint=f"{match['stem']}.meta is there: it holds the graph, but no values")
    of_v1 = _of_v1(path)
    if of_v1 is None and found is None:
        raise _absent(path)
    return of_v1


def prefix_of(path: Path) -> Path:
    """The prefix of the checkpoint that a file is a part of; the path itself where it is none."""
    match = _FILE.fullmatch(path.name)
    if match and match["stem"] and is_file(path.with_name(f"{match['stem']}.index")):
        return path.with_name(match["stem"])
    return path


def in_step_order(directory: Path) -> list[Path]:
    """Prefixes of all checkpoints in a directory, by the number that ends their name, else by time of writing."""
    stems = [name.removesuffix(".index") for name in names(directory) if name.endswith(".index")]
    places = [Place(directory=directory, stem=stem) for stem in stems]
    return [place.prefix for place in _sorted([p for p in places if is_file(p.index)] + _v1_places(directory))]


def no_checkpoint(directory: Path) -> NoModel:
    """The error for a directory without a checkpoint: what it holds instead."""
    return NoModel(directory, "no checkpoint in this directory", hint=_other_models(directory))


def _v1_places(directory: Path) -> list[Place]:
    """The V1 checkpoints of a directory, by the names that TensorFlow gives their files."""
    present = names(directory)
    listed = set(present)
    prefixes: dict[str, str] = {}
    for name in present:
        if _FILE.fullmatch(name) is None and ("ckpt" in name or f"{name}.meta" in listed or _V1_SHARD.search(name)):
            prefixes.setdefault(_V1_SHARD.sub("", name), name)
    found = [_v1_place(directory, *one) for one in prefixes.items() if f"{one[0]}.index" not in listed]
    return [place for place in found if place is not None]


def _v1_place(directory: Path, stem: str, file: str) -> Place | None:
    """As `_of_v1`; a damaged one has a place too, and whoever reads it tells why it cannot be read."""
    try:
        return _of_v1(directory / stem)
    except ReadError:
        return Place(directory=directory, stem=stem, slices=(directory / file,))


def _of_v1(path: Path) -> Place | None:
    """The V1 checkpoint of a prefix, its file or one of its shards; None where there is none.

    Raises NotFound where shards are absent.
    """
    if _V1_SHARD.search(path.name) is None and _is_v1(path):
        return Place(directory=path.parent, stem=path.name, slices=(path,))
    stem = _V1_SHARD.sub("", path.name)
    shards = _v1_shards(path.with_name(stem))
    if not shards or not _is_v1(shards[0]):
        return None
    count = int(shards[0].name[-5:])
    if len(shards) != count:
        raise NotFound(path, f"{len(shards)} of the {count} files of this V1 checkpoint are there")
    return Place(directory=path.parent, stem=stem, slices=shards)


def _is_v1(path: Path) -> bool:
    """Whether a file is a table of the kind that checkpoints are, with the header of V1."""
    if not is_file(path) or read_tail(path, len(MAGIC)) != MAGIC:
        return False
    header = next(entries(open_table(path, limit=MAX_FILE)), None)
    return header is not None and not header.key and header.value[:1] == _V1_HEADER


def _other_models(directory: Path) -> str:
    """What else in a directory without a checkpoint looks like a model, as a hint."""
    if is_file(directory / "variables" / "variables.index"):
        return "a SavedModel's variables are there without its saved_model.pb: give variables/variables"
    of_tensorflow = (".keras", ".h5", ".hdf5", ".tflite", ".pb", ".pbtxt", ".meta")
    suffixes = (*of_tensorflow, ".pt", ".pth", ".safetensors", ".onnx", ".msgpack")
    others = [name for name in names(directory) if name.endswith(suffixes)]
    if others:
        return f"it holds {_some(others)}"
    inner = [name for name in names(directory) if is_file(directory / name / "checkpoint")]
    return f"it holds folders that have one: {_some(inner)}" if inner else ""


def _beside(path: Path, suffix: str) -> Path:
    return path.parent / (path.name + suffix)


def _sorted(places: list[Place]) -> list[Place]:
    numbers = [_NUMBERED.search(place.stem) for place in places]
    steps = [int(number[1]) for number in numbers if number]
    if len(steps) == len(places):
        order = sorted(range(len(places)), key=lambda index: (steps[index], places[index].stem))
        return [places[index] for index in order]
    return sorted(places, key=lambda place: (place.index.stat().st_mtime, place.stem))


def _in_directory(directory: Path) -> Place | None:
    named = directory / "checkpoint"
    if is_file(named):
        match = _CHECKPOINT_PATH.search(read_whole(named, limit=1 << 24))
        if match:
            return _named(directory, _unescape(match.group(2)))
    paths = in_step_order(directory)
    if not paths:
        return None
    stem = "" if paths[-1].name == ".index" else paths[-1].name
    note = f"{stem or '.index'} is the newest of {len(paths)} checkpoints in the directory, which names none itself"
    place = Place(directory=directory, stem=stem)
    newest = place if is_file(place.index) else _of_v1(paths[-1])
    return None if newest is None else replace(newest, notes=(note,) if len(paths) > 1 else ())


def _named(directory: Path, written: str) -> Place:
    """The checkpoint that the text file `checkpoint` names: beside it first, for its paths are often the author's."""
    absolute = written.startswith("/") or bool(PureWindowsPath(written).drive)
    base = re.split(r"[/\\]", written)[-1]
    remote = isinstance(directory, RemotePath)  # where nothing outside the folder is asked for
    tried = [directory / base] if absolute or remote else [directory / written, directory / base]
    for prefix in tried:
        stem = prefix.name if base else ""
        parent = prefix.parent if base else directory
        if is_file(parent / f"{stem}.index"):
            return Place(directory=parent, stem=stem, notes=(f"`checkpoint` names {stem or '.index'}",))
    for place in map(_of_v1, tried):
        if place is not None:
            return replace(place, notes=(f"`checkpoint` names {place.stem}",))
    reason = f"`checkpoint` names {written}, but {base}.index is not there"
    others = [path.name for path in in_step_order(directory)]
    hint = f"it holds {_some(others)}" if others else ""
    raise NotFound(directory, reason, hint=hint)


def _unescape(literal: bytes) -> str:
    """A string of protobuf's text format."""

    def plain(match: re.Match[bytes]) -> bytes:
        escape = match[1]
        if escape[:1] == b"x" and len(escape) > 1:
            return bytes([int(escape[1:], 16)])
        if escape.isdigit():
            return bytes([int(escape, 8) & 255])
        return _PLAIN_ESCAPES.get(escape, escape)

    return _ESCAPE.sub(plain, literal).decode("utf-8", "surrogateescape")


def _v1_shards(prefix: Path) -> tuple[Path, ...]:
    """The files `prefix-00000-of-00002` and so on that are there, in their order."""
    if not prefix.name or not prefix.parent.is_dir():
        return ()
    length = len(prefix.name)
    found = [n for n in names(prefix.parent) if n.startswith(prefix.name) and _V1_SHARD.fullmatch(n[length:])]
    return tuple(prefix.with_name(name) for name in sorted(found) if name[-5:] == found[0][-5:])


def _absent(path: Path) -> NotFound:
    parent = status(path.parent)
    if parent is None:
        return NotFound(path, f"no such file or checkpoint: the directory {path.parent} does not exist")
    if not stat.S_ISDIR(parent.st_mode):
        return NotFound(path, f"no such file or checkpoint: {path.parent} is a file")
    present = names(path.parent)
    shards = [name for name in present if name.startswith(f"{path.name}.data-")]
    if shards:
        return NotFound(path, f"{shards[0]} is there, but its index {path.name}.index is not")
    if f"{path.name}.meta" in present:
        hint = f"{path.name}.meta is there: it holds the graph, but no values"
        return NotFound(path, f"no such checkpoint: {path.name}.index does not exist", hint=hint)
    near = [name.removesuffix(".index") for name in present if name.endswith(".index") and name.startswith(path.name)]
    return NotFound(path, "no such file or checkpoint", hint=f"beside it: {_some(near)}" if near else "")


def _some(found: list[str]) -> str:
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
