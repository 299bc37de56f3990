"""Damages files of every format at random and inspects them, in a process of its own.

python mutations.py FIRST LAST KIND [KIND ...]

Prints one JSON line when a case begins and one when it ends, so that whoever started the process knows which case it
died in. Every case is told by its kind and number alone, and the same each time.
"""

from __future__ import annotations

import copy
import io
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError

import bncheck
from bncheck.facts.errors import BncheckError
from bncheck.report.text import text
from bncheck.sources.graph import protos

FIXTURES = Path(__file__).parents[2] / "fixtures" / "tiny"
REAL = Path(__file__).parents[3] / "shared" / "real"
SECONDS = 5.0
"""For one case; a healthy one takes a few hundredths."""
MEMORY = 2 << 30
"""Address space of the process: half a GiB is what libraries map before anything is read."""
LARGEST = 1 << 20
"""Files above this are left out: they would only be slow."""


def damage(content: bytes, random_: random.Random) -> bytes:
    """One to three of: cut off, bits flipped, bytes put in, taken out, moved, repeated, overwritten by extremes."""
    data = bytearray(content)
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        place = _place(len(data), random_)
        length = random_.choice((1, 2, 4, 8, 16, 64, 256))
        other = random_.randrange(len(data))
        match random_.randrange(8):
            case 0:
                del data[place:]
            case 1 | 2:
                for _ in range(random_.choice((1, 1, 2, 8))):
                    data[_place(len(data), random_)] ^= 1 << random_.randrange(8)
            case 3:
                data[place:place] = random_.randbytes(length)
            case 4:
                del data[place : place + length]
            case 5:
                block, swapped = data[place : place + length], data[other : other + length]
                data[place : place + length], data[other : other + length] = swapped, block
            case 6:
                data[place:place] = data[other : other + length]
            case _:
                word = random_.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data), len(data) - 1))
                width = random_.choice((4, 8))
                data[place : place + width] = word.to_bytes(width, "little")
    return bytes(data)


def rewire(content: bytes, random_: random.Random) -> bytes:
    """Changes one to twelve nodes: their inputs (which makes cycles), ops and attributes, or takes them out."""
    message: Any
    try:
        message = protos.SavedModel.FromString(content)
        graph = message.meta_graphs[0].graph_def
    except (DecodeError, IndexError):
        message = protos.MetaGraphDef.FromString(content)
        graph = message.graph_def
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    for _ in range(random_.choice((1, 2, 4, 12))):
        nodes = random_.choice([body for body in bodies if len(body)])
        node, other = random_.choice(nodes), random_.choice(nodes)
        place = random_.randrange(len(node.input)) if node.input else None
        match random_.randrange(9):
            case 0 | 1 | 2 if place is not None:
                node.input[place] = random_.choice(("", "", "^")) + other.name + random_.choice(("", "", ":1", ":7"))
            case 3 if place is not None:
                del node.input[place]
            case 4:
                node.input.append(random_.choice(("", "^")) + other.name)
            case 5:
                node.op = other.op
            case 6 if node.attr:
                del node.attr[random_.choice(sorted(node.attr))]
            case 7 if node.attr:
                _extreme(node.attr[random_.choice(sorted(node.attr))], random_)
            case _:
                node.attr.MergeFrom(other.attr)
    return bytes(message.SerializeToString())


def _extreme(value: Any, random_: random.Random) -> None:
    """Makes an attribute absurd."""
    number = random_.choice((-1, 0, 1, 2**31 - 1, 2**40, -(2**63)))
    value.type = random_.choice((0, 1, 3, 7, 20, 101, 10**6))
    value.i, value.f, value.b = number, float(number), not value.b
    if value.HasField("shape") or random_.random() < 0.3:
        value.shape.dim.add(size=number)
    if value.HasField("tensor") or random_.random() < 0.3:
        value.tensor.dtype = random_.choice((0, 1, 3, 7, 9, 14, 19))
        value.tensor.tensor_shape.dim.add(size=number)
    if random_.random() < 0.3:
        value.func.name = "recursive"
    if random_.random() < 0.3:
        value.s = random_.choice((b"", b"\xff\xfe", b"a" * 10_000))


