"""ONNX models -> layers: each BatchNormalization by its node, its vectors by what is constant in the graph."""

from __future__ import annotations

from collections.abc import Mapping

from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Facts, GraphFacts, Layer, Linear, Mode, Origin, Presence, Purpose, Role, Site, Vector
from bncheck.facts.record import replace
from bncheck.recognise.channels_last import channels_last
from bncheck.recognise.kernel_sizes import linear_before
from bncheck.recognise.named.name_families import find_groups
from bncheck.recognise.onnx.batch_moments import normalised_by_batch_moments
from bncheck.recognise.onnx.leftovers import leftovers
from bncheck.recognise.onnx.nodes import OnnxNode, epsilon_of, in_train_mode, integer, is_batch_norm
from bncheck.recognise.onnx.values import OnnxWiring, real_constants
from bncheck.recognise.predicted.after_batch_norm import worth_predicting
from bncheck.recognise.stored_vectors import absent, vector
from bncheck.recognise.training_progress import run_facts
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel, RawTensor

_INPUTS = (Role.GAMMA, Role.BETA, Role.MEAN, Role.VARIANCE)
"""Those of the op, behind what it normalises."""


def recognise_onnx(raw: RawModel, hints: Options) -> Facts:
    """The layers of the graph, of its functions and of branches and loops. Raises ReadError where it is damaged."""
    wiring = OnnxWiring.of(raw)
    constants = real_constants(wiring)
    outputs = _outputs_reached(wiring)
    layers: dict[str, Layer] = {}
    by_node: dict[int, str] = {}
    in_parts = {id(node) for node in normalised_by_batch_moments(wiring)}
    norms = (node for node in wiring.nodes if id(node) in in_parts or _normalises_data(wiring, node))
    for order, node in enumerate(norms):
        if id(node) in in_parts:
            layer = _of_batch_moments(node, outputs.get(id(node), ()), order)
            layers.setdefault(layer.name, layer)
            continue
        site = _site(node, outputs.get(id(node), ()), order)
        linear, bias = _linear_node(node, wiring.producers, constants)
        if linear is not None:
            site = replace(site, linear=_linear(linear, constants), bias=bias if bias in constants else None)
        layer = _layer(node, constants, site, order)
        before = layers.get(layer.name)
        same = before is not None and before.mean.key == layer.mean.key and layer.mean.key
        if same and before is not None:
            layers[layer.name] = replace(before, sites=(*before.sites, site))
            by_node[id(node)] = layer.name
        else:
            name = layer.name if before is None else f"{layer.name} ({order})"
            layers[name], by_node[id(node)] = replace(layer, name=name), name
    found = tuple(layers.values())
    if worth_predicting(found):
        from bncheck.recognise.predicted.in_onnx import with_predictions  # noqa: PLC0415 - only where it is needed

        found = tuple(with_predictions(wiring, found, by_node))
    graph = GraphFacts(
        path=str(raw.path),
        format=raw.format,
        nodes=len(wiring.nodes),
        purpose=Purpose.INFERENCE,
        serving=True,
        producer=raw.onnx.producer_name if raw.onnx is not None else "",
        leftovers=tuple(leftovers(wiring)),
    )
    return Facts(
        path=str(raw.path),
        format=raw.format,
        layers=found,
        graph=graph,
        run=run_facts(raw, hints),
        gaps=tuple(map(_gap, wiring.left)),
        notes=raw.notes,
    )


def _normalises_data(wiring: OnnxWiring, node: OnnxNode) -> bool:
    """Whether it is a batch norm of data: weights are standardised by the same op, over no batch."""
    return is_batch_norm(node) and wiring.given(node, 0) in wiring.of_data


def _outputs_reached(wiring: OnnxWiring) -> dict[int, tuple[str, ...]]:
    """Node -> outputs of the model that depend on it. Nodes stand in topological order, as the format demands."""
    needs: dict[str, set[str]] = {name: {name} for name in wiring.outputs}
    reached: dict[int, tuple[str, ...]] = {}
    for node in reversed(wiring.nodes):
        outputs = set().union(*(needs.get(name, set()) for name in node.output))
        reached[id(node)] = tuple(sorted(outputs))
        if outputs:
            for name in node.input:
                needs.setdefault(name, set()).update(outputs)
    return reached


def _site(node: OnnxNode, outputs: tuple[str, ...], order: int) -> Site:
    return Site(
        name=node.label,
        form=node.op_type,
        mode=Mode.TRAIN if in_train_mode(node) else Mode.EVAL,
        epsilon=epsilon_of(node),
        axis=1,
        linear_axis=1,
        outputs=outputs,
        order=order,
    )


def _of_batch_moments(node: OnnxNode, outputs: tuple[str, ...], order: int) -> Layer:
    """A layer without statistics: the exporter had no use for them."""
    name = node.label
    lost = {role: absent(role, "the graph normalises with the statistics of the batch") for role in _INPUTS}
    return Layer(
        name=name,
        origin=Origin.GRAPH,
        mean=lost[Role.MEAN],
        variance=lost[Role.VARIANCE],
        gamma=lost[Role.GAMMA],
        beta=lost[Role.BETA],
        sites=(Site(name=name, form="ReduceMean", mode=Mode.TRAIN, outputs=outputs, order=order),),
        order=order,
    )


def _layer(node: OnnxNode, constants: Mapping[str, RawTensor], site: Site, order: int) -> Layer:
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


def _linear_node(
    node: OnnxNode, producers: Mapping[str, OnnxNode], constants: Mapping[str, RawTensor]
) -> tuple[OnnxNode | None, str]:
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


def _linear(before: OnnxNode, constants: Mapping[str, RawTensor]) -> Linear | None:
    """A linear node with its kernel in TensorFlow's layout; None where that is not stored."""
    kernel = constants.get(before.input[1])
    groups = integer(before, "group", 1)
    if kernel is None or len(kernel.shape) < 2 or (before.op_type == "ConvTranspose" and groups != 1):
        return None
    turned = before.op_type == "Gemm" and integer(before, "transB", 0) != 0
    laid_out = channels_last(kernel) if turned or len(kernel.shape) > 2 else kernel
    return linear_before(before.label, _KERNELS[before.op_type], laid_out)


def _gap(where: str) -> Gap:
    return Gap(
        kind=GapKind.LAYER, where=where, why="the functions and branches of this ONNX model are too many to write out"
    )
