"""TFLite files that TensorFlow converts, read by bncheck and by LiteRT's own interpreter."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.facts.findings import Evidence, Severity
from bncheck.facts.lite import LiteFacts
from bncheck.recognise.lite.by_lite import recognise_lite
from bncheck.rules.quantization import bn405_bias_saturated, bn406_not_folded
from bncheck.settings.options import Options
from bncheck.sources.tflite import schema
from bncheck.sources.tflite.tflite import read_lite

pytestmark = pytest.mark.tensorflow

REAL = Path(__file__).parents[3].parent / "shared" / "real"
EPSILON = 1e-3


def model(order: str, *, trained: bool = True) -> Any:
    """Conv, ReLU and batch norm in an order, and a last convolution, the same weights at each call.

    Untrained: only gamma has left its initial value.
    """
    import keras

    layers, rng = keras.layers, np.random.default_rng(3)
    x = inputs = keras.Input((8, 8, 3), batch_size=1)
    x = layers.Conv2D(16, 3, use_bias=False, padding="same", name="first")(x)
    for kind in order.split():
        x = layers.ReLU()(x) if kind == "relu" else layers.BatchNormalization(epsilon=EPSILON, name="bn")(x)
    net = keras.Model(inputs, layers.Conv2D(20, 3, name="last")(x))
    for name in ("first", "last"):
        kernel = net.get_layer(name).kernel
        kernel.assign(rng.normal(scale=0.2, size=kernel.shape))
    bn = net.get_layer("bn")
    bn.gamma.assign(rng.uniform(0.5, 2, 16))
    if trained:
        bn.beta.assign(rng.normal(size=16))
        bn.moving_mean.assign(rng.normal(size=16))
        bn.moving_variance.assign(rng.uniform(0.3, 3, 16))
    return net


def convert(net: Any, scheme: str) -> bytes:
    """The model as TFLite: float, dynamic range, float16, int8 or 16x8."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    if scheme != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme in ("int8", "16x8"):
        rng = np.random.default_rng(5)
        converter.representative_dataset = lambda: ([rng.normal(size=(1, 8, 8, 3)).astype("f")] for _ in range(4))
        only = tf.lite.OpsSet
        converter.target_spec.supported_ops = [
            only.TFLITE_BUILTINS_INT8
            if scheme == "int8"
            else only.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]
    content = converter.convert()
    assert isinstance(content, bytes)
    return content


FILES = ("folded float", "folded int8", "folded dynamic", "folded float16", "folded 16x8", "left float", "left int8",
         "left float16", "never float")  # fmt: skip  # what is converted


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> file; converting takes seconds, so once for all tests here."""
    import warnings

    folder = tmp_path_factory.mktemp("lite")
    nets = {
        "folded": model("bn relu"),
        "left": model("relu bn"),
        "never": model("relu bn", trained=False),
    }
    files = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own deprecations
        for name in FILES:
            which, scheme = name.split()
            files[name] = folder / f"{which}_{scheme}.tflite"
            files[name].write_bytes(convert(nets[which], scheme))
    return files


def lite(path: Path) -> LiteFacts:
    """The facts of a file."""
    found = recognise_lite(read_lite(path), Options()).lite
    assert found is not None
    return found


def same_as_interpreter(path: Path) -> int:
    """Compares every tensor with LiteRT's; the number of constants compared."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    raw = read_lite(path).lite
    assert raw is not None
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    compared = 0
    for tensor in raw.subgraphs[0].tensors:
        theirs = details[tensor.index]
        assert (tensor.name, tensor.shape) == (theirs["name"], tuple(theirs["shape"]))
        assert tensor.dtype == np.dtype(theirs["dtype"]).name
        scales = theirs["quantization_parameters"]["scales"]
        assert (tensor.quantization is None) == (len(scales) == 0)
        if tensor.quantization is not None:
            assert np.array_equal(tensor.quantization.scales, scales)
            assert np.array_equal(tensor.quantization.zero_points, theirs["quantization_parameters"]["zero_points"])
            if len(scales) > 1:
                assert tensor.quantization.axis == theirs["quantization_parameters"]["quantized_dimension"]
        if tensor.data is not None:
            assert np.array_equal(tensor.data.read(), interpreter.get_tensor(tensor.index))
            compared += 1
    operators = interpreter._get_ops_details()
    ours = [(op.kind, list(op.outputs)) for op in raw.subgraphs[0].operators]
    assert ours == [(op["op_name"], list(op["outputs"])) for op in operators[: len(ours)]]
    return compared


