"""ONNX models -> layers: each BatchNormalization by its node, its vectors by what is constant in the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Facts, GraphFacts, Layer, Linear, Mode, Origin, Presence, Purpose, Role, Site, Vector
from bncheck.facts.record import replace
from bncheck.recognise.channels_last import channels_last
from bncheck.recognise.kernel_sizes import linear_before
from bncheck.recognise.named.name_families import find_groups
from bncheck.recognise.onnx.nodes import (
    epsilon_of,
    in_train_mode,
    integer,
    is_batch_norm,
    version_of,
)
from bncheck.recognise.onnx.values import real_constants
from bncheck.recognise.stored_vectors import vector
from bncheck.recognise.training_progress import run_facts
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel, RawTensor

_INPUTS = (Role.GAMMA, Role.BETA, Role.MEAN, Role.VARIANCE)
"""Those of the op, behind what it normalises."""


def recognise_onnx(raw: RawModel, hints: Options) -> Facts:
    """The layers of the main graph. Raises ReadError where the file is damaged.

    Batch norm in functions and in branches and loops is not looked into: a gap says so.
    """
    model = raw.onnx
    assert model is not None
    version = version_of(model)
    constants = real_constants(raw)
    producers = {name: node for node in model.graph.node for name in node.output if name}
    outputs = _outputs_reached(model.graph)
    layers: dict[str, Layer] = {}
    for order, node in enumerate(filter(is_batch_norm, model.graph.node)):
        site = _site(node, version, outputs.get(id(node), ()), order)
        linear, bias = _linear_node(node, producers, constants)
        if linear is not None:
            site = replace(site, linear=_linear(linear, constants), bias=bias or None)
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


def _site(node: Any, version: int, outputs: tuple[str, ...], order: int) -> Site:
    return Site(
        name=node.name or node.output[0],
        form=node.op_type,
        mode=Mode.TRAIN if in_train_mode(node, version) else Mode.EVAL,
        epsilon=epsilon_of(node),
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
        return Vector(role=role, presence=Presence.UNREAD, name=name, reason="the graph computes them")
    return vector(role, tensor, name=name)


_KERNELS = {"Conv": "Conv2D", "ConvTranspose": "Conv2DBackpropInput", "MatMul": "MatMul", "Gemm": "MatMul"}
"""Op -> TensorFlow's op with a kernel of that layout, once its axes are in TensorFlow's order."""


def _linear_node(node: Any, producers: Mapping[str, Any], constants: Mapping[str, RawTensor]) -> tuple[Any, str]:
    """(the convolution or dense layer whose output the node normalises or None, name of its bias or "")."""
    before = producers.get(node.input[0]) if node.input else None
    if before is not None and before.op_type == "Add" and len(before.input) == 2:  # a dense layer's bias
        slot = 1 if before.input[1] in constants else 0
        bias, matrix = before.input[slot], producers.get(before.input[1 - slot])
        dense = matrix is not None and matrix.op_type == "MatMul" and len(matrix.input) == 2
        return (matrix, bias) if dense and bias in constants else (None, "")
    if before is None or before.op_type not in _KERNELS or len(before.input) < 2:
        return None, ""
    return before, before.input[2] if len(before.input) > 2 else ""


def _linear(before: Any, constants: Mapping[str, RawTensor]) -> Linear | None:
    """A linear node with its kernel in TensorFlow's layout; None where that is not stored."""
    kernel = constants.get(before.input[1])
    groups = integer(before, "group", 1)
    if kernel is None or len(kernel.shape) < 2 or (before.op_type == "ConvTranspose" and groups != 1):
        return None
    turned = before.op_type == "Gemm" and integer(before, "transB", 0) != 0
    laid_out = channels_last(kernel) if turned or len(kernel.shape) > 2 else kernel
    return linear_before(before.name or before.output[0], _KERNELS[before.op_type], laid_out)


def _gaps(model: Any) -> Iterator[Gap]:
    """Where batch norm is, and was not looked at."""
    for function in model.functions:
        if any(map(is_batch_norm, function.node)):
            yield Gap(
                kind=GapKind.LAYER, where=function.name, why="batch norm in a function of an ONNX model is not read"
            )
    for node in model.graph.node:
        inner = [graph for a in node.attribute for graph in (a.g, *a.graphs)]
        if any(is_batch_norm(within) for graph in inner for within in graph.node):
            why = f"batch norm in a branch or loop ({node.op_type}) of an ONNX model is not read"
            yield Gap(kind=GapKind.LAYER, where=node.name or node.output[0], why=why)
