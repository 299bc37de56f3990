"""Local and cumulative errors: known answers, the damaged operator and no other, any split of the data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_nets import Maker, images
from numpy.typing import NDArray

from bncheck.compare.float_quantized import measure_quantized, run_outputs
from bncheck.compare.litert import pair as lite_pair
from bncheck.compare.litert import sums as lite_sums
from bncheck.compare.litert.convert import EvalGraph, convert, float_model
from bncheck.compare.litert.edit import dump, load
from bncheck.compare.litert.interpreter import IntegerScale, Runner, affine, read_file
from bncheck.compare.prepared import prepare
from bncheck.facts.errors import BncheckError, ReadError
from bncheck.facts.layers import Layer
from bncheck.facts.measurements import DataFacts, OperatorLoss, QuantizedComparison
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.sources.graph import protos

pytestmark = pytest.mark.tensorflow

REAL = Path(__file__).parents[3] / "shared" / "real"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real models are not beside this checkout")


def measured(
    reference: bytes,
    quantized: bytes,
    data: NDArray[Any],
    *,
    sizes: Sequence[int] | None = None,
    labels: NDArray[Any] | None = None,
    layers: Sequence[Layer] = (),
) -> QuantizedComparison:
    """Compares two files on samples dealt to batches of these sizes."""
    ends = np.cumsum([0, *(sizes or [len(data)])])
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    return measure_quantized(
        read_file(reference),
        read_file(quantized, "the quantized model"),
        layers=layers,
        batches=[(data[part], None if labels is None else labels[part]) for part in parts],
        describe=lambda samples, size, count: DataFacts(
            description="noise", samples=samples, batch_size=size, batches=count
        ),
    )


def close(one: float | None, other: float | None) -> bool:
    """Equal but for the order of float32 sums."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-12)


@pytest.mark.parametrize("name", ["residual", "dense", "branches"])
def test_a_file_against_itself(lite: Callable[..., bytes], name: str) -> None:
    """No error anywhere, exactly."""
    for scheme in ("float", "int8"):
        content = lite(name, scheme)
        found = measured(content, content, images(8))
        assert found.operators
        for operator in found.operators:
            # what a QUANTIZE gives is held against what it is given, in whichever file
            assert operator.cumulative_nmse == 0 or operator.kind == "QUANTIZE"
            if scheme == "float":
                assert operator.local_nmse == 0
                assert operator.cumulative_cosine == pytest.approx(1)
        assert [(output.nmse, output.agreement) for output in found.outputs] == [(0, 1)]


def without_softmax(content: bytes) -> bytes:
    """The file without the operators from its SOFTMAX on."""
    model = load(content)
    graph = model.subgraphs[0]
    number, last = next((n, o) for n, o in enumerate(read_file(content).graph.operators) if o.kind == "SOFTMAX")
    graph.operators, graph.outputs, model.signatureDefs = graph.operators[:number], [last.inputs[0]], None
    return dump(model)


def test_a_softmax_that_one_of_the_files_has(lite: Callable[..., bytes]) -> None:
    """Outputs are compared as far as both files compute them: scores are no probabilities."""
    exact, rounded = lite("dense"), lite("dense", "int8")
    scores = measured(without_softmax(exact), without_softmax(rounded), images(8)).outputs[0]
    for reference, quantized in ((without_softmax(exact), rounded), (exact, without_softmax(rounded))):
        found = measured(reference, quantized, images(8))
        (output,) = found.outputs
        assert (output.nmse, output.agreement) == (scores.nmse, scores.agreement)
        assert output.nmse < 1e-2


