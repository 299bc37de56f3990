"""One damaged file, by its kind and number: made, inspected under limits of time and memory, and what came of it."""

from __future__ import annotations

import os
import random
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import FrameType

import mutations
import numpy as np
from mutations import KINDS, Kind, copied, facts

import bncheck
from bncheck.facts.errors import BncheckError
from tests.fuzz import changes

SECONDS = 5.0
"""Of processor time, so that a busy machine makes no hangs."""
MEMORY = 512 << 20
"""Bytes above the file."""
SLACK = 3 << 30
"""Address space that libraries reserve without using it."""

Change = Callable[[bytes, random.Random], bytes]


@cache
def _weights() -> tuple[Path, ...]:
    """Archives of arrays, as people hand weights on: there are none among the fixtures."""
    folder = Path(tempfile.mkdtemp(prefix="bncheck-fuzz-"))
    rng = np.random.default_rng(0)
    layer = {f"bn/{name}": rng.uniform(0.5, 2, 4).astype("f4") for name in ("gamma", "moving_mean", "moving_variance")}
    np.savez(folder / "stored.npz", allow_pickle=False, **layer)
    np.savez_compressed(folder / "packed.npz", allow_pickle=False, **layer)
    return (folder / "stored.npz", folder / "packed.npz")


NPZ = Kind(examples=lambda: list(_weights()), inspect=bncheck.inspect_model, damaged=(".npz",))
FIXTURES = Path(__file__).parents[2] / "fixtures"
PYTORCH = FIXTURES / "pytorch"


def _among(folder: Path, *patterns: str) -> Kind:
    """Files in a folder of the fixtures."""
    return Kind(
        examples=lambda: sorted(path for pattern in patterns for path in folder.rglob(pattern)),
        inspect=bncheck.inspect_model,
        damaged=tuple(pattern.lstrip("*") for pattern in patterns),
    )


OWN: Mapping[str, Kind] = {
    "npz": NPZ,
    "pytorch": _among(PYTORCH, "*.pt", "*.ckpt"),
    "pytorch stream": _among(PYTORCH, "*.pth"),
    "safetensors": _among(PYTORCH, "*.safetensors"),
    "onnx": _among(PYTORCH, "*.onnx"),
    "flax": _among(FIXTURES / "flax", "*.msgpack"),
}
"""Kinds of which there are no examples among the tiny fixtures."""
AIMED: Mapping[str, tuple[str, tuple[str, ...], tuple[Change, ...]]] = {
    "bundle": ("bundle", (".index",), (changes.bundle_index,)),
    "bundle and graph": ("bundle and graph", (".index", ".meta"), (changes.bundle_index, changes.protobuf)),
    "meta": ("meta", (".meta",), (changes.protobuf, mutations.rewire)),
    "pb": ("pb", (".pb",), (changes.protobuf,)),
    "pbtxt": ("pbtxt", (".meta",), (changes.lines,)),
    "saved model": ("saved model", (".pb", ".index"), (changes.protobuf, changes.bundle_index)),
    "h5": ("h5", (".h5", ".hdf5"), (changes.hdf5,)),
    "keras": ("keras", (".keras",), (changes.zip_members, changes.zip_directory, mutations.reconfigure)),
    "npz": ("npz", (".npz",), (changes.zip_members, changes.zip_directory)),
    "pytorch": ("pytorch", (".pt", ".ckpt"), (changes.pickled_member, changes.zip_members, changes.zip_directory)),
    "pytorch stream": ("pytorch stream", (".pth",), (changes.pickled_stream,)),
    "safetensors": ("safetensors", (".safetensors",), (changes.json_header,)),
    "onnx": ("onnx", (".onnx",), (changes.protobuf,)),
    "flax": ("flax", (".msgpack",), (mutations.damage,)),
    "tflite": ("tflite", (".tflite",), (changes.flatbuffer,)),
}
"""Format -> the kind whose examples it takes, the files that are changed, and how, beside plain damage."""


class HangError(Exception):
    """A case took more than SECONDS of the processor."""


def outcome(name: str, number: int) -> str:
    """Of a case: "error NAME", "report", or what must not be, beginning with "bug"."""
    kind_name, endings, aimed = AIMED[name]
    kind = OWN.get(kind_name) or KINDS[kind_name]
    random_ = random.Random(f"aimed {name} {number}")  # noqa: S311 - reproducible, not secret
    example = random_.choice(kind.examples())
    with tempfile.TemporaryDirectory() as place:
        target, _ = copied(kind, example, Path(place))
        files = sorted(p for p in Path(place).rglob("*") if p.is_file() and p.name.endswith(endings))
        file = random_.choice(files)
        before = file.read_bytes()
        fitting = [c for c in aimed if (c is changes.bundle_index) == (file.suffix == ".index")]
        after = random_.choice((*fitting, *fitting, mutations.damage))(before, random_)
        told = file.stat()
        file.write_bytes(after)
        os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns))  # else bncheck waits for who seems to write it
        return _judged(kind, str(target), file, f"{example.parent.name}/{example.name}")


def _judged(kind: Kind, target: str, file: Path, example: str) -> str:
    start = _peak(reset=True)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    began = time.process_time()
    try:
        facts(kind.inspect(target))
        came = "report"
    except BncheckError as error:
        said = str(error)
        named = file.parent.name in said or file.name in said
        came = f"error {type(error).__name__}" if named and "\n" not in said else f"bug: {example}: says {said[:300]!r}"
    except HangError:
        came = f"bug: {example}: took {time.process_time() - began:.1f} s: {traceback.format_exc(limit=-6)}"
    except Exception:  # noqa: BLE001 - whatever else comes is what is looked for
        came = f"bug: {example}: {traceback.format_exc(limit=-6)}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = _peak(reset=False) - start
    if grown > MEMORY + file.stat().st_size:
        return f"bug: {example}: took {grown >> 20:,} MiB"
    return came


def _peak(*, reset: bool) -> int:
    """Most bytes in memory since the last reset; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def limited() -> None:
    """Puts this process under the limits that all its cases share."""
    signal.signal(signal.SIGPROF, _stop)
    resource.setrlimit(resource.RLIMIT_AS, (SLACK, SLACK))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise HangError
