"""Writes training graphs of any size.

python -m tests.bench._graphs FOLDER NODES [NODES ...]

Cells are made by TensorFlow, once for each way to write batch norm: convolution, batch norm, ReLU, updates, gradients
and momentum, for resource and reference variables, fused and not, and switched by a placeholder under `tf.cond`. They
are then repeated under names of their own, forward outputs and gradients chained, until there are enough nodes; a
barrier waits for all updates, the train op for the barrier and all optimizers, and a Saver writes every variable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bncheck.backbones.mobilenet_v2 import slim, tf, v1

CHANNELS = 32
KINDS = ("fused", "fused, reference variables", "decomposed", "switched")
_SHARED = frozenset({"is_training"})


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One block of nodes that stands on its own but for its two inputs."""

    nodes: tuple[Any, ...]
    forward: int
    """How many of them are the network; gradients and optimizers follow."""
    x: str
    dy: str
    """Placeholders for what the cells before and behind it compute."""
    y: str
    dx: str
    updates: tuple[str, ...]
    train: str
    variables: tuple[str, ...]
    reads: tuple[str, ...]
    """Tensors that a Saver writes, in the order of `variables`."""


def cell(kind: str) -> Cell:
    """Builds one cell."""
    v1.disable_control_flow_v2()
    with tf.Graph().as_default() as graph, v1.variable_scope("cell", use_resource="reference" not in kind):
        x = v1.placeholder(tf.float32, [None, 14, 14, CHANNELS], name="x")
        dy = v1.placeholder(tf.float32, [None, 14, 14, CHANNELS], name="dy")
        is_training: Any = True
        if kind == "switched":
            with tf.name_scope("/"):
                is_training = v1.placeholder(tf.bool, [], name="is_training")
        parameters = {"is_training": is_training, "fused": kind != "decomposed", "scale": True, "decay": 0.99}
        y = slim.conv2d(x, CHANNELS, 3, normalizer_fn=slim.batch_norm, normalizer_params=parameters)
        forward = len(graph.as_graph_def().node)
        variables = v1.trainable_variables()
        *gradients, dx = tf.gradients(y, [*variables, x], grad_ys=dy)
        optimizer = v1.train.MomentumOptimizer(0.1, 0.9)
        train = optimizer.apply_gradients(zip(gradients, variables, strict=True))
        saved = v1.global_variables()
        reads = [v.read_value() if hasattr(v, "handle") else v._variable for v in saved]
        updates = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
        return Cell(
            nodes=tuple(graph.as_graph_def(add_shapes=True).node),
            forward=forward,
            x=x.op.name,
            dy=dy.op.name,
            y=y.op.name,
            dx=dx.name.removesuffix(":0"),
            updates=tuple(getattr(u, "op", u).name for u in updates),
            train=train.name,
            variables=tuple(v.op.name for v in saved),
            reads=tuple(r.name.removesuffix(":0") for r in reads),
        )


def meta_graph(nodes: int) -> Any:
    """A MetaGraphDef of about so many nodes."""
    cells = [cell(kind) for kind in KINDS]
    meta = v1.MetaGraphDef()
    graph = meta.graph_def
    shared = {n.name: n for c in cells for n in c.nodes if n.name in _SHARED}
    images = next(n for n in cells[0].nodes if n.name == cells[0].x)
    for name, node in (("images", images), *shared.items()):
        graph.node.add().CopyFrom(node)
        graph.node[-1].name = name
    placed: list[tuple[str, Cell]] = []
    size = 0
    while size < nodes:
        placed.append((f"block_{len(placed)}/", cells[len(placed) % len(cells)]))
        size += len(placed[-1][1].nodes)
    # The gradient of the last block's output is that output itself: the loss is half its square.
    joined = []
    for number, (_, one) in enumerate(placed):
        before = "images" if number == 0 else _out(placed[number - 1], "y")
        behind = _out(placed[-1], "y") if number + 1 == len(placed) else _out(placed[number + 1], "dx")
        joined.append({one.x: before, one.dy: behind})
    # In the order of their making, as graphs are written: all of the network, then the gradients from its end.
    for (prefix, one), inputs in zip(placed, joined, strict=True):
        _place(graph, prefix, one.nodes[: one.forward], inputs)
    for (prefix, one), inputs in zip(reversed(placed), reversed(joined), strict=True):
        _place(graph, prefix, one.nodes[one.forward :], inputs)
    _ends(meta, placed)
    return meta


def _out(placed: tuple[str, Cell], which: str) -> str:
    return placed[0] + str(getattr(placed[1], which))


def _place(graph: Any, prefix: str, nodes: Iterable[Any], joined: dict[str, str]) -> None:
    for original in nodes:
        if original.name in joined or original.name in _SHARED:
            continue
        node = graph.node.add()
        node.CopyFrom(original)
        node.name = prefix + original.name
        del node.input[:]
        node.input.extend(_renamed(original.input, prefix, joined))
        if "_class" in node.attr:
            colocated = node.attr["_class"].list.s
            colocated[:] = [s.replace(b"loc:@", b"loc:@" + prefix.encode()) for s in colocated]
        if "shared_name" in node.attr and node.attr["shared_name"].s:
            node.attr["shared_name"].s = node.name.encode()


def _renamed(names: Any, prefix: str, joined: dict[str, str]) -> Iterator[str]:
    for name in names:
        waits, bare = ("^", name[1:]) if name.startswith("^") else ("", name)
        base, colon, port = bare.partition(":")
        yield waits + (joined.get(base) or (base if base in _SHARED else prefix + base)) + colon + port


def _ends(meta: Any, placed: list[tuple[str, Cell]]) -> None:
    """Barrier, train op and Saver, and the collections that name them."""
    graph = meta.graph_def
    updates = [prefix + name for prefix, one in placed for name in one.updates]
    graph.node.add(name="update_barrier", op="NoOp", input=[f"^{name}" for name in updates])
    optimizers = [f"^{prefix}{one.train}" for prefix, one in placed]
    graph.node.add(name="train", op="NoOp", input=["^update_barrier", *optimizers])
    names = [prefix + name for prefix, one in placed for name in one.variables]
    for name, values in (("save/Const", [b"model"]), ("save/names", [n.encode() for n in names]), ("save/slices", [])):
        constant = graph.node.add(name=name, op="Const")
        constant.attr["dtype"].type = tf.string.as_datatype_enum
        filled = values or [b""] * len(names)
        constant.attr["value"].tensor.dtype = tf.string.as_datatype_enum
        constant.attr["value"].tensor.string_val.extend(filled)
        constant.attr["value"].tensor.tensor_shape.dim.add(size=len(filled))
    reads = [prefix + name for prefix, one in placed for name in one.reads]
    graph.node.add(name="save/SaveV2", op="SaveV2", input=["save/Const", "save/names", "save/slices", *reads])
    meta.collection_def["train_op"].node_list.value.append("train")
    meta.collection_def["update_ops"].node_list.value.extend(updates)


def main(folder: Path, sizes: list[int]) -> None:
    """Writes FOLDER/<nodes>.meta for each size."""
    for size in sizes:
        (folder / f"{size}.meta").write_bytes(meta_graph(size).SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(argument) for argument in sys.argv[2:]])
