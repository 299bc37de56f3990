"""Bytes -> raw tensors and graphs. Knows formats, knows nothing of batch norm, never imports TensorFlow."""

from __future__ import annotations

import stat
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from bncheck.facts.errors import NotFound, ReadError, UnknownFormat, UsageError
from bncheck.sources.bundle.locate import find, in_step_order, no_checkpoint
from bncheck.sources.files import LFS_POINTER, is_file, names, not_fetched, read_head, status
from bncheck.sources.raw import PROVENANCE, RawModel
from bncheck.sources.remote import located
from bncheck.sources.stamps import stamps

_READERS = {
    "bundle.checkpoint": "read_checkpoint",
    "tflite.tflite": "read_lite",
    "keras.keras": "read_keras",
    "arrays": "read_arrays",
    "pytorch.pytorch": "read_pytorch",
    "safetensors": "read_safetensors",
    "flax": "read_flax",
    "graph.saved_model": "read_saved_model",
    "onnx.onnx": "read_onnx",
    "graph.graphs": "read_graph",
}
"""Module -> its reader, in the order in which they are asked; those that know their content by magic first."""

_CHECKPOINT = "bundle.checkpoint"
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
_SNIFFED = 64


class ReadBefore:
    """What was read last: a run's checkpoints have one graph, each in a file of its own, and one layout."""

    def __init__(self) -> None:
        self._graphs: list[tuple[bytes, RawModel]] = []
        self._indexes = import_module(f"bncheck.sources.{_CHECKPOINT}").IndexMemory()

    def checkpoint(self, path: Path) -> RawModel:
        """As its reader has it. Raises ReadError."""
        return _read(_CHECKPOINT, path, self._indexes)

    def graph(self, path: Path) -> RawModel:
        """The graph of this file: the very objects of one read before that has the same bytes. Raises ReadError."""
        graphs = import_module("bncheck.sources.graph.graphs")
        content = graphs.read_bytes(path)
        found = next((known for of, known in self._graphs if of == content), None)
        if found is None:
            found = graphs.read_graph(path)
            self._graphs = [*self._graphs[-1:], (content, found)]
        of_path = tuple(replace(graph, path=path) for graph in found.graphs)
        return _marked(replace(found, path=path, graphs=of_path))


def open_model(
    path: Path | str, *, graph: Path | str | None = None, use_graph: bool = True, memory: ReadBefore | None = None
) -> RawModel:
    """What a path holds: a checkpoint (prefix, file, directory), graph, SavedModel, Keras, TFLite or NumPy file.

    Told by content, not by suffix. A checkpoint comes with its graph: `graph`, else, with `use_graph`, the `.meta` of
    the same prefix, or one of another name in its folder that fits its variables. Raises ReadError (NoModel for a
    directory that holds none), and UsageError where `graph` is given with anything but a checkpoint.
    """
    path = located(path)
    source = _source(path)
    if source == _CHECKPOINT:
        return open_checkpoint(path, graph=graph, use_graph=use_graph, memory=memory)
    if graph is not None:
        raise UsageError(f"{path} is not a checkpoint: --graph belongs to one")
    return _read(source, path)


def open_checkpoint(
    path: Path | str, *, graph: Path | str | None = None, use_graph: bool = True, memory: ReadBefore | None = None
) -> RawModel:
    """The checkpoint of a path, even where the path is the `.meta` beside it, with its graph as in `open_model`."""
    model = _read(_CHECKPOINT, located(path)) if memory is None else memory.checkpoint(located(path))
    if graph is not None:
        meta = located(graph)
    elif use_graph and is_file(beside(model.path)):
        meta = beside(model.path)
    elif use_graph and not is_object_based(model):
        return _with_graph_beside(model)
    else:
        return model
    try:
        of_graph = _read("graph.graphs", meta) if memory is None else memory.graph(meta)
    except ReadError as error:
        if graph is None:
            error.hint = f"{error.hint}; --no-graph leaves it out" if error.hint else "--no-graph leaves it out"
        raise
    return replace(model, graphs=of_graph.graphs, notes=model.notes + of_graph.notes)


def _with_graph_beside(model: RawModel) -> RawModel:
    """The checkpoint with a graph of another name from its folder, where one fits."""
    if not any(name.endswith(".meta") for name in names(model.path.parent)):
        return model
    found = import_module("bncheck.sources.graph.beside").graph_beside(model.path, model.tensors)
    graphs = () if found.graph is None else found.graph.graphs
    return replace(model, graphs=graphs, notes=model.notes + found.notes)


