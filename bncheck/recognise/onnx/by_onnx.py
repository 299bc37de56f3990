"""ONNX models -> layers: each BatchNormalization by its node, its vectors by what is constant in the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Facts, GraphFacts, Layer, Linear, Mode, Origin, Presence, Purpose, Role, Site, Vector
from bncheck.facts.record import replace
from bncheck.recognise.kernel_sizes import linear_before
from bncheck.recognise.named.name_families import find_groups
from bncheck.recognise.stored_vectors import vector
from bncheck.recognise.training_progress import run_facts
from bncheck.settings.options import Options
from bncheck.sources.onnx.onnx import raw_tensor
from bncheck.sources.raw import RawModel, RawTensor

_BATCH_NORM = "BatchNormalization"
_OWN_DOMAINS = ("", "ai.onnx")
_EPSILON = 1e-5
"""The op's default."""
_TRAINING_MODE_SINCE = 14
"""Version of the operator set that has the attribute; before, more than one output means train mode."""
_INPUTS = (Role.GAMMA, Role.BETA, Role.MEAN, Role.VARIANCE)
"""Those of the op, behind what it normalises."""


def recognise_onnx(raw: RawModel, hints: Options) -> Facts:
    """The layers of the main graph. Raises ReadError where the file is damaged.

    Batch norm in functions and in branches and loops is not looked into: a gap says so.
    """
    model = raw.onnx
    assert model is not None
    version = max((o.version for o in model.opset_import if o.domain in _OWN_DOMAINS), default=1)
    constants = _constants(raw)
    producers = {name: node for node in model.graph.node for name in node.output if name}
    outputs = _outputs_reached(model.graph)
    layers: dict[str, Layer] = {}
    for order, node in enumerate(filter(_is_batch_norm, model.graph.node)):
        site = _site(node, version, outputs.get(id(node), ()), order)
        site = replace(site, linear=_linear(node, producers, constants))
        layer = _layer(node, constants, site, order)
        before = layers.get(layer.name)
        same = before is not None and before.mean.key == layer.mean.key and layer.mean.key
        if same and before is not None:
            layers[layer.name] = replace(before, sites=(*before.sites, site))
        else:
            layers[layer.name if before is None else f"{layer.name} ({order})"] = layer
    graph = GraphFacts(
        path=str(raw.path),
        format=raw.format,
        nodes=len(model.graph.node),
        purpose=Purpose.INFERENCE,
        serving=True,
        producer=model.producer_name,
    )
    return Facts(
        path=str(raw.path),
        format=raw.format,
        layers=tuple(replace(layer, name=name) for name, layer in layers.items()),
        graph=graph,
        run=run_facts(raw, hints),
        gaps=tuple(_gaps(model)),
        notes=raw.notes,
    )


def _is_batch_norm(node: Any) -> bool:
    return node.op_type == _BATCH_NORM and node.domain in _OWN_DOMAINS


def _constants(raw: RawModel) -> dict[str, RawTensor]:
    """Every name whose value the file holds: initialisers, Constant nodes, and what only passes these on."""
    model = raw.onnx
    assert model is not None
    found = dict(raw.tensors)
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.output) == 1:
            for attribute in node.attribute:
                if attribute.name == "value":
                    found[node.output[0]] = raw_tensor(raw.path, attribute.t, {})
        elif node.op_type == "Identity" and len(node.input) == 1 and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _outputs_reached(graph: Any) -> dict[int, tuple[str, ...]]:
    """Node -> outputs of the model that depend on it. Nodes stand in topological order, as the format demands."""
    needs: dict[str, set[str]] = {output.name: {output.name} for output in graph.output}
    reached: dict[int, tuple[str, ...]] = {}
    for node in reversed(graph.node):
        outputs = set().union(*(needs.get(name, set()) for name in node.output))
        reached[id(node)] = tuple(sorted(outputs))
        if outputs:
            for name in node.input:
                needs.setdefault(name, set()).update(outputs)
    return reached


