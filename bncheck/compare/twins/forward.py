"""A recognised graph -> twins of its forward pass that differ in batch norm only, as one GraphDef. No TensorFlow here.

Weights become constants (once, for both twins), dropout and update ops fall away, conditions on the training switch are
settled for inference, input pipelines are cut at the tensor that they deliver. In place of each batch norm stands one
that normalises with the stored statistics (`eval`) or with those of the batch at hand (`train`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bncheck.compare.data.samples import ModelInput
from bncheck.compare.twins.allowed_ops import keep_reached, refuse_others
from bncheck.compare.twins.folded_norm import write_folded
from bncheck.compare.twins.inference_path import plan_of
from bncheck.compare.twins.norm import Normalised, write_norm
from bncheck.compare.twins.ops import write_op
from bncheck.compare.twins.writer import EVAL, INPUT, TRAIN, TwinWriter, data_type
from bncheck.facts.layers import Layer
from bncheck.recognise.graph.flat import FlatGraph, node_of, port_of
from bncheck.recognise.graph.view import GraphView
from bncheck.sources.graph import protos

_NUMPY = {"float": "f4", "double": "f8", "half": "f2", "uint8": "u1", "int8": "i1", "int32": "i4", "int64": "i8"}
"""Name of a DataType -> numpy's."""


@dataclass(frozen=True, kw_only=True)
class TwinSite:
    """One batch norm of the forward pass, in both twins, as tensor names."""

    layer: str
    eval_output: str
    eval_mean: str
    """The stored mean that the eval twin normalises with, in any shape of (channels,): other values may be fed."""
    eval_variance: str
    train_output: str
    train_input: str
    batch_mean: str
    """(channels,) or (1, ..., channels): mean of the batch in the train twin."""
    batch_variance: str
    """Variance of the batch as the kernel gives it: Bessel-corrected where `corrected`."""
    corrected: bool
    axis: int | None
    """Of the channels in the input, -1 the last; None where batch norm keeps more axes than one."""
    mask: str | None = None
    """(samples, steps, 1) of 1.0 where a value counts in the moments of the batch, else 0; None where all count."""


@dataclass(frozen=True, kw_only=True)
class TwinInput:
    """Where data enter both twins."""

    name: str
    """As people know it: that of the signature, or of the placeholder."""
    also: tuple[str, ...]
    """Other names that it goes by."""
    tensor: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Forward:
    """Both twins in one GraphDef (a message of `sources/protos.py`), on the same inputs."""

    graph_def: Any
    inputs: tuple[TwinInput, ...]
    """The one that was asked for first, then others that the outputs depend on."""
    batch: int | None
    """Samples that the graph declares its input to hold, where it does: the twins' input is open, other ops may not."""
    eval_outputs: tuple[str, ...]
    train_outputs: tuple[str, ...]
    sites: tuple[TwinSite, ...]
    """In forward order."""


def forward(
    view: GraphView,
    layers: tuple[Layer, ...],
    input_edge: int,
    outputs: Sequence[int],
    *,
    trusted: bool,
    masks: Mapping[str, str] = MappingProxyType({}),
) -> Forward:
    """The twins between `input_edge` and `outputs` (edges). Raises BncheckError where that cannot be done,
    and for ops that run only with `trusted`.

    `masks`: tensor that enters a batch norm -> its mask, which the train twin's moments leave steps out by.
    """
    plan = plan_of(view, layers, input_edge, masks)
    graph_def, written = protos.GraphDef(), set[str]()
    graph_def.library.CopyFrom(view.raw.graph_def.library)
    entries = {input_edge: INPUT}
    names, norms = {}, {}
    for twin in (EVAL, TRAIN):
        writer = TwinWriter(plan=plan, twin=twin, graph_def=graph_def, written=written, entries=entries)
        names[twin], norms[twin] = _write(writer, outputs)
    for e, name in entries.items():
        _write_input(graph_def, view, e, name)
    keep_reached(graph_def)
    if not trusted:
        refuse_others(graph_def)
    return Forward(
        graph_def=graph_def,
        inputs=tuple(_input(view, e, name) for e, name in entries.items()),
        batch=_declared_batch(view, input_edge),
        eval_outputs=names[EVAL],
        train_outputs=names[TRAIN],
        sites=tuple(
            _site(plan.sites[node][1], norms[EVAL][node], norms[TRAIN][node])
            for node in sorted(norms[EVAL], key=view.position.__getitem__)
        ),
    )