def is_object_based(model: RawModel) -> bool:
    """Whether a checkpoint was saved by object, so that its keys are no names of variables."""
    return model.object_graph is not None


def is_beside(path: Path) -> bool:
    """Whether this is the `.meta` file of a checkpoint that is there."""
    return path.name.endswith(".meta") and is_file(path.with_name(path.name[: -len("meta")] + "index"))


def run_dir(path: Path | str) -> list[Path]:
    """The prefixes of all checkpoints in a directory, in step order.

    Raises NotFound, NoModel, Unreadable.
    """
    path = located(path)
    found = status(path)
    if found is None:
        raise NotFound(path, "no such directory")
    if not stat.S_ISDIR(found.st_mode):
        raise NotFound(path, "a file, not a directory of checkpoints")
    prefixes = in_step_order(path)
    if not prefixes:
        raise no_checkpoint(path)
    return prefixes


def beside(prefix: Path) -> Path:
    """The `.meta` file of a checkpoint's prefix, whether it exists or not."""
    return prefix.with_name(".meta" if prefix.name == ".index" else f"{prefix.name}.meta")


def _marked(model: RawModel) -> RawModel:
    """The model with what lies beside it where bncheck has repaired it, and a note."""
    if not is_file(model.path.with_name(model.path.name + PROVENANCE)):
        return model
    from bncheck.sources.provenance import read_provenance  # noqa: PLC0415 - only beside repaired models

    found = read_provenance(model)
    assert found is not None
    note = f"{found.told}: see {found.file}"
    if not found.confirmed:
        note = f"{found.file} speaks of a repair, but the statistics are not those that it wrote: it is not believed"
    return replace(model, repaired=found, notes=(*model.notes, note))


def _read(source: str, path: Path, *memory: object) -> RawModel:
    before = stamps(path)
    model = getattr(import_module(f"bncheck.sources.{source}"), _READERS[source])(path, *memory)
    assert isinstance(model, RawModel)
    return _marked(replace(model, stamps=before))


def _source(path: Path) -> str:
    """Which module reads what is at this path."""
    found = status(path)
    if found is None:
        return _CHECKPOINT
    if stat.S_ISDIR(found.st_mode):
        if any(name in _SAVED_MODEL for name in names(path)):
            return "graph.saved_model"
        if import_module("bncheck.sources.flax").is_orbax(path):
            return "flax"
        if import_module("bncheck.sources.pytorch.pytorch").is_distributed(path):
            return "pytorch.pytorch"
        # an unpacked .keras archive is the one other model that is a directory
        return "keras.keras" if import_module("bncheck.sources.keras.keras").matches(path, b"") else _CHECKPOINT
    head = read_head(path, _SNIFFED)
    if head.startswith(LFS_POINTER):
        raise not_fetched(path)
    for source in _READERS:
        if import_module(f"bncheck.sources.{source}").matches(path, head):
            return source
    if path.name == "checkpoint" or path.name.endswith(".index") or is_file(path.with_name(f"{path.name}.index")):
        # by its name alone; its own reader tells best what is wrong with it
        return _CHECKPOINT
    raise UnknownFormat(
        path,
        _unknown(head),
        hint="bncheck reads checkpoints, graphs, SavedModels, Keras, TFLite, PyTorch, safetensors, ONNX and Flax",
    )


def is_model_folder(path: Path) -> bool:
    """Whether a folder is itself a model: a SavedModel, or an unpacked `.keras` archive."""
    return _source(path) != _CHECKPOINT


def is_model(path: Path) -> bool:
    """Whether a path looks like something that bncheck reads: by content where it is a file, unread so far."""
    try:
        source = _source(path)
    except UnknownFormat as error:
        # what Git LFS has not fetched yet is a model all the same, and its own reader says so
        return error.reason == not_fetched(path).reason
    return source != _CHECKPOINT or find(path) is not None


def is_pytorch(path: Path) -> bool:
    """Whether a file's content is PyTorch's, whatever it is called."""
    try:
        return _source(path) == "pytorch.pytorch"
    except UnknownFormat:
        return False


def _unknown(head: bytes) -> str:
    if not head:
        return "an empty file"
    text = all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    return "a text file, not a model" if text else "of no format that bncheck reads"