def test_by_hand(lite: Callable[..., bytes]) -> None:
    """A dense operator's loss, computed from its kernel, bias and types alone, in float64."""
    reference, quantized, data = read_file(lite("dense")), read_file(lite("dense", "int8")), images(64)
    second = [o for o in quantized.graph.operators if o.kind == "FULLY_CONNECTED"][1]
    partner = [o for o in reference.graph.operators if o.kind == "FULLY_CONNECTED"][1]
    from bncheck.compare.litert.edit import show
    from bncheck.compare.litert.net import Net

    runner = Runner(show(reference.content, [partner.inputs[0]]), "float")
    runner.run({reference.graph.inputs[0]: data})
    clean = np.array(runner.tensor(partner.inputs[0]))
    read, given = (affine(quantized.graph.tensors[n]) for n in (second.inputs[0], second.outputs[0]))
    assert isinstance(read, IntegerScale)
    assert isinstance(given, IntegerScale)
    rounded = read.real(read.stored(clean)).astype(np.float64)
    ours, theirs = Net.of(quantized.graph), Net.of(reference.graph)
    kernels, biases = (ours.kernel(second), theirs.kernel(partner)), (ours.bias(second), theirs.bias(partner))
    test, expected = (np.maximum(rounded @ kernel.T + bias, 0) for kernel, bias in zip(kernels, biases, strict=True))
    error = given.real(given.stored(test)) - expected
    (found,) = [
        o
        for o in measured(reference.content, quantized.content, data).operators
        if o.tensor == quantized.graph.tensors[second.outputs[0]].name
    ]
    assert found.local_nmse == pytest.approx(np.sum(error**2) / np.sum(expected**2), rel=0.02)
    assert found.rmse_over_scale == pytest.approx(np.sqrt(np.mean(error**2)) / given.scale, rel=0.02)
    np.testing.assert_allclose(
        found.channel_nmse, np.sum(error**2, axis=0) / np.sum(expected**2, axis=0), rtol=0.2, atol=1e-7
    )
    assert found.weight_nmse == pytest.approx(
        np.sum((kernels[0] - kernels[1]) ** 2) / np.sum(kernels[1] ** 2),
        rel=1e-6,
    )
    assert (found.scale, found.zero_point) == (given.scale, given.zero_point)


def test_healthy_eight_bits(net: Callable[..., Any], lite: Callable[..., bytes]) -> None:
    """Rounding alone is at work where data are those of the calibration; parts add up; layers are named."""
    layers = net("residual")[1].layers
    found = measured(lite("residual"), lite("residual", "int8"), images(32), layers=layers)
    assert found.unmatched == ()
    assert {o.layer for o in found.operators if o.layer} == {layer.name for layer in layers}
    assert len({o.name for o in found.operators}) == len(found.operators)
    for operator in found.operators:
        assert operator.rmse_over_scale is not None
        assert 0.15 < operator.rmse_over_scale < 0.45
        parts = operator.rounding_nmse + operator.clipping_nmse + operator.bias_nmse
        assert parts == pytest.approx(operator.local_nmse, rel=1e-6)
        assert operator.non_finite == 0
        assert operator.weight_per_channel in (None, True)
    (quantize,) = [o for o in found.operators if o.kind == "QUANTIZE"]
    assert quantize.local_nmse == pytest.approx(quantize.cumulative_nmse, rel=1e-3)
    assert quantize.rmse_over_scale == pytest.approx(12**-0.5, rel=0.03)


def damaged(content: bytes, kind: str, number: int, change: Callable[[NDArray[Any]], NDArray[Any]]) -> bytes:
    """The file with the kernel of one operator changed."""
    model = load(content)
    graph = read_file(content).graph
    operator = [o for o in graph.operators if o.kind == kind][number]
    buffer = model.buffers[model.subgraphs[0].tensors[operator.inputs[1]].buffer]
    values = np.asarray(buffer.data).view(np.int8).reshape(graph.tensors[operator.inputs[1]].shape)
    buffer.data = change(values).astype(np.int8).view(np.uint8).reshape(-1)
    return dump(model)