def reconfigure(content: bytes, random_: random.Random) -> bytes:
    """Changes one to eight values of a Keras archive's JSON: the archive is sound, and its configuration is not."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    for _ in range(random_.choice((1, 1, 2, 8))):
        places = list(_places(config))
        holder, key = random_.choice(places)
        other, elsewhere = random_.choice(places)
        absurd = (None, -1, 0, 1e300, True, "", "x" * 300, [], {}, [[[]]], {"class_name": "Dense"}, float("nan"), 2**70)
        if random_.random() < 0.3:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(random_.choice((*absurd, *absurd, other[elsewhere])))
    members["config.json"] = json.dumps(config).encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return written.getvalue()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(list or dictionary, index or key) of every value inside."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def _place(size: int, random_: random.Random) -> int:
    """Anywhere, more often near the ends, where formats keep what tells the rest."""
    near = min(size, 256)
    return random_.choice((random_.randrange(size), random_.randrange(near), size - 1 - random_.randrange(near)))


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One format: where its examples are, what is done with them, and what must come out."""

    examples: Callable[[], list[Path]]
    """What is given to `inspect`: a file, or the folder or prefix of several."""
    inspect: Callable[[str], bncheck.Report]
    damaged: tuple[str, ...]
    """Endings of the names of files that are damaged; the others beside them stay whole."""
    checksums: bool = False
    """Whether whatever is read must be what was written."""
    text: bool = False
    """Whether the files are turned into protobuf's text form first."""
    change: Callable[[bytes, random.Random], bytes] = damage
    """What is done to a file."""


class TooSlowError(Exception):
    """A case took more than SECONDS."""


@cache
def _files() -> list[Path]:
    """All files of the fixtures and, where they are there, of the real models, that are not too large."""
    return sorted(
        path
        for root in (FIXTURES, REAL)
        for path in root.rglob("*")
        if path.is_file() and path.stat().st_size <= LARGEST
    )


def found(*patterns: str) -> Callable[[], list[Path]]:
    """Examples by their names."""
    return lambda: [path for path in _files() if any(path.match(pattern) for pattern in patterns)]


def prefixes(*, graph: bool) -> Callable[[], list[Path]]:
    """Checkpoints with, or without, a MetaGraph of their name; those of SavedModels left out."""
    return lambda: [
        path.with_suffix("")
        for path in found("*.index")()
        if path.with_suffix(".meta").exists() == graph and path.parent.name != "variables"
        if all(other.stat().st_size <= LARGEST for other in path.parent.glob(f"{path.stem}.*"))
    ]


def folders() -> list[Path]:
    """SavedModels."""
    return [path.parent for path in found("saved_model.pb")()]


SHARD = ".data-00000-of-00001"
KINDS: Mapping[str, Kind] = {
    "bundle": Kind(
        examples=prefixes(graph=False),
        inspect=lambda path: bncheck.inspect_checkpoint(path, use_graph=False),
        damaged=(".index", SHARD),
        checksums=True,
    ),
    "bundle and graph": Kind(
        examples=prefixes(graph=True), inspect=bncheck.inspect_checkpoint, damaged=(".index", SHARD, ".meta")
    ),
    "meta": Kind(examples=found("*.meta"), inspect=bncheck.inspect_graph, damaged=(".meta",)),
    "meta, rewired": Kind(
        examples=found("*.meta"),
        inspect=bncheck.inspect_graph,
        damaged=(".meta",),
        change=rewire,
    ),
    "pb": Kind(examples=found("frozen.pb"), inspect=bncheck.inspect_model, damaged=(".pb",)),
    "pbtxt": Kind(examples=found("*.meta"), inspect=bncheck.inspect_graph, damaged=(".meta",), text=True),
    "saved model": Kind(examples=folders, inspect=bncheck.inspect_model, damaged=(".pb", ".index", SHARD)),
    "saved model, rewired": Kind(
        examples=folders,
        inspect=bncheck.inspect_model,
        damaged=("saved_model.pb",),
        change=rewire,
    ),
    "h5": Kind(examples=found("*.h5", "*.hdf5"), inspect=bncheck.inspect_model, damaged=(".h5", ".hdf5")),
    "keras": Kind(examples=found("*.keras"), inspect=bncheck.inspect_model, damaged=(".keras",), checksums=True),
    "keras, reconfigured": Kind(
        examples=found("*.keras"),
        inspect=bncheck.inspect_model,
        damaged=(".keras",),
        change=reconfigure,
    ),
    "tflite": Kind(examples=found("*.tflite"), inspect=bncheck.inspect_model, damaged=(".tflite",)),
}


