"""The eval twin as TFLite files: schemes, other statistics, ranges as TensorFlow's own, refusals in one sentence."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_nets import Maker, images

from bncheck.compare.float_quantized import run_outputs
from bncheck.compare.litert import convert as module
from bncheck.compare.litert.convert import EvalGraph, convert, eval_graph, rounds, unrounded
from bncheck.compare.litert.edit import load
from bncheck.compare.litert.interpreter import read_file
from bncheck.compare.litert.layers import folded_layers
from bncheck.compare.litert.net import Net
from bncheck.compare.prepared import Prepared, prepare
from bncheck.compare.twins.float32 import in_float32
from bncheck.facts.errors import BncheckError, UsageError
from bncheck.settings.options import Options
from bncheck.settings.schemes import SCHEMES
from bncheck.sources import open_model
from bncheck.sources.graph import protos

pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    """MobileNetV2 of the fixtures."""
    raw = open_model(ROOT / "fixtures/mobilenet_v2/wired/model.ckpt-300", graph=None, use_graph=True)
    return prepare(raw, Options())


def test_the_eval_twin_alone(prepared: Prepared) -> None:
    """Names are the model's own, nothing of the train twin is left, every input of a node is there."""
    graph = eval_graph(prepared.forward)
    names = {node.name for node in graph.graph_def.node}
    assert not any(name.startswith(("train/", "eval/")) for name in names)
    assert [name.startswith("MobilenetV2/Logits/") for name in graph.outputs] == [True]
    assert {"MobilenetV2/Conv/BatchNorm/FusedBatchNormV3", "input"} <= names
    for node in graph.graph_def.node:
        assert {read.removeprefix("^").partition(":")[0] for read in node.input} <= names


def test_other_statistics(tf: Any, prepared: Prepared) -> None:
    """Two layers are folded with the statistics given, all others with the stored ones."""
    first, second = prepared.layers[3], prepared.layers[-1]
    given = {layer.name: (np.full(layer.channels, 0.25), np.full(layer.channels, 4.0)) for layer in (first, second)}
    converted = read_file(module.float_model(tf, prepared, statistics=given))
    assert set(folded_layers(Net.of(converted.graph), prepared.layers).missing) == {first.name, second.name}
    stored = read_file(module.float_model(tf, prepared))
    assert not folded_layers(Net.of(stored.graph), prepared.layers).missing


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"nosuch": (np.zeros(4), np.ones(4))}, "no batch norm nosuch"),
        ({"MobilenetV2/Conv/BatchNorm": (np.zeros(4), np.ones(4))}, "holds 16 channels, not 4"),
    ],
)
def test_statistics_that_do_not_fit(prepared: Prepared, given: Any, says: str) -> None:
    """A layer that is not there, or of other channels."""
    with pytest.raises(UsageError, match=says):
        eval_graph(prepared.forward, statistics=given)


def test_open_axes_take_the_datas_shape() -> None:
    """What a placeholder leaves open is filled in, the batch stays open."""
    node = protos.GraphDef().node.add(name="images", op="Placeholder")
    for declared in ([-1, -1, -1, 3], None):
        node.attr["shape"].shape.Clear()
        if declared is None:
            node.attr["shape"].shape.unknown_rank = True
        else:
            for size in declared:
                node.attr["shape"].shape.dim.add(size=size)
        module._settle_shape(node, (None, 16, 16, 3))
        assert [dim.size for dim in node.attr["shape"].shape.dim] == [-1, 16, 16, 3]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes(lite: Callable[..., bytes], scheme: str) -> None:
    """Each scheme has the types it promises, and float input and output."""
    graph = read_file(lite("dense", scheme)).graph
    kernels = [Net.of(graph).kernel_tensor(operator) for operator in graph.operators]
    first = next(kernel for kernel in kernels if kernel is not None)
    assert first.data is not None
    assert first.data.dtype == ("float16" if scheme == "float16" else "int8")
    assert graph.tensors[graph.inputs[0]].dtype == graph.tensors[graph.outputs[0]].dtype == "float32"
    read = {graph.tensors[o.inputs[0]].dtype for o in graph.operators if o.kind == "FULLY_CONNECTED"}
    wanted = {"int16x8": "int16", "int8": "int8", "int8-per-tensor": "int8"}
    assert read == {wanted.get(scheme, "float32")}
    if scheme != "float16":
        assert first.quantization is not None
        assert (first.quantization.scales.size > 1) == (scheme != "int8-per-tensor")


