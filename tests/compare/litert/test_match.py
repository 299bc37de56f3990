"""Tensors and operators of two files find each other through fusion, renaming and another order; strangers do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from lite_nets import NETS, SHAPE, Maker, images

from bncheck.compare.litert.convert import EvalGraph, convert
from bncheck.compare.litert.edit import dump, load
from bncheck.compare.litert.interpreter import read_file
from bncheck.compare.litert.layers import folded_layers
from bncheck.compare.litert.match import Matching, match
from bncheck.compare.litert.net import CARRIERS, Net
from bncheck.facts.errors import BncheckError
from bncheck.facts.measurements import Precision
from bncheck.sources.graph import protos
from bncheck.testing import batch_norm

pytestmark = pytest.mark.tensorflow

ALIKE = tuple(name for name in NETS if name != "across_samples")


def matched(quantized: bytes, reference: bytes) -> Matching:
    """Two files by name."""
    return match(read_file(quantized, "given.tflite"), read_file(reference, "float.tflite"))


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("scheme", ["int8", "dynamic", "float16", "float"])
def test_every_operator_has_its_counterpart(lite: Callable[..., bytes], name: str, scheme: str) -> None:
    """Of the same kind, with a like kernel; outputs too; nothing is left over."""
    found = matched(lite(name, scheme), lite(name))
    assert found.unmatched == ()
    ours, theirs = found.quantized.graph, found.reference.graph
    assert found.outputs == tuple(zip(ours.outputs, theirs.outputs, strict=True))
    pairs = {pair.quantized: pair for pair in found.pairs}
    for operator in ours.operators:
        if operator.kind in CARRIERS or not found.quantized.data_outputs(operator):
            continue
        pair = pairs[operator.index]
        assert pair.reference is not None
        assert theirs.operators[pair.reference].kind == operator.kind
        assert pair.likeness is None or pair.likeness > 0.99
    partners = [pair.reference for pair in found.pairs if pair.reference is not None]
    assert len(set(partners)) == len(partners)


def disordered(content: bytes) -> bytes:
    """The same file with all tensors renamed and its operators in another order that can be executed."""
    model = load(content)
    graph = model.subgraphs[0]
    for number, tensor in enumerate(graph.tensors):
        tensor.name = f"t{number}".encode()
    random = np.random.default_rng(3)
    ready = {int(n) for n in graph.inputs} | {
        n for n, tensor in enumerate(graph.tensors) if model.buffers[tensor.buffer].data is not None
    }
    left, order = list(graph.operators), []
    while left:
        free = [o for o in left if all(int(n) < 0 or int(n) in ready for n in o.inputs)]
        operator = free[random.integers(len(free))]
        left.remove(operator)
        order.append(operator)
        ready.update(int(n) for n in operator.outputs)
    graph.operators = order
    return dump(model)


@pytest.mark.parametrize("name", ["residual", "branches", "swish"])
def test_names_and_order_do_not_matter(lite: Callable[..., bytes], name: str) -> None:
    """Wiring and kernels tell: the same tensors are paired as before."""
    content = disordered(lite(name, "int8"))
    before, after = matched(lite(name, "int8"), lite(name)), matched(content, lite(name))
    assert after.unmatched == ()
    assert dict(after.tensors) == dict(before.tensors)


def apart(content: bytes) -> bytes:
    """The same float file with each fused RELU6 as an operator of its own."""
    model = load(content)
    graph = model.subgraphs[0]
    code = type(model.operatorCodes[0])()
    code.builtinCode = code.deprecatedBuiltinCode = 21  # RELU6
    code.version = 1
    model.operatorCodes.append(code)
    operators = []
    for operator in graph.operators:
        operators.append(operator)
        options = operator.builtinOptions
        if getattr(options, "fusedActivationFunction", 0) != 3:
            continue
        options.fusedActivationFunction = 0
        before = type(graph.tensors[0])()
        vars(before).update(vars(graph.tensors[int(operator.outputs[0])]))
        before.name = b"before " + bytes(before.name)
        graph.tensors.append(before)
        relu = type(operator)()
        relu.opcodeIndex = len(model.operatorCodes) - 1
        relu.inputs, relu.outputs = [len(graph.tensors) - 1], operator.outputs
        operator.outputs = [len(graph.tensors) - 1]
        operators.append(relu)
    graph.operators = operators
    return dump(model)


def test_activations_fused_in_one_file_only(lite: Callable[..., bytes]) -> None:
    """What stands behind the activation is matched; what stands before it is said to be there in one file only."""
    for quantized, reference, side in (
        (lite("residual", "int8"), apart(lite("residual")), "float"),
        (apart(lite("residual")), lite("residual"), "quantized"),
    ):
        found = matched(quantized, reference)
        assert {(u.side.value, u.why.split(" has it after its RELU6")[0][:16]) for u in found.unmatched} == {
            (side, "the quantized fi" if side == "float" else "the float file")
        }
        assert len(found.unmatched) == 5
        results = {found.reference.tensor(number).name for number in found.tensors.values()}
        assert not any(name.startswith("before") for name in results)
        ends = {o.outputs[0] for o in found.reference.graph.operators if o.kind not in CARRIERS}
        hidden = {n for n in ends if found.reference.tensor(n).name.startswith("before")}
        assert ends - hidden <= set(found.tensors.values())


def test_operators_that_one_file_lacks(lite: Callable[..., bytes]) -> None:
    """The rest is matched past them, and they are named with the reason."""
    found = matched(lite("lengthened", "int8"), lite("residual"))
    kernels = [pair for pair in found.pairs if pair.likeness is not None]
    assert len(kernels) == 8
    elu, floor, rounded = found.unmatched
    assert {u.side for u in found.unmatched} == {Precision.QUANTIZED}
    assert elu.why == "no ELU of the float file reads the same"
    assert floor.why == f"it reads {elu.name}, which has no counterpart"
    assert rounded.why == f"it reads {floor.name}, which has no counterpart"
    other = matched(lite("residual", "int8"), lite("lengthened"))
    assert [u.side for u in other.unmatched] == [Precision.FLOAT, Precision.FLOAT]
    assert {u.why for u in other.unmatched} == {
        "no ELU of the quantized file computes it",
        "no FLOOR of the quantized file computes it",
    }


def test_other_models(lite: Callable[..., bytes]) -> None:
    """Another network, other weights in the same network, another input: each is told apart, and how."""
    with pytest.raises(BncheckError, match=r"given\.tflite is not a quantized form of this model: \d of its"):
        matched(lite("branches", "int8"), lite("residual"))
    with pytest.raises(BncheckError, match=r"other weights: the median kernel has a cosine of -?0\.\d\d"):
        matched(lite("residual", "int8", 1), lite("residual"))
    small = load(lite("unfused", "int8"))
    entry = small.subgraphs[0].tensors[int(small.subgraphs[0].inputs[0])]
    for shape, says in (
        ([8, 8, 3], "takes samples of 8x8x3, but the float model of 16x16x3: it is another model"),
        ([3, 16, 16], "takes samples of 3x16x16, but the float model of 16x16x3: the channels are on another axis"),
    ):
        entry.shape, entry.shapeSignature = [1, *shape], [-1, *shape]
        with pytest.raises(BncheckError, match=says):
            matched(dump(small), lite("unfused"))


def test_other_statistics_are_no_other_model(lite: Callable[..., bytes]) -> None:
    """Kernels whose channels are scaled otherwise are still the same kernels."""
    model = load(lite("residual"))
    random = np.random.default_rng(0)
    for operator in read_file(lite("residual")).graph.operators:
        if operator.kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            tensor = model.subgraphs[0].tensors[operator.inputs[1]]
            axis = 0 if operator.kind == "CONV_2D" else 3
            values = np.asarray(model.buffers[tensor.buffer].data).view(np.float32).reshape(tensor.shape)
            shape = [1] * 4
            shape[axis] = values.shape[axis]
            model.buffers[tensor.buffer].data = (
                (values * random.uniform(0.01, 10, shape)).astype(np.float32).view(np.uint8).reshape(-1)
            )
    found = matched(dump(model), lite("residual"))
    assert found.unmatched == ()


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("residual", {"CONV_2D", "DEPTHWISE_CONV_2D"}),
        ("unfused", {"CONV_2D"}),
        ("before_convolution", {"MUL", "ADD"}),
        ("dense", {"FULLY_CONNECTED"}),
        ("swish", {"CONV_2D"}),
        ("prelu", {"CONV_2D"}),
    ],
)
def test_layers_are_found_by_their_numbers(
    net: Callable[..., Any], lite: Callable[..., bytes], name: str, kinds: set[str]
) -> None:
    """Each batch norm where it was folded, or as the MUL and ADD that were left; in forward order."""
    layers = net(name)[1].layers
    graph = Net.of(read_file(disordered(lite(name))).graph)
    found = folded_layers(graph, layers)
    assert not found.missing
    assert {graph.graph.operators[o].kind for o in found.operators} == kinds
    assert set(found.operators.values()) == {layer.name for layer in layers}
    if "MUL" not in kinds:
        assert len(found.operators) == len(layers)
    in_order = Net.of(read_file(lite(name)).graph)
    names = list(dict.fromkeys(layer for _, layer in sorted(folded_layers(in_order, layers).operators.items())))
    if name != "before_convolution":
        assert names == [layer.name for layer in layers]


def test_layers_that_are_not_there(net: Callable[..., Any], lite: Callable[..., bytes]) -> None:
    """Other statistics, other channels, none at all: each with its reason, and the others are found all the same."""
    layers = list(net("residual")[1].layers)
    count = layers[2].channels
    layers[2] = replace(layers[2], linear=None, mean=batch_norm(channels=count).mean)
    strange = batch_norm("strange", channels=7)
    unread = replace(layers[3], name="unread", mean=replace(layers[3].mean, values=None))
    found = folded_layers(Net.of(read_file(lite("residual")).graph), [*layers, strange, unread])
    assert dict(found.missing) == {
        layers[2].name: "no operator of the float file has its folded kernel or bias",
        "strange": "the float file has no operator of 7 channels left for it",
        "unread": "its statistics are unknown",
    }
    assert len(found.operators) == len(layers) - 1


def test_a_file_that_scales_its_input(tf: Any) -> None:
    """The same data mean something else to a file with a MUL before the first layer, whichever of the two it is."""

    def converted(times: float, scheme: str) -> bytes:
        graph = tf.Graph()
        with graph.as_default():
            maker = Maker(tf, 0)
            x = tf.compat.v1.placeholder(tf.float32, (None, *SHAPE[1:]), name="images")
            x = maker.conv(tf.pad(x * times if times != 1 else x, [[0, 0], [1, 1], [1, 1], [0, 0]]))
            tf.identity(tf.reduce_mean(tf.nn.relu(x), [1, 2]), name="scores")
        graph_def = protos.GraphDef.FromString(graph.as_graph_def().SerializeToString())
        net = EvalGraph(graph_def=graph_def, inputs=("images",), outputs=("scores",))
        return convert(tf, net, scheme, [images(8)])

    for ours, theirs, says in ((0.5, 1.0, "given.tflite scales its input"), (1.0, 0.5, "the model scales its input")):
        with pytest.raises(
            BncheckError, match=rf"{says} itself \(MUL\), .* does not, so the same data mean different things"
        ):
            matched(converted(ours, "int8"), converted(theirs, "float"))
    assert matched(converted(0.5, "int8"), converted(0.5, "float")).unmatched == ()


def test_a_layer_that_the_dense_layer_behind_it_took_in(tf: Any) -> None:
    """It has no operator of its own, and is told where its numbers went."""
    graph = tf.Graph()
    with graph.as_default():
        maker = Maker(tf, 0)
        x = tf.reshape(tf.compat.v1.placeholder(tf.float32, (None, *SHAPE[1:]), name="images"), [-1, 768])
        x = tf.nn.relu(maker.dense(x, 16) + maker.draw(16))
        tf.identity(maker.dense(maker.norm(x), 5) + maker.draw(5), name="scores")
    graph_def = protos.GraphDef.FromString(graph.as_graph_def().SerializeToString())
    file = read_file(convert(tf, EvalGraph(graph_def=graph_def, inputs=("images",), outputs=("scores",))))
    found = folded_layers(Net.of(file.graph), maker.layers)
    assert not found.operators
    assert dict(found.missing) == {
        "bn_0": "the converter takes a layer that it cannot fold backwards into the dense layer behind it"
    }


def test_layers_that_are_alike(lite: Callable[..., bytes], net: Callable[..., Any]) -> None:
    """Layers never trained, with nothing to tell them apart, are taken in forward order."""
    model = load(lite("residual"))
    graph = read_file(lite("residual")).graph
    for operator in graph.operators:
        if operator.kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            buffer = model.buffers[model.subgraphs[0].tensors[operator.inputs[2]].buffer]
            buffer.data = np.zeros_like(buffer.data)
    untouched = [
        batch_norm(f"bn{n}", channels=layer.channels, mean=0.0, variance=1.0, gamma=1.0, beta=0.0)
        for n, layer in enumerate(net("residual")[1].layers)
    ]
    wires = Net.of(read_file(dump(model)).graph)
    found = folded_layers(wires, untouched)
    assert not found.missing
    assert [found.operators[n] for n in sorted(found.operators)] == [layer.name for layer in untouched]
