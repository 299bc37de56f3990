"""Graphs in the folder of a checkpoint that bear another name: which of them it was made with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bncheck.facts.errors import ReadError
from bncheck.sources.files import is_file, names
from bncheck.sources.graph.graphs import read_graph
from bncheck.sources.raw import RawModel, RawTensor

_VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp"})
_PART = re.compile(r"/part_\d+\Z")
_STEP = re.compile(r"(-\d+)?(?: ?\(\d+\))?(?:\.meta)?\Z")
_MAX_TRIED = 6
_MAX_BYTES = 1 << 28
"""Of one graph that is tried without having been asked for."""


class GraphBeside(NamedTuple):
    """What was found."""

    graph: RawModel | None
    notes: tuple[str, ...]


def graph_beside(prefix: Path, tensors: Mapping[str, RawTensor]) -> GraphBeside:
    """The `.meta` of another step or name whose variables are those of a checkpoint, and what is said about it.

    One fits where its variables, or those that a Saver of it writes, are the checkpoint's keys, of the same shapes;
    where only the step differs ("model.ckpt-100.meta" for "model.ckpt-300") it may have more. Graphs of the same stem
    come first, then the newest name.
    """
    stem = _STEP.sub("", prefix.name)
    found = [name for name in names(prefix.parent) if name.endswith(".meta") and is_file(prefix.parent / name)]
    found = sorted(found, key=lambda name: (_STEP.sub("", name) == stem, name), reverse=True)
    unfit: list[str] = []
    for name in found[:_MAX_TRIED]:
        path = prefix.parent / name
        if path.stat().st_size > _MAX_BYTES:
            continue
        try:
            graph = read_graph(path)
        except ReadError:
            continue
        if _fits(graph, tensors, more=_STEP.sub("", name) == stem):
            note = f"{prefix.name} has no .meta of its own: {name} fits its variables and is used"
            return GraphBeside(graph, (note,))
        unfit.append(name)
    if not unfit:
        return GraphBeside(None, ())
    return GraphBeside(None, (f"{_some(unfit)} beside it holds the graph of another network, and was not used",))


def graph_in(folder: Path) -> Path | None:
    """The graph that a folder without a checkpoint and SavedModel holds: its newest `.meta`, else its only graph."""
    present = [name for name in names(folder) if is_file(folder / name)]
    metas = [name for name in present if name.endswith(".meta")]
    if metas:
        return folder / max(metas, key=lambda name: (_number(name), name))
    others = [name for name in present if name.endswith((".pb", ".pbtxt"))]
    return folder / others[0] if len(others) == 1 else None


def _number(name: str) -> int:
    found = re.search(r"-(\d{1,18})\.meta\Z", name)
    return int(found[1]) if found else -1


def _fits(graph: RawModel, tensors: Mapping[str, RawTensor], *, more: bool) -> bool:
    shapes = _variables(graph)
    if not tensors or not tensors.keys() <= shapes.keys():
        return False
    if any(shapes[key] is not None and shapes[key] != tensor.shape for key, tensor in tensors.items()):
        return False
    return more or len(shapes) == len(tensors) or tensors.keys() in _saved(graph)


def _saved(model: RawModel) -> list[set[str]]:
    """What each Saver writes: the second input of a SaveV2 is a constant of names."""
    found = []
    for graph in model.graphs:
        nodes = graph.graph_def.node
        listed = {node.input[1] for node in nodes if node.op == "SaveV2" and len(node.input) > 1}
        found += [
            {name.decode("utf-8", "replace") for name in node.attr["value"].tensor.string_val}
            for node in nodes
            if node.name in listed
        ]
    return found


def _variables(model: RawModel) -> dict[str, tuple[int, ...] | None]:
    """Variable -> its shape; None where it is not declared in full, or the variable is cut into parts."""
    found: dict[str, tuple[int, ...] | None] = {}
    for graph in model.graphs:
        for node in graph.graph_def.node:
            if node.op not in _VARIABLES:
                continue
            shared = node.attr["shared_name"].s.decode("utf-8", "replace") if node.op == "VarHandleOp" else ""
            name = shared or node.name
            shape = node.attr["shape"].shape
            sizes = tuple(dim.size for dim in shape.dim)
            whole = _PART.sub("", name)
            found[whole] = None if whole != name or shape.unknown_rank or any(s < 0 for s in sizes) else sizes
    return found


def _some(found: list[str]) -> str:
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