@pytest.mark.parametrize("name", FILES)
def test_same_as_the_interpreter(converted: dict[str, Path], name: str) -> None:
    """Every name, shape, type, scale, zero point, constant and operator is what LiteRT says."""
    assert same_as_interpreter(converted[name]) >= 4


@pytest.mark.parametrize("path", sorted(REAL.glob("*/*.tflite")) or [None], ids=lambda path: path and path.name)
def test_real_files_as_the_interpreter(path: Path | None) -> None:
    """The same for the real files."""
    if path is None:
        pytest.skip(f"{REAL} is not here")
    assert same_as_interpreter(path) >= 10


def test_folded_ranges(converted: dict[str, Path]) -> None:
    """The largest weight per channel is that of `w * gamma / sqrt(variance + epsilon)`, in every scheme."""
    net = model("bn relu")
    bn = net.get_layer("bn")
    kernel = np.asarray(net.get_layer("first").kernel, np.float64)
    scale = np.asarray(bn.gamma, np.float64) / np.sqrt(np.asarray(bn.moving_variance, np.float64) + EPSILON)
    expected = np.abs(kernel * scale).max(axis=(0, 1, 2))
    for name in FILES[:5]:
        first = lite(converted[name]).folded[0]
        tolerance = 1e-6 if name == "folded float" else 5e-3
        assert first.channel_max == pytest.approx(expected, rel=tolerance), name
        assert (first.kind, first.channels) == ("CONV_2D", 16)


def test_schemes_are_told_apart(converted: dict[str, Path]) -> None:
    """Integer kernels and the width of integer biases come out as converted."""
    seen = {name: (lite(path).integer, lite(path).folded[1].bias_bits) for name, path in converted.items()}
    assert seen["folded float"] == (False, None)
    assert seen["folded float16"] == (False, None)
    assert seen["folded dynamic"] == (True, None)
    assert seen["folded int8"] == (True, 32)
    assert seen["folded 16x8"] == (True, 64)


def test_leftovers(converted: dict[str, Path]) -> None:
    """Behind a ReLU the batch norm stays: its own scale and shift; untouched statistics leave a MUL alone."""
    bn = model("relu bn").get_layer("bn")
    scale = np.asarray(bn.gamma, np.float64) / np.sqrt(np.asarray(bn.moving_variance, np.float64) + EPSILON)
    shift = np.asarray(bn.beta, np.float64) - np.asarray(bn.moving_mean, np.float64) * scale
    for name, tolerance in (("left float", 1e-6), ("left float16", 2e-3), ("left int8", 2e-2)):
        (left,) = lite(converted[name]).leftovers
        assert (left.operators, left.after, left.feeds) == (("MUL", "ADD"), "CONV_2D + RELU", "CONV_2D"), name
        assert left.multiplier == pytest.approx(scale, rel=tolerance, abs=tolerance)
        assert left.addend == pytest.approx(shift, rel=tolerance, abs=tolerance)
    (never,) = lite(converted["never float"]).leftovers
    assert never.addend is None
    assert [len(lite(converted[name]).leftovers) for name in FILES[:5]] == [0] * 5


def evidence(path: Path) -> list[tuple[str, Evidence]]:
    """What BN405 and BN406 say of a file."""
    facts = recognise_lite(read_lite(path), Options())
    rules = (bn405_bias_saturated.check, bn406_not_folded.check)
    return [(rule.code, found) for rule in rules for found in rule.check(facts)]