def _write(writer: TwinWriter, outputs: Sequence[int]) -> tuple[tuple[str, ...], dict[int, Normalised]]:
    """Writes all that the outputs need in one twin: their tensor names, and site -> its batch norm."""
    names, norms = [], {}
    for output in outputs:
        names.append(writer.tensor(output))
        while writer.pending:
            node = writer.pending.pop()
            if node in writer.plan.sites and node not in writer.plan.settled:
                folded = writer.plan.sites[node][0].site.fold is not None
                norms[node] = (write_folded if folded else write_norm)(writer, node)
            else:
                write_op(writer, node)
    return tuple(names), norms


def _site(layer: Layer, in_eval: Normalised, in_train: Normalised) -> TwinSite:
    return TwinSite(
        layer=layer.name,
        eval_output=in_eval.output,
        eval_mean=in_eval.mean,
        eval_variance=in_eval.variance,
        train_output=in_train.output,
        train_input=in_train.input,
        batch_mean=in_train.mean,
        batch_variance=in_train.variance,
        corrected=in_train.corrected,
        axis=in_train.axis,
        mask=in_train.mask,
    )


def _input(view: GraphView, e: int, name: str) -> TwinInput:
    flat = view.flat
    own = flat.names[node_of(e)] + (f":{port_of(e)}" if port_of(e) else "")
    keys = [key for signature in view.raw.signatures for key, to in signature.inputs.items() if flat.lookup(to) == e]
    known = tuple(dict.fromkeys((*keys, own, own.rpartition("/")[2])))
    return TwinInput(name=known[0], also=known[1:], tensor=f"{name}:0")


def _write_input(graph_def: Any, view: GraphView, e: int, name: str) -> None:
    node = graph_def.node.add(name=name, op="Placeholder")
    node.attr["dtype"].type = data_type(view, e)
    shape = _declared_shape(view, e)
    if shape is not None:
        node.attr["shape"].shape.CopyFrom(shape)
        node.attr["shape"].shape.dim[0].size = -1
    else:
        node.attr["shape"].shape.unknown_rank = True


def declared_input(view: GraphView, input_edge: int) -> ModelInput | None:
    """The input as the graph declares it; None where its type is none of numbers."""
    kind = protos.data_type(data_type(view, input_edge))
    if kind not in _NUMPY:
        return None
    shape = _declared_shape(view, input_edge)
    sizes = None if shape is None else tuple(int(dim.size) if dim.size >= 0 else None for dim in shape.dim)
    return ModelInput(shape=sizes, dtype=np.dtype(_NUMPY[kind]))


def _declared_batch(view: GraphView, input_edge: int) -> int | None:
    shape = _declared_shape(view, input_edge)
    return None if shape is None or shape.dim[0].size < 1 else int(shape.dim[0].size)


def _declared_shape(view: GraphView, e: int) -> Any:
    """The TensorShapeProto of what a placeholder, iterator or queue gives, batch first; None where none is told."""
    flat, node = view.flat, node_of(e)
    single, listed = flat.attr(node, "shape"), flat.attr(node, "output_shapes")
    found = None
    if single is not None:
        found = single.shape
    elif listed is not None and len(listed.list.shape) > port_of(e):
        found = listed.list.shape[port_of(e)]
    elif flat.ops[node].startswith("QueueDequeue") and flat.data[node]:
        found = _of_the_queue(flat, node, port_of(e))
    return None if found is None or found.unknown_rank or not found.dim else found


def _of_the_queue(flat: FlatGraph, dequeue: int, port: int) -> Any:
    """Queues declare single elements; many of them are dequeued under an axis of their own, as batches."""
    queue = flat.attr(node_of(flat.data[dequeue][0]), "shapes")
    if queue is None or len(queue.list.shape) <= port:
        return None
    element = queue.list.shape[port]
    if "Many" not in flat.ops[dequeue] and "UpTo" not in flat.ops[dequeue]:
        return element
    found = type(element)(unknown_rank=element.unknown_rank)
    found.dim.add(size=-1)
    found.dim.extend(element.dim)
    return found
