"""Maps of shards, as Hugging Face's libraries write them beside safetensors and PyTorch's files: tensor -> file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bncheck.facts.errors import Malformed, ReadError, TooLarge
from bncheck.sources.files import read_whole, require_inside
from bncheck.sources.raw import RawTensor

MAP = ".index.json"
"""How the name of a map ends, behind that of the whole file: `model.safetensors`, `pytorch_model.bin`."""
_MAX_MAP = 100_000_000
"""Bytes of a map; as of a header of safetensors."""
_MAX_SHARDS = 10_000


def of_shards(path: Path, read: Callable[[Path], Mapping[str, RawTensor]]) -> dict[str, RawTensor]:
    """The tensors that a map names, of files beside it, each read by `read`. Raises Malformed, TooLarge, as `read`."""
    where = _map(path)
    files = sorted(set(where.values()))
    if len(files) > _MAX_SHARDS:
        raise TooLarge(path, f"{len(files):,} shards")
    tensors: dict[str, RawTensor] = {}
    for name in files:
        if name != Path(name).name or "\0" in name:
            raise Malformed(path, f"it names {name!r} as a shard, which is not a file beside it")
        require_inside(path.parent / name, path.parent)
        shard = read(path.parent / name)
        wrong = next((key for key, of in where.items() if of == name and key not in shard), None)
        if wrong is not None:
            raise Malformed(path, f"it says that {wrong!r} lies in {name}, where it is not")
        tensors.update({key: tensor for key, tensor in shard.items() if where.get(key) == name})
    return {key: tensors[key] for key in where}


def shard_names(path: Path) -> frozenset[str]:
    """The files that a map names; none where it cannot be read, which whoever reads it as a model says."""
    try:
        return frozenset(_map(path).values())
    except ReadError:
        return frozenset()


def _map(path: Path) -> dict[str, str]:
    where = json_object(path, read_whole(path, limit=_MAX_MAP), 0).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise Malformed(path, "it has no map of tensors to files")
    return where


def json_object(path: Path, content: bytes, at: int) -> dict[str, Any]:
    """A JSON object that has no key twice; `at`: where it begins in the file. Raises Malformed."""
    try:
        found = json.loads(content, object_pairs_hook=partial(_once, path))
    except (ValueError, RecursionError) as error:
        raise Malformed(path, f"its JSON is damaged: {error}", offset=at) from None
    if not isinstance(found, dict):
        raise Malformed(path, "its JSON is no object", offset=at)
    return found


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise Malformed(path, "its JSON has a key twice")
    return made