def test_rules_on_converted_files(converted: dict[str, Path]) -> None:
    """Folded models are clean, left ones are BN406, never updated ones say so."""
    for name, path in converted.items():
        found = evidence(path)
        assert [code for code, _ in found] == ([] if name.startswith("folded") else ["BN406"]), name
        assert ("never updated" in found[0][1].message if found else False) is name.startswith("never")


@pytest.mark.parametrize("kind", ["layer", "group", "input", "prelu"])
def test_other_norms_are_no_batch_norm(tmp_path: Path, kind: str) -> None:
    """Layer and group norm and PReLU say nothing; normalisation of the input is a note at most."""
    import warnings

    import keras

    layers, rng = keras.layers, np.random.default_rng(7)
    x = inputs = keras.Input((8, 8, 3), batch_size=1)
    if kind == "input":
        x = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.2, 0.3, 0.4])(x)
    x = layers.Conv2D(6, 3, activation="relu")(x)
    if kind in ("layer", "group"):
        norm = layers.LayerNormalization() if kind == "layer" else layers.GroupNormalization(groups=2)
        x = norm(x)
        norm.gamma.assign(rng.uniform(0.5, 2, norm.gamma.shape))
        norm.beta.assign(rng.normal(size=norm.beta.shape))
    elif kind == "prelu":
        x = layers.PReLU(shared_axes=[1, 2], alpha_initializer="normal")(x)
    path = tmp_path / f"{kind}.tflite"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own deprecations
        path.write_bytes(convert(keras.Model(inputs, layers.Conv2D(5, 3)(x)), "float"))
    severities = [found.severity for _, found in evidence(path)]
    assert severities == ([Severity.INFO] if kind == "input" else [])


def test_schema_tables() -> None:
    """Operators, types, activations and field numbers are those of TensorFlow's generated schema."""
    from tensorflow.lite.python import schema_py_generated as generated

    def names(enumeration: type) -> dict[str, int]:
        return {name: number for name, number in vars(enumeration).items() if isinstance(number, int)}

    operators = {name: number for number, name in enumerate(schema.BUILTIN_OPERATORS)}
    assert names(generated.BuiltinOperator).items() <= operators.items()
    types = {name.upper(): number for number, name in enumerate(schema.TENSOR_TYPES)}
    assert names(generated.TensorType).items() <= types.items()
    assert names(generated.ActivationFunctionType) == {name: number for number, name in enumerate(schema.ACTIVATIONS)}
    assert generated.BuiltinOperator.CUSTOM == schema.CUSTOM
    unions = names(generated.BuiltinOptions)
    for number, (name, slot) in schema.FUSED_ACTIVATION.items():
        assert unions[name] == number
        assert slot_of(getattr(generated, name), "FusedActivationFunction") == slot
    assert unions["FullyConnectedOptions"] == schema.FULLY_CONNECTED_OPTIONS
    assert slot_of(generated.FullyConnectedOptions, "WeightsFormat") == schema.WEIGHTS_FORMAT


@pytest.mark.parametrize(
    "table",
    [
        schema.Model, schema.OperatorCode, schema.SubGraph, schema.Tensor, schema.QuantizationParameters,
        schema.BlockwiseQuantization, schema.Operator, schema.Buffer, schema.Metadata,
        schema.SignatureDef, schema.TensorMap,
    ],
)  # fmt: skip  # one a line would say no more
def test_field_numbers(table: Any) -> None:
    """Each field has the number that flatc gave it."""
    schemas = pytest.importorskip("ai_edge_litert.schema_py_generated")  # knows `external_buffer`
    for member in table:
        name = "".join(part.capitalize() for part in member.name.split("_"))
        assert slot_of(getattr(schemas, table.__name__), name) == member.value


def slot_of(table: type, name: str) -> int:
    """The field number in flatc's generated accessor, which holds 4 + 2 * number."""
    found = re.search(r"Offset\((\d+)\)", inspect.getsource(getattr(table, name)))
    assert found is not None
    return (int(found[1]) - 4) // 2