def facts(report: bncheck.Report) -> dict[str, Any]:
    """The report as JSON, without times and notes on what lies beside the target; rendered as text as well."""
    text.write(report, io.StringIO(), verbose=True)
    told: dict[str, Any] = json.loads(report.to_json())
    told.pop("timing")
    told["target"].pop("format")  # names Keras's version, which lies in a member that Keras itself can do without
    return told


def copied(kind: Kind, example: Path, folder: Path) -> tuple[Path, list[Path]]:
    """(what to inspect, files to damage), in a fresh folder."""
    if example.is_dir():
        target = folder / example.name
        shutil.copytree(example, target)
    else:
        for path in example.parent.glob(f"{example.name}*"):
            shutil.copy2(path, folder)  # with its time: bncheck waits for files that somebody writes
        target = folder / example.name
    if kind.text:
        meta = protos.MetaGraphDef.FromString(target.read_bytes())
        target.write_text(text_format.MessageToString(meta))
    return target, sorted(p for p in folder.rglob("*") if p.is_file() and p.name.endswith(kind.damaged))


def outcome(name: str, number: int) -> str:
    """What became of a case: "error NAME", "report", "same report", or what went wrong, beginning with "bug"."""
    kind = KINDS[name]
    random_ = random.Random(f"{name} {number}")  # noqa: S311 - reproducible, not secret
    example = random_.choice(kind.examples())
    with tempfile.TemporaryDirectory() as place:
        target, files = copied(kind, example, Path(place))
        whole = facts(kind.inspect(str(target))) if kind.checksums else None
        file = random_.choice(files)
        before = file.read_bytes()
        file.write_bytes(kind.change(before, random_))
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            now = facts(kind.inspect(str(target)))
        except BncheckError as error:
            said = str(error)
            named = place in said or file.name in said
            return f"error {type(error).__name__}" if named and "\n" not in said else f"bug: {example}: says {said!r}"
        except TooSlowError:
            return f"bug: {example}: took more than {SECONDS} s: {traceback.format_exc(limit=-6)}"
        except Exception:  # noqa: BLE001 - whatever else comes is what is looked for
            return f"bug: {example}: {traceback.format_exc(limit=-6)}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if time.perf_counter() - began > SECONDS:
            return f"bug: {example}: took {time.perf_counter() - began:.1f} s"
        if whole is None:
            return "report"
        return "same report" if now == whole else f"bug: {example}: other facts: {_difference(whole, now)}"


def _difference(whole: Any, now: Any, path: str = "") -> str:
    if isinstance(whole, dict) and isinstance(now, dict):
        for key in {**whole, **now}:
            if whole.get(key) != now.get(key):
                return _difference(whole.get(key), now.get(key), f"{path}.{key}")
    if isinstance(whole, list) and isinstance(now, list) and len(whole) == len(now):
        for place, (one, other) in enumerate(zip(whole, now, strict=True)):
            if one != other:
                return _difference(one, other, f"{path}[{place}]")
    return f"{path}: {str(whole)[:200]!r} became {str(now)[:200]!r}"


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise TooSlowError


def main(first: int, last: int, names: list[str]) -> None:
    """Runs cases `first` to `last` (not included) of these kinds, each case at most SECONDS long."""
    signal.signal(signal.SIGALRM, _stop)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("error")
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # as Python does; protobuf's text parser has one for a bad escape
    for name in names:
        for number in range(first, last):
            print(json.dumps([name, number, "begun"]), flush=True)  # noqa: T201 - to whoever started the process
            print(json.dumps([name, number, outcome(name, number)]), flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