def coarser(content: bytes, kind: str, number: int) -> bytes:
    """The file with the output of one operator, which an ADD reads, in steps eight times as large."""
    model = load(content)
    graph = read_file(content).graph
    operator = [o for o in graph.operators if o.kind == kind][number]
    quantization = model.subgraphs[0].tensors[operator.outputs[0]].quantization
    quantization.scale = [float(quantization.scale[0]) * 8]
    return dump(model)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: damaged(content, "CONV_2D", 3, lambda w: w // 2),
        lambda content: damaged(content, "DEPTHWISE_CONV_2D", 1, lambda w: np.where(np.arange(16) == 5, -w, w)),
        lambda content: coarser(content, "CONV_2D", 4),
    ],
    ids=["kernel halved", "one channel negated", "output too coarse"],
)
def test_the_damaged_operator_and_no_other(lite: Callable[..., bytes], damage: Callable[[bytes], bytes]) -> None:
    """Its local error rises, all other local errors stay; the cumulative ones rise from there on."""
    healthy = measured(lite("residual"), lite("residual", "int8"), images(32)).operators
    sick = measured(lite("residual"), damage(lite("residual", "int8")), images(32)).operators
    worse = [n for n, (a, b) in enumerate(zip(healthy, sick, strict=True)) if b.local_nmse > 4 * a.local_nmse]
    assert len(worse) == 1
    for number, (before, after) in enumerate(zip(healthy, sick, strict=True)):
        if number != worse[0]:
            # steps of the coarse output reach the next operator's input: both files are given them
            assert after.local_nmse < 2 * before.local_nmse
        assert close(before.cumulative_nmse, after.cumulative_nmse) == (number < worse[0])
    if sick[worse[0]].kind == "DEPTHWISE_CONV_2D":
        assert sick[worse[0]].worst_channels[0] == 5


