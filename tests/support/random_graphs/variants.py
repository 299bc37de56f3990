"""The same graph as other years and hands would have left it: old ops, other names, updates that nobody awaits."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from .build import Trained
from .recipe import Recipe

_OLD = {"AddV2": "Add", "RealDiv": "Div", "Reciprocal": "Inv", "VariableV2": "Variable", "SelectV2": "Select"}
_OLD |= {"FusedBatchNormV3": "FusedBatchNorm", "FusedBatchNormGradV3": "FusedBatchNormGrad"}
_WRITES = frozenset(
    "Assign AssignAdd AssignSub AssignVariableOp AssignAddVariableOp AssignSubVariableOp ScatterUpdate "
    "ResourceScatterUpdate".split()
)


def old_ops(meta: Any, trained: Trained) -> Trained:
    """Ops of TensorFlow 0.x to 1.4 in place of their later versions."""
    graph = meta.graph_def
    for node in [*graph.node, *(n for f in graph.library.function for n in f.node_def)]:
        if node.op == "SelectV2" and not _plain_select(node):
            continue
        if node.op.startswith("FusedBatchNorm") and node.op.endswith("V3"):
            del node.attr["U"]
            if "Grad" in node.op:
                kept = [i for i in node.input if i.startswith("^")]
                data = [i for i in node.input if not i.startswith("^")][:5]
                del node.input[:]
                node.input.extend([*data, *kept])
            del node.attr["_output_shapes"]
        node.op = _OLD.get(node.op, node.op)
    return trained


def _plain_select(node: Any) -> bool:
    """Whether the old op takes the same: it does not broadcast branches."""
    shapes = [[d.size for d in s.dim] for s in node.attr["_output_shapes"].list.shape] if node.attr else []
    return bool(shapes) and shapes[0] == []


def other_names(meta: Any, trained: Trained) -> Trained:
    """Every op, and with them every variable, under a name that means nothing; the Saver's keys stay."""
    nodes = meta.graph_def.node
    new = {node.name: f"part{number % 5}/op_{number}" for number, node in enumerate(nodes)}

    def renamed(reference: str) -> str:
        hat, bare = ("^", reference[1:]) if reference.startswith("^") else ("", reference)
        name, colon, port = bare.partition(":")
        return f"{hat}{new.get(name, name)}{colon}{port}"

    for node in nodes:
        node.name = new[node.name]
        node.input[:] = [renamed(i) for i in node.input]
        if "_class" in node.attr:
            del node.attr["_class"]
        if node.op == "VarHandleOp":
            node.attr["shared_name"].s = node.name.encode()
    for key in [key for key in meta.collection_def if "context" in key]:
        del meta.collection_def[key]
    for collection in meta.collection_def.values():
        if collection.WhichOneof("kind") == "node_list":
            collection.node_list.value[:] = [renamed(name) for name in collection.node_list.value]
        elif collection.WhichOneof("kind") == "bytes_list":
            collection.bytes_list.value[:] = [_variable(item, renamed) for item in collection.bytes_list.value]
    for name in ("filename_tensor_name", "save_tensor_name", "restore_op_name"):
        setattr(meta.saver_def, name, renamed(getattr(meta.saver_def, name)))
    layers = {scope: (new[mean], new[variance]) for scope, (mean, variance) in trained.layers.items()}
    return replace(trained, layers=layers)


def _variable(item: bytes, renamed: Callable[[str], str]) -> bytes:
    variable = variable_pb2.VariableDef.FromString(item)
    for name in ("variable_name", "initializer_name", "snapshot_name", "initial_value_name"):
        setattr(variable, name, renamed(getattr(variable, name)))
    return variable.SerializeToString()


def updates_cut_off(meta: Any, trained: Trained) -> Trained:
    """Nothing waits for the updates any more: they were run by hand, as the values show."""
    updates = set(_updates(meta.graph_def, {name for names in trained.layers.values() for name in names}))
    for node in meta.graph_def.node:
        node.input[:] = [i for i in node.input if i.removeprefix("^").partition(":")[0] not in updates]
    return replace(trained, moved=dict.fromkeys(trained.moved, False))


def _updates(graph: Any, variables: set[str]) -> Iterator[str]:
    """Writes of these variables, initialisers and restores left out."""
    by_name = {node.name: node for node in graph.node}
    for node in graph.node:
        if node.op not in _WRITES or "Initializer" in node.input[1] or node.name.startswith("save/"):
            continue
        target = node
        while target.op in _WRITES | {"Switch", "RefSwitch", "Identity", "Enter", "RefEnter"}:
            target = by_name[target.input[0].partition(":")[0]]
        if target.name in variables:
            yield node.name


VARIANTS: dict[str, Callable[[Any, Trained], Trained]] = {
    "old_ops": old_ops,
    "other_names": other_names,
    "updates_cut_off": updates_cut_off,
}


def variants_of(recipe: Recipe, trained: Trained) -> Iterable[str]:
    """Those that make sense."""
    yield from ("old_ops", "other_names")
    # in functions and loops, and where an op reads what a write gives, more would have to be cut
    can_be_cut = recipe.updating == "apart" and recipe.loop == "none" and recipe.saver == "all"
    if can_be_cut and recipe.average in _CUT and trained.moved and all(trained.moved.values()):
        yield "updates_cut_off"


_CUT = frozenset("assign_sub assign_add assign_mix assign_lerp moving_average decay_variable unbiased ema".split())
_CUT |= {"decay_schedule", "by_index", "slim", "slim_unfused", "tf_layers", "tf_layers_unfused"}


def varied(recipe: Recipe, trained: Trained, variant: str, folder: Path) -> tuple[Recipe, Trained]:
    """The variant beside a copy of the checkpoint, loaded by TensorFlow for a check; and what is true of it."""
    meta = meta_graph_pb2.MetaGraphDef.FromString(Path(f"{trained.prefix}.meta").read_bytes())
    changed = VARIANTS[variant](meta, trained)
    with tf.Graph().as_default():
        tf.import_graph_def(meta.graph_def, name="")
    prefix = folder / trained.prefix.name
    for file in trained.prefix.parent.glob(f"{trained.prefix.name}.*"):
        shutil.copy(file, folder)
    Path(f"{prefix}.meta").write_bytes(meta.SerializeToString())
    recipe = replace(recipe, wiring="separate_call") if variant == "updates_cut_off" else recipe
    return recipe, replace(changed, prefix=prefix)
