"""LiteRT with every tensor in sight: the same numbers as hidden, alone as in batches; files that are damaged."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_nets import images
from lite_writer import Faults, G, Op, T, lite_bytes

from bncheck.compare.float_quantized import run_outputs
from bncheck.compare.litert.convert import convert
from bncheck.compare.litert.edit import _schema, dump, load, show
from bncheck.compare.litert.interpreter import (
    IntegerScale,
    Runner,
    batching,
    feeds_of,
    portions,
    read_file,
    real_values,
    scheme_of,
)
from bncheck.compare.litert.sums import TensorSums, add_local, round_into
from bncheck.facts.errors import BncheckError, ReadError, Unsupported
from bncheck.settings.schemes import SCHEMES

pytestmark = pytest.mark.tensorflow

INT8 = IntegerScale(scale=0.02, zero_point=-7, dtype="int8")


def test_rounding_of_eight_bits() -> None:
    """Values spread evenly lose 1/sqrt(12) of a step, root mean square, and nothing else."""
    values = np.random.default_rng(0).uniform(INT8.low, INT8.high, (500, 40)).astype(np.float32)
    sums = TensorSums(channels=40)
    add_local(sums, values, INT8.stored(values), INT8)
    assert np.sqrt(np.sum(sums.error) / sums.count) / INT8.scale == pytest.approx(12**-0.5, rel=0.01)
    rounding, clipping, bias = sums.parts
    assert rounding == pytest.approx(np.sum(sums.error), rel=0.01)
    assert clipping == 0
    assert rounding + clipping + bias == pytest.approx(np.sum(sums.error))


def test_parts_of_an_error() -> None:
    """Values beyond the range are clipping, a shift of a channel is bias, exactly."""
    reference = np.tile(np.array([[0.4, 1.0, 2.0]], np.float32), (6, 1))
    how = IntegerScale(scale=0.2, zero_point=-128, dtype="int8")
    reference[0, 2] = how.high + 3
    stored = how.stored(reference)
    stored[:, 1] += 1
    sums = TensorSums(channels=3)
    add_local(sums, reference, stored, how)
    rounding, clipping, bias = sums.parts
    assert clipping == pytest.approx(9, rel=1e-5)
    assert bias == pytest.approx(6 * 0.2**2, rel=1e-5)
    assert rounding == pytest.approx(0, abs=1e-5)


def test_stored_and_real() -> None:
    """Ties go to even, what is too large is held to the range, NaN becomes 0; both ways of rounding are one."""
    how = IntegerScale(scale=0.5, zero_point=3, dtype="int8")
    values = np.array([0.0, 0.25, 0.75, -0.75, 1000, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(how.stored(values), [3, 3, 5, 1, 127, -128, 3])
    np.testing.assert_array_equal(how.real(how.stored(values))[:5], [0, 0, 1, -1, 62])
    stored, real = np.empty(7, np.int8), np.empty(7, np.float32)
    round_into(how, values, stored, real)
    np.testing.assert_array_equal(stored, how.stored(values))
    np.testing.assert_array_equal(real[:6], how.real(stored)[:6])


@pytest.mark.parametrize("scheme", ["float", "int8"])
def test_tensors_in_sight_are_those_of_the_plain_kernels(lite: Callable[..., bytes], scheme: str) -> None:
    """Every activation as an output through XNNPACK, against LiteRT's own kernels with all tensors preserved."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")

    content = lite("residual", scheme)
    file = read_file(content)
    wanted = [n for o in file.graph.operators for n in o.outputs]
    runner = Runner(show(content, wanted), "shown")
    plain = litert.Interpreter(
        model_content=content,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    batch = images(4)
    runner.run({file.graph.inputs[0]: batch})
    plain.resize_tensor_input(file.graph.inputs[0], batch.shape)
    plain.allocate_tensors()
    plain.set_tensor(file.graph.inputs[0], batch)
    plain.invoke()
    for number in wanted:
        one, other = runner.tensor(number), plain.get_tensor(number)
        if one.dtype == np.float32 and scheme == "float":
            np.testing.assert_allclose(one, other, atol=1e-4)
        elif one.dtype == np.int8:
            # one step apart by another rounding, and what follows from it
            assert np.max(np.abs(one.astype(int) - other)) <= 3
            assert np.mean(one != other) <= 0.1


def fixed(tf: Any, net: Callable[..., Any], scheme: str, shape: tuple[int, ...]) -> bytes:
    """The dense net for batches of one, its RESHAPE to a constant shape."""
    model = load(convert(tf, net("dense", 0, 1)[0], scheme, [images(1)]))
    graph = read_file(dump(model)).graph
    number = next(o.inputs[1] for o in graph.operators if o.kind == "RESHAPE")
    model.buffers[model.subgraphs[0].tensors[number].buffer].data = np.array(shape, "<i4").view(np.uint8)
    return dump(model)


@pytest.mark.parametrize("scheme", ["float", "dynamic"])
def test_a_file_of_batch_one(tf: Any, net: Callable[..., Any], scheme: str) -> None:
    """Fixed shapes, a RESHAPE to [1, 768] among them, are opened: a batch gives what its samples give."""
    content = fixed(tf, net, scheme, (1, 768))
    file = read_file(content)
    assert file.input.shape[0] == 1
    batch = images(6)
    how = batching(file, batch)
    assert how.size is None
    last = file.graph.outputs[0]
    runner, single = Runner(how.content, "batch"), Runner(content, "single")
    runner.run(feeds_of(file, batch))
    together = np.array(runner.tensor(last))
    for number in range(6):
        single.run(feeds_of(file, batch[number : number + 1]))
        np.testing.assert_allclose(single.tensor(last)[0], together[number], atol=1e-5)


def test_a_file_that_cannot_take_batches(lite: Callable[..., bytes]) -> None:
    """Where a sample's result depends on the others, samples go one by one, as the file has them."""
    model = load(lite("across_samples"))
    model.subgraphs[0].tensors[int(model.subgraphs[0].inputs[0])].shapeSignature = None
    assert batching(read_file(dump(model)), images(4)).size == 1


def test_two_shapes_one_after_the_other(lite: Callable[..., bytes]) -> None:
    """Shapes follow what is fed, forth and back."""
    file = read_file(lite("branches", "int8"))
    runner = Runner(file.content, file.path)
    batch = images(5)
    found = []
    for count in (5, 2, 5):
        runner.run({file.graph.inputs[0]: batch[:count]})
        found.append(np.array(runner.tensor(file.graph.outputs[0])))
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(found[0][:2], found[1], atol=1e-6)


def test_what_litert_refuses(lite: Callable[..., bytes], capfd: pytest.CaptureFixture[str]) -> None:
    """Samples of another size end in one sentence, and nothing else is said."""
    file = read_file(lite("dense"), "model.tflite")
    with pytest.raises(BncheckError, match=r"model\.tflite: LiteRT rejects an input of shape \[2, 8, 8, 3\]"):
        Runner(file.content, file.path).run({file.graph.inputs[0]: np.zeros((2, 8, 8, 3), np.float32)})
    assert capfd.readouterr().out == ""


def test_damaged_files(lite: Callable[..., bytes]) -> None:
    """Cut off anywhere, a file is refused by name, before anything runs it."""
    content = lite("dense", "int8")
    for size in (0, 3, 7, 100, len(content) // 2, len(content) - 1):
        with pytest.raises(ReadError, match=r"cut\.tflite"):
            read_file(content[:size], "cut.tflite")


def test_files_that_lead_nowhere() -> None:
    """Offsets damaged where bncheck's own reader never looks end in the same kind of error, never in `struct.error`."""
    tiny = Path(__file__).parents[3] / "fixtures" / "tiny"
    content = (tiny / "bn403_per_tensor_range_collapse" / "broken_tflite" / "model.tflite").read_bytes()
    refused = 0
    for number in range(200):
        damaged = bytearray(content)
        place = random.Random(number).randrange(0, len(content) - 4, 4)  # noqa: S311 - reproducible, not secret
        damaged[place : place + 4] = (0x7FFFFFF0 if number % 2 else len(content) + 5).to_bytes(4, "little")
        try:
            read_file(bytes(damaged), "led.tflite")
        except BncheckError as error:
            refused += "led.tflite" in str(error)
    assert refused > 100


def test_nothing_to_run(lite: Callable[..., bytes]) -> None:
    """A file without inputs is refused; one of two inputs has a field of the batch for each, in their order."""
    model = load(lite("dense"))
    entry = model.subgraphs[0].inputs[0]
    other = model.subgraphs[0].operators[1].inputs[0]
    model.subgraphs[0].inputs = []
    with pytest.raises(Unsupported, match="0 inputs, 1 outputs"):
        read_file(dump(model), "none.tflite")
    model.subgraphs[0].inputs = [other, entry]
    file = read_file(dump(model), "two.tflite")
    batch = np.zeros(2, [("a", "f4", 3), ("b", "f4", 5)])
    batch["b"] = 1
    assert {number: values.shape for number, values in feeds_of(file, batch).items()} == {other: (2, 3), entry: (2, 5)}
    assert np.all(feeds_of(file, batch)[entry] == 1)


@pytest.mark.parametrize(
    ("kind", "custom", "says"),
    [
        ("READ_VARIABLE", "", "its weights are variables that it reads and never sets"),
        (
            "CUSTOM",
            "FlexErf",
            "it was converted with SELECT_TF_OPS and needs TensorFlow's own Erf",
        ),
    ],
)
def test_files_that_cannot_be_run(kind: str, custom: str, says: str) -> None:
    """Weights that are not in the file, and operators that LiteRT has no kernels for."""
    graph = G(
        tensors=[T(shape=(1, 4)), T(shape=(1, 4))], operators=[Op(kind=kind, inputs=(0,), outputs=(1,))], outputs=(1,)
    )
    with pytest.raises(Unsupported, match=rf"given\.tflite: {says}"):
        read_file(lite_bytes(graph, faults=Faults(custom_code=custom)), "given.tflite")


@pytest.mark.parametrize("key", [b"serving_default", b"main"])
def test_several_signatures(lite: Callable[..., bytes], key: bytes) -> None:
    """Of a file with several, the subgraph of the default one is run, or else the largest; wherever it stands."""
    content = lite("dense")
    model = load(content)
    main, other = model.subgraphs[0], copy.copy(model.subgraphs[0])
    other.operators, other.outputs = main.operators[:1], main.operators[0].outputs
    model.subgraphs = [other, main]
    own = model.signatureDefs[0] if model.signatureDefs else _schema().SignatureDefT()
    model.signatureDefs = [copy.copy(own), copy.copy(own)]
    for number, name in enumerate((b"auxiliary", key)):
        model.signatureDefs[number].subgraphIndex, model.signatureDefs[number].signatureKey = number, name
    file, single = read_file(dump(model)), read_file(content)
    assert [o.kind for o in file.graph.operators] == [o.kind for o in single.graph.operators]
    for found, expected in zip(*(next(run_outputs(one, [images(4)])) for one in (file, single)), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scheme", ["float", *SCHEMES])
def test_how_a_file_was_quantized(lite: Callable[..., bytes], scheme: str) -> None:
    """Each scheme is told by the types of activations and kernels, so that a model can be converted again alike."""
    # converters before 2.15 give a dense kernel one scale; "dynamic" leaves small kernels of convolutions as they are
    assert scheme_of(read_file(lite("dense" if scheme == "dynamic" else "residual", scheme))) == scheme


def test_portions() -> None:
    """Even parts that cover all, none of them larger than asked for."""
    parts = [range(40)[part] for part in portions(np.zeros(40), 12)]
    assert [len(part) for part in parts] == [10, 10, 10, 10]
    assert [n for part in parts for n in part] == list(range(40))
    assert not list(portions(np.zeros(0), 12))


def test_real_values(lite: Callable[..., bytes]) -> None:
    """Integers are what they stand for, float is as it is."""
    file = read_file(lite("dense", "int8"))
    integer = next(t for t in file.graph.tensors if t.dtype == "int8" and t.data is None)
    assert integer.quantization is not None
    scale, zero = float(integer.quantization.scales[0]), int(integer.quantization.zero_points[0])
    np.testing.assert_allclose(real_values(integer, np.array([zero, zero + 2], np.int8)), [0, 2 * scale], rtol=1e-6)
    values = np.ones(3, np.float32)
    assert real_values(file.input, values) is values