def test_any_split_of_the_data(lite: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of one size, of many, across the end of what is measured by itself: the same numbers."""
    monkeypatch.setattr(lite_pair, "LOCAL_ELEMENTS", 0)
    data = images(160)
    labels = np.arange(160) % 5
    first = measured(lite("residual"), lite("residual", "int8"), data, labels=labels)
    second = measured(lite("residual"), lite("residual", "int8"), data, sizes=(60, 77, 1, 22), labels=labels)
    assert first.local_samples == second.local_samples == lite_pair.LOCAL_SAMPLES
    assert (first.data.samples, second.data.samples, second.data.batches) == (160, 160, 4)
    for one, other in zip(first.operators, second.operators, strict=True):
        for field in ("local_nmse", "cumulative_nmse", "cumulative_cosine", "rounding_nmse", "rmse_over_scale"):
            assert close(getattr(one, field), getattr(other, field)), (one.name, field)
        np.testing.assert_allclose(one.channel_nmse, other.channel_nmse, rtol=1e-2, atol=1e-9)
    assert first.outputs[0].agreement == second.outputs[0].agreement
    assert vars(first.accuracy) == vars(second.accuracy)


def test_large_tensors_are_added_up_in_places(lite: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Places of every sample tell what all of them tell, and the same ones however the data are dealt to batches."""
    files, data = (lite("residual"), lite("residual", "int8")), images(160)
    whole = measured(*files, data).operators
    monkeypatch.setattr(lite_sums, "PLACES", 64)
    some, again = (measured(*files, data, sizes=sizes).operators for sizes in ((160,), (60, 77, 1, 22)))
    assert any(one.local_nmse != other.local_nmse for one, other in zip(whole, some, strict=True))
    for one, other, dealt in zip(whole, some, again, strict=True):
        assert other.cumulative_nmse == pytest.approx(one.cumulative_nmse, rel=0.1)
        assert close(other.cumulative_nmse, dealt.cumulative_nmse)
        assert close(other.local_nmse, dealt.local_nmse)


@pytest.mark.parametrize(
    "shape", [(3, 112, 112, 96), (2, 56, 56, 24), (5, 7, 7, 1280), (4, 300, 300, 1), (2, 4096, 32), (2, 2, 1, 10**5)]
)
def test_places_are_spread_over_each_sample(shape: tuple[int, ...]) -> None:
    """Rows, columns and channels all have their say, and about as many elements as wanted."""
    values = np.broadcast_to(np.arange(math.prod(shape[1:-1])).reshape(shape[1:-1])[..., None], shape)
    found = lite_sums.places(np.ascontiguousarray(values))
    assert (len(found), found.shape[-1]) == (shape[0], shape[-1])
    assert found[0].size >= min(lite_sums.PLACES / 4, math.prod(shape[1:]))
    assert found[0].size <= 2 * lite_sums.PLACES or found.shape[1] == 1
    np.testing.assert_array_equal(found, np.broadcast_to(found[:1], found.shape))
    if len(shape) == 4:
        columns = set(found[0, :, 0] % shape[2])
        assert len(columns) >= shape[2] / 3


def test_outputs_agreement_and_accuracy(lite: Callable[..., bytes]) -> None:
    """What the two files give, counted by hand."""
    data, labels = images(50), np.arange(50) % 5
    files = [read_file(lite("residual", scheme)) for scheme in ("float", "int8-per-tensor")]
    runs = [run_outputs(file, [data[:30], data[30:]]) for file in files]
    r, t = (np.concatenate([outputs[0] for outputs in run]).astype(np.float64) for run in runs)
    found = measured(lite("residual"), lite("residual", "int8-per-tensor"), data, labels=labels)
    assert found.outputs[0].classes == 5
    assert found.outputs[0].agreement == np.mean(r.argmax(1) == t.argmax(1))
    assert found.outputs[0].nmse == pytest.approx(np.sum((t - r) ** 2) / np.sum(r**2), rel=1e-4)
    assert found.accuracy.eval == np.mean(r.argmax(1) == labels)
    assert found.accuracy.quantized == np.mean(t.argmax(1) == labels)
    assert found.accuracy.train is None


@pytest.mark.parametrize("scheme", ["dynamic", "float16", "int16x8", "int8-per-tensor"])
def test_other_schemes(net: Callable[..., Any], lite: Callable[..., bytes], scheme: str) -> None:
    """All operators are measured; what is float has no steps."""
    layers = net("dense")[1].layers
    found = measured(lite("dense"), lite("dense", scheme), images(32), layers=layers)
    assert found.unmatched == ()
    dense = [o for o in found.operators if o.kind == "FULLY_CONNECTED"]
    assert [o.layer for o in dense] == ["bn_0", "bn_1", None]
    # the converter leaves kernels of fewer than 1024 values alone in dynamic quantization
    for operator in dense[:1] if scheme == "dynamic" else dense:
        assert operator.weight_nmse is not None
        assert 0 < operator.weight_nmse < 1e-2
        assert operator.weights_beyond in (None, 0)
        assert (operator.scale is None) == (scheme in ("dynamic", "float16"))
        assert operator.weight_per_channel == {"float16": None, "int8-per-tensor": False}.get(scheme, True)
        assert 0 < operator.local_nmse < 1e-2


def test_values_that_are_not_finite(lite: Callable[..., bytes]) -> None:
    """An infinite bias: counted, and no number is made up."""
    content = lite("residual")
    model = load(content)
    operator = next(o for o in read_file(content).graph.operators if o.kind == "CONV_2D")
    buffer = model.buffers[model.subgraphs[0].tensors[operator.inputs[2]].buffer]
    bias = np.array(buffer.data).view(np.float32)
    bias[2] = np.nan
    buffer.data = bias.view(np.uint8)
    found = measured(content, dump(model), images(8))
    assert found.operators[0].non_finite > 0
    assert math.isnan(found.operators[-1].cumulative_nmse)
    assert found.outputs[0].agreement == 0


def test_a_file_of_batch_one(tf: Any, net: Callable[..., Any], lite: Callable[..., bytes]) -> None:
    """The user's file for one sample at a time gives what the same file for batches gives."""
    single = convert(tf, net("branches", 0, 1)[0], "int8", [images(32)[n : n + 1] for n in range(32)])
    one = measured(lite("branches"), single, images(40))
    many = measured(lite("branches"), lite("branches", "int8"), images(40))
    for a, b in zip(one.operators, many.operators, strict=True):
        assert close(a.cumulative_nmse, b.cumulative_nmse)
        assert close(a.local_nmse, b.local_nmse)


def test_images_as_bytes(tf: Any) -> None:
    """A model that takes bytes and makes numbers of them inside: its first operator is given all samples too."""
    graph = tf.Graph()
    with graph.as_default():
        maker = Maker(tf, 0)
        x = tf.compat.v1.placeholder(tf.uint8, (None, 16, 16, 3), name="images")
        x = tf.nn.relu(maker.norm(maker.conv(tf.cast(x, tf.float32) / 127.5 - 1)))
        tf.identity(maker.dense(tf.reduce_mean(x, [1, 2]), 5), name="scores")
    graph_def = protos.GraphDef.FromString(graph.as_graph_def().SerializeToString())
    whole = EvalGraph(graph_def=graph_def, inputs=("images",), outputs=("scores",))
    data = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
    found = measured(convert(tf, whole), convert(tf, whole, "int8", [data[:32]]), data, layers=maker.layers)
    assert found.unmatched == ()
    assert found.outputs[0].nmse < 1e-2
    assert "bn_0" in [operator.layer for operator in found.operators]
    assert max(operator.local_nmse for operator in found.operators) < 1e-3


def test_nothing_to_compare_on(lite: Callable[..., bytes]) -> None:
    """No data, or a file cut short."""
    with pytest.raises(BncheckError, match="the data hold no samples"):
        measure_quantized(
            read_file(lite("dense")),
            read_file(lite("dense", "int8")),
            layers=(),
            batches=[],
            describe=lambda *_: DataFacts(description="", samples=0, batch_size=0, batches=0),
        )
    with pytest.raises(ReadError):
        measured(lite("dense"), lite("dense", "int8")[:-100], images(4))


@real
def test_a_published_int8_file_against_its_keras_model(tf: Any) -> None:
    """Integer input and output, batch one, another converter: 27 of 27 layers found, all operators measured."""
    prepared = prepare(open_model(REAL / "mlperf_tiny_vww/vww_96.h5", graph=None, use_graph=True), Options())
    data = np.random.default_rng(0).uniform(0, 1, (16, 96, 96, 3)).astype(np.float32)
    found = measured(
        float_model(tf, prepared),
        (REAL / "mlperf_tiny_vww/vww_96_int8.tflite").read_bytes(),
        data,
        layers=prepared.layers,
    )
    assert found.unmatched == ()
    assert [o.layer for o in found.operators if o.layer] == [layer.name for layer in prepared.layers]
    assert found.outputs[0].classes == 2
    assert found.outputs[0].nmse < 0.05
    kinds = [o.kind for o in found.operators if isinstance(o, OperatorLoss)]
    assert kinds[-3:] == ["AVERAGE_POOL_2D", "FULLY_CONNECTED", "SOFTMAX"]


@real
def test_a_published_file_that_was_trained_apart(tf: Any) -> None:
    """The keyword model's TFLite has the operators of the SavedModel beside it, and weights of another training."""
    prepared = prepare(open_model(REAL / "mlperf_tiny_kws/kws_ref_model", graph=None, use_graph=True), Options())
    content = (REAL / "mlperf_tiny_kws/kws_ref_model_float32.tflite").read_bytes()
    with pytest.raises(BncheckError, match=r"other weights: the median kernel has a cosine of 0\.0"):
        measured(float_model(tf, prepared, shapes=((None, 49, 10, 1),)), content, np.zeros((2, 49, 10, 1), np.float32))
