"""SavedModel folders, version 1 and 2, with one or several MetaGraphs -> RawModel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bncheck.facts.errors import Malformed, NotFound
from bncheck.facts.formats import FileKind, Format
from bncheck.sources.bundle.checkpoint import read_checkpoint
from bncheck.sources.graph import protos
from bncheck.sources.graph.graphs import meta_graph, parse, parse_text, read_bytes
from bncheck.sources.raw import RawModel

FILES = ("saved_model.pb", "saved_model.pbtxt")


def matches(path: Path, head: bytes) -> bool:
    """Whether `path` is a SavedModel folder, or the `saved_model.pb` inside one."""
    if path.is_dir():
        return any((path / name).is_file() for name in FILES)
    return path.name in FILES and (head[:1] == b"\x08" or path.suffix == ".pbtxt")


def read_saved_model(path: Path) -> RawModel:
    """Reads the folder (or its `saved_model.pb`) and, lazily, its variables; raises ReadError."""
    folder = path if path.is_dir() else path.parent
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise NotFound(folder, f"holds no {FILES[0]}")
    message = protos.SavedModel()
    content = read_bytes(file)
    if file.suffix == ".pbtxt":
        parse_text(file, message, content)
    else:
        parse(file, message, content)
    if not message.meta_graphs:
        raise Malformed(file, "holds no MetaGraph: not a SavedModel, or truncated", offset=0)
    form = Format(FileKind.SAVED_MODEL)
    model = RawModel(path=path, format=form, graphs=tuple(meta_graph(file, g, form) for g in message.meta_graphs))
    prefix = folder / "variables" / "variables"
    if not prefix.with_name("variables.index").is_file():
        return replace(model, notes=("the folder holds no variables/variables.index",))
    checkpoint = read_checkpoint(prefix)
    return replace(model, tensors=checkpoint.tensors, object_graph=checkpoint.object_graph, notes=checkpoint.notes)