def _attributes(node: Any) -> Mapping[str, Any]:
    return {attribute.name: attribute for attribute in node.attribute}


def _site(node: Any, version: int, outputs: tuple[str, ...], order: int) -> Site:
    told = _attributes(node)
    training = told["training_mode"].i != 0 if "training_mode" in told else False
    if version < _TRAINING_MODE_SINCE:
        training = sum(map(bool, node.output)) > 1
    return Site(
        name=node.name or node.output[0],
        form=_BATCH_NORM,
        mode=Mode.TRAIN if training else Mode.EVAL,
        epsilon=float(np.float32(told["epsilon"].f)) if "epsilon" in told else _EPSILON,
        axis=1,
        linear_axis=1,
        outputs=outputs,
        order=order,
    )


def _layer(node: Any, constants: Mapping[str, RawTensor], site: Site, order: int) -> Layer:
    inputs = dict(zip(_INPUTS, node.input[1:5], strict=False))
    vectors = {role: _vector(role, inputs.get(role, ""), constants) for role in _INPUTS}
    stored = [found.key for found in vectors.values() if found.key]
    group = next(iter(find_groups(dict.fromkeys(stored))), None)
    channels = next((v.values.size for v in vectors.values() if v.values is not None), None)
    return Layer(
        name=group.label if group is not None else site.name,
        origin=Origin.GRAPH,
        mean=vectors[Role.MEAN],
        variance=vectors[Role.VARIANCE],
        gamma=vectors[Role.GAMMA],
        beta=vectors[Role.BETA],
        channels=channels,
        epsilon=site.epsilon,
        sites=(site,),
        linear=site.linear,
        order=order,
    )


def _vector(role: Role, name: str, constants: Mapping[str, RawTensor]) -> Vector:
    tensor = constants.get(name)
    if tensor is None:
        return Vector(role=role, presence=Presence.UNREAD, name=name, reason="is computed by the graph")
    return vector(role, tensor, name=name)


_KERNELS = {"Conv": ("Conv2D", 0), "ConvTranspose": ("Conv2D", 1), "MatMul": ("MatMul", 1), "Gemm": ("MatMul", 1)}
"""Op -> (TensorFlow's op of that layout, axis of its kernel's output channels)."""


def _linear(node: Any, producers: Mapping[str, Any], constants: Mapping[str, RawTensor]) -> Linear | None:
    """The convolution or dense layer whose output the node normalises, with its kernel in TensorFlow's layout."""
    before = producers.get(node.input[0]) if node.input else None
    if before is None or before.op_type not in _KERNELS or len(before.input) < 2:
        return None
    op, axis = _KERNELS[before.op_type]
    told = _attributes(before)
    if before.op_type == "Gemm" and "transB" in told and told["transB"].i:
        axis = 0
    kernel = constants.get(before.input[1])
    groups = told["group"].i if "group" in told else 1
    if kernel is None or len(kernel.shape) <= axis or (before.op_type == "ConvTranspose" and groups != 1):
        return None
    shape = (*kernel.shape[:axis], *kernel.shape[axis + 1 :], kernel.shape[axis])
    moved = replace(kernel, shape=shape, read=lambda: np.moveaxis(kernel.read(), axis, -1))
    return linear_before(before.name or before.output[0], op, moved)


def _gaps(model: Any) -> Iterator[Gap]:
    """Where batch norm is, and was not looked at."""
    for function in model.functions:
        if any(map(_is_batch_norm, function.node)):
            yield Gap(
                kind=GapKind.LAYER, where=function.name, why="batch norm in a function of an ONNX model is not read"
            )
    for node in model.graph.node:
        inner = [graph for a in node.attribute for graph in (a.g, *a.graphs)]
        if any(_is_batch_norm(within) for graph in inner for within in graph.node):
            why = f"batch norm in a branch or loop ({node.op_type}) of an ONNX model is not read"
            yield Gap(kind=GapKind.LAYER, where=node.name or node.output[0], why=why)