@pytest.mark.parametrize("name", ["residual", "swish", "branches", "before_convolution"])
@pytest.mark.parametrize("scheme", ["int8", "int8-per-tensor"])
def test_ranges_are_tensorflows(  # noqa: PLR0917 - fixtures and parameters
    tf: Any,
    net: Callable[..., Any],
    lite: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    scheme: str,
) -> None:
    """Scales and zero points of every tensor are those that TensorFlow's own calibrator leads to."""
    ours = read_file(lite(name, scheme)).graph
    monkeypatch.setattr(module, "can_calibrate", lambda _: False)
    theirs = read_file(convert(tf, net(name)[0], scheme, [images(32)])).graph
    assert [o.kind for o in ours.operators] == [o.kind for o in theirs.operators]
    compared = 0
    for one, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (one.name, one.dtype) == (other.name, other.dtype)
        if one.quantization is not None and other.quantization is not None:
            np.testing.assert_allclose(one.quantization.scales, other.quantization.scales, rtol=1e-5)
            assert np.max(np.abs(one.quantization.zero_points - other.quantization.zero_points)) <= 1
            compared += 1
    assert compared > 10


def plain(tf: Any, graph: EvalGraph) -> Any:
    """TensorFlow's converter as anybody uses it."""
    graph_def = tf.compat.v1.GraphDef.FromString(graph.graph_def.SerializeToString())
    imported = tf.Graph()
    with imported.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    entry, *exits = (
        imported.get_tensor_by_name(f"{name.partition(':')[0]}:0") for name in (*graph.inputs, *graph.outputs)
    )
    return tf.compat.v1.lite.TFLiteConverter(graph_def, [entry], exits)


def in_full(content: bytes) -> Any:
    """All that a file says, but for the converter's note of itself and the place where a buffer lies."""
    model = load(content)
    told: Any = structure(model.subgraphs)
    for graph, subgraph in zip(told, model.subgraphs, strict=True):
        for tensor, made in zip(graph["tensors"], subgraph.tensors, strict=True):
            tensor["buffer"] = structure(model.buffers[made.buffer].data)
    return told, structure(model.operatorCodes), structure(model.signatureDefs)


def structure(value: Any) -> Any:
    """An object of the schema as lists and mappings."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [structure(item) for item in value]
    return {name: structure(item) for name, item in vars(value).items()} if hasattr(value, "__dict__") else value


NETS = ["residual", "swish", "branches", "before_convolution", "dense"]


@pytest.mark.parametrize("name", NETS)
def test_float_files_are_tensorflows(tf: Any, net: Callable[..., Any], lite: Callable[..., bytes], name: str) -> None:
    """Every operator, option, tensor and bit of a constant is that of the converter with nothing left out."""
    assert in_full(lite(name)) == in_full(plain(tf, net(name)[0]).convert())


@pytest.mark.parametrize("name", NETS)
def test_int8_files_are_tensorflows(
    tf: Any, net: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With the ranges that TensorFlow's calibrator finds the file is the converter's own, every bit of it."""

    def converter() -> Any:
        made = plain(tf, net(name)[0])
        module._configure(tf, made, "int8", [images(32)])
        return made

    calibrating = converter()
    calibrating._experimental_calibrate_only = True
    tensors = load(bytes(calibrating.convert())).subgraphs[0].tensors
    found = {
        number: (float(tensor.quantization.min[0]), float(tensor.quantization.max[0]))
        for number, tensor in enumerate(tensors)
        if tensor.quantization is not None and tensor.quantization.min is not None
    }
    monkeypatch.setattr(module, "ranges", lambda *_: found)
    assert in_full(convert(tf, net(name)[0], "int8", [images(32)])) == in_full(converter().convert())


