"""Which models people mean by paths, globs and folders: every model once, in an order that does not change."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from bncheck.facts.errors import NoModel, NotFound
from bncheck.facts.record import Record
from bncheck.sources import is_model, is_model_folder, is_pytorch
from bncheck.sources.bundle.locate import in_step_order, prefix_of
from bncheck.sources.files import status
from bncheck.sources.gitignored import ignored_by
from bncheck.sources.remote import located
from bncheck.sources.shards import MAP, shard_names

SUFFIXES = (
    ".keras",
    ".h5",
    ".hdf5",
    ".tflite",
    ".lite",
    ".pb",
    ".pbtxt",
    ".meta",
    ".pt",
    ".pth",
    ".safetensors",
    MAP,
    ".onnx",
    ".msgpack",
)
"""Of models in folders, beside checkpoints; what a path names itself may be called anything."""
_OF_MANY = (".ckpt", ".bin")
"""Of files that may be anything: models in folders where they are PyTorch's."""
_GLOB = frozenset("*?[")


class Found(Record):
    """A model that a path means."""

    path: Path
    """As it was typed, or below the folder that was typed."""
    named: bool = True
    """Whether it was typed, not found in a folder."""


def models_in(paths: Iterable[str]) -> list[Found]:
    """The models that paths mean: files, prefixes, globs of them, and folders, which are searched.

    Several files of one checkpoint are one model. In folders, hidden files, what `.gitignore` lists and links to other
    folders are left out. Raises NotFound for a glob that matches nothing, NoModel for a folder that holds none.
    """
    found = [one for path in paths for one in _meant(path)]
    if len(found) > 1:
        # `model.ckpt-300*` names the parts of a checkpoint, which is one model
        found = [Found(path=prefix_of(one.path), named=one.named) for one in found]
    first: dict[str, Found] = {}
    for one in found:
        first.setdefault(os.path.abspath(_identity(one.path)), one)  # noqa: PTH100 - links are told apart
    return list(first.values())


def is_glob(text: str) -> bool:
    """Whether a text has wildcards and names nothing that is there."""
    return not _GLOB.isdisjoint(text) and status(Path(text)) is None


def _meant(text: str) -> Iterator[Found]:
    if is_glob(text):
        matched = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - absolute patterns too
        models = [path for path in map(Path, matched) if not path.is_dir() or is_model_folder(path)]
        if not matched:
            raise NotFound(text, "no file matches")
        # a glob often takes files that are no models along: of these only the models are meant
        known = [path for path in models if is_model(path)]
        if not known:
            raise NoModel(text, f"none of {len(matched)} files that match is a model")
        yield from (Found(path=path, named=False) for path in known)
        return
    path = located(text)
    if path.is_dir() and not _is_prefix(path) and not is_model_folder(path):
        below = list(_below(path))
        if not below:
            raise _nothing_in(path)
        yield from (Found(path=one, named=False) for one in below)
        return
    yield Found(path=path)


def _is_prefix(folder: Path) -> bool:
    """Whether a folder is called as the prefix of a checkpoint beside it."""
    return folder.with_name(f"{folder.name}.index").is_file() if folder.name else False


def _below(folder: Path) -> Iterator[Path]:
    """All models in a folder, by folders; in each the checkpoints first, in step order."""
    ignored = ignored_by(folder)
    for name, folders, files in os.walk(folder):
        here = Path(name)
        inner = [here / each for each in sorted(folders) if not each.startswith(".")]
        inner = [each for each in inner if not each.is_symlink() and not ignored(each)]
        models = [each for each in inner if is_model_folder(each)]
        folders[:] = [each.name for each in inner if each not in models]
        checkpoints = [p for p in in_step_order(here) if not ignored(_index(p))]
        yield from checkpoints
        parts = {f"{each.name}.meta" for each in checkpoints}
        parts.update(name for file in files if file.endswith(MAP) for name in shard_names(here / file))
        for file in sorted(files):
            path = here / file
            if file.startswith(".") or file in parts or not file.endswith((*SUFFIXES, *_OF_MANY)) or ignored(path):
                continue
            if is_model(path) if file.endswith(SUFFIXES) else is_pytorch(path):
                yield path
        yield from models


def _index(prefix: Path) -> Path:
    return prefix if prefix.name == ".index" else prefix.with_name(f"{prefix.name}.index")


def _identity(path: Path) -> Path:
    """A SavedModel is its folder."""
    return path.parent if path.name in ("saved_model.pb", "saved_model.pbtxt") else prefix_of(path)


def _nothing_in(folder: Path) -> NoModel:
    left = any(True for _ in folder.rglob("*.index"))
    hint = ".gitignore or a hidden folder leaves out what is there: name the file" if left else ""
    return NoModel(folder, "holds no model, and neither do its subfolders", hint=hint)