def test_an_operation_that_tflite_lacks(tf: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The sentence names it, and nothing else is said."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        tf.identity(tf.math.erfinv(x), name="y")
    graph_def = protos.GraphDef.FromString(graph.as_graph_def().SerializeToString())
    with pytest.raises(BncheckError, match=r"to a float TFLite file: TFLite has no operator for Erfinv$"):
        convert(tf, EvalGraph(graph_def=graph_def, inputs=("x",), outputs=("y",)))
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_a_scheme_lacks(tf: Any, net: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    """Hard swish has no kernel with 16-bit activations."""
    with pytest.raises(BncheckError, match="scheme int16x8: HARD_SWISH"):
        convert(tf, net("swish")[0], "int16x8", [images(4)])
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_asked(tf: Any, net: Callable[..., Any], lite: Callable[..., bytes]) -> None:
    """An unknown scheme, and one without the data it needs."""
    graph = net("dense")[0]
    with pytest.raises(UsageError, match="no quantization scheme is called 'int4'"):
        convert(tf, graph, "int4")
    for scheme in ("int8", "int16x8"):
        with pytest.raises(UsageError, match=f"{scheme} takes its ranges from data"):
            convert(tf, graph, scheme, [], exact=read_file(lite("dense")))


def test_calibration_data_that_is_not_finite(tf: Any, net: Callable[..., Any]) -> None:
    """NaN has no range."""
    with pytest.raises(BncheckError, match="images is not finite on the calibration data"):
        convert(tf, net("dense")[0], "int8", [images(4), np.full_like(images(4), np.nan)])


def test_a_recurrent_layer(tf: Any, tmp_path: Path) -> None:
    """Its loop takes values where it took variables, its steps are those of one sample; int8 leaves it in float."""
    keras = importlib.import_module("tf_keras")
    layers = keras.layers
    body = [layers.Conv1D(8, 3), layers.BatchNormalization(), layers.LSTM(4), layers.Dense(2)]
    model = keras.Sequential([layers.Input((6, 5)), *body])
    model.export(tmp_path / "exported")
    model.save(tmp_path / "model.keras")
    data = np.random.default_rng(0).normal(0, 1, (6, 6, 5)).astype("f4")
    for name in ("exported", "model.keras"):
        graph = eval_graph(prepare(open_model(tmp_path / name), Options()).forward, shapes=((None, 6, 5),))
        exact, rounded = convert(tf, graph), convert(tf, graph, "int8", [data])
        for content, most in ((exact, 1e-10), (rounded, 1e-2)):
            (found,) = next(run_outputs(read_file(content), [data]))
            expected = model(data, training=False).numpy()
            assert np.sum((found - expected) ** 2) < most * np.sum(expected**2)
        assert "WHILE" in [operator.kind for operator in read_file(rounded).graph.operators]
        with pytest.raises(BncheckError, match=r"scheme int16x8: it finds no ranges in the loop .*/while; --scheme"):
            convert(tf, graph, "int16x8", [data])


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_precisions(tf: Any, kind: str) -> None:
    """A model of mixed or double precision is converted in float32, constants of every form included."""
    graph, data = tf.Graph(), images(4)
    with graph.as_default():
        maker = Maker(tf, 0)
        x = tf.cast(tf.compat.v1.placeholder(tf.float32, (None, 16, 16, 3), name="images"), kind)
        x = tf.nn.conv2d(x, tf.cast(maker.draw(3, 3, 3, 8, scale=0.2), kind), 1, "SAME")
        x = tf.nn.relu(x + tf.constant([0.5] * 8, kind)) * tf.constant(0.25, kind)
        scores = tf.cast(tf.reduce_mean(x, [1, 2]), tf.float32, name="scores")
        with tf.compat.v1.Session() as session:
            expected = session.run(scores, {"images:0": data})
    graph_def = protos.GraphDef.FromString(graph.as_graph_def().SerializeToString())
    in_float32(graph_def)
    (found,) = next(
        run_outputs(
            read_file(convert(tf, EvalGraph(graph_def=graph_def, inputs=("images",), outputs=("scores",)))), [data]
        )
    )
    np.testing.assert_allclose(found, expected, rtol={"float16": 5e-3, "bfloat16": 4e-2, "float64": 1e-5}[kind])


def test_a_model_that_rounds_by_ranges_it_learned(tf: Any) -> None:
    """Trained quantization-aware: the float file does not round, int8 takes the model's own ranges and no data."""
    graph = tf.Graph()
    with graph.as_default():
        maker = Maker(tf, 0)
        fake = tf.quantization.fake_quant_with_min_max_vars
        x = fake(tf.compat.v1.placeholder(tf.float32, (None, 16, 16, 3), name="images"), -4.0, 4.0)
        kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            maker.draw(3, 3, 3, 8, scale=0.2), np.full(8, -0.6, "f4"), np.full(8, 0.6, "f4"), narrow_range=True
        )
        x = tf.nn.conv2d(x, kernel, 1, "SAME")
        gamma, beta, mean = (maker.draw(8, scale=0.2) for _ in range(3))
        x = tf.compat.v1.nn.fused_batch_norm(x, 1 + gamma, beta, mean, np.ones(8, "f4"), is_training=False)[0]
        x = fake(tf.nn.relu6(x), 0.0, 6.0)
        tf.identity(x, name="scores")
    graph_def = protos.GraphDef.FromString(graph.as_graph_def().SerializeToString())
    aware = EvalGraph(graph_def=graph_def, inputs=("images",), outputs=("scores",))
    assert rounds(aware)
    plain = unrounded(aware)
    assert not rounds(plain)
    reference, quantized = convert(tf, plain), convert(tf, aware, "int8")
    (convolution,) = [o for o in read_file(quantized).graph.operators if o.kind == "CONV_2D"]
    assert read_file(quantized).graph.tensors[convolution.inputs[1]].dtype == "int8"
    data = images(8)
    (exact,), (rounded,) = (next(run_outputs(read_file(content), [data])) for content in (reference, quantized))
    assert 0 < np.sum((exact - rounded) ** 2) / np.sum(exact**2) < 1e-3
