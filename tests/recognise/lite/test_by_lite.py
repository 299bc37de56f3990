"""`recognise/by_lite.py`: folded operators, what was left over, and what only looks like it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lite_writer import G, Op, T, constant, lite_bytes

from bncheck.facts.lite import FoldedOperator, Leftover, LiteFacts
from bncheck.recognise.lite.by_lite import recognise_lite
from bncheck.settings.options import Options
from bncheck.sources.tflite.tflite import read_lite

REAL = Path(__file__).parents[3].parent / "shared" / "real"
SHAPE = (1, 8, 8, 4)
GAMMA = np.array([0.5, 2.0, 1.5, 0.25], np.float32)
BETA = np.array([0.1, -0.4, 0.0, 0.3], np.float32)


def facts(path: Path) -> LiteFacts:
    """The facts of a file, which name its path and hold no layers."""
    found = recognise_lite(read_lite(path), Options())
    assert (found.path, found.format.label, found.layers) == (str(path), "TFLite", ())
    assert found.lite is not None
    return found.lite


def of(tmp_path: Path, *graphs: G) -> LiteFacts:
    """The facts of these subgraphs."""
    path = tmp_path / "model.tflite"
    path.write_bytes(lite_bytes(*graphs))
    return facts(path)


def chain(*steps: tuple[str, object, str] | tuple[str, object], first: str = "RELU") -> G:
    """`first` on the input, then each (kind, constant or tensor number[, activation]) on the result, then a MEAN.

    The input is tensor 0, the result of `first` tensor 1.
    """
    tensors = [T(name="in", shape=SHAPE), T(name="act", shape=SHAPE)]
    operators = [Op(kind=first, inputs=(0,), outputs=(1,))]
    last = 1
    for kind, value, *activation in steps:
        other = value if isinstance(value, int) else len(tensors)
        if not isinstance(value, int):
            tensors.append(constant(f"c{len(tensors)}", value))
        tensors.append(T(name=f"t{len(tensors)}", shape=SHAPE))
        operators.append(
            Op(kind=kind, inputs=(last, other), outputs=(len(tensors) - 1,), activation=(activation or ["NONE"])[0])
        )
        last = len(tensors) - 1
    tensors += [constant("axes", np.array([1, 2], np.int32)), T(name="out", shape=(1, 4))]
    operators.append(Op(kind="MEAN", inputs=(last, len(tensors) - 2), outputs=(len(tensors) - 1,)))
    return G(tensors=tensors, operators=operators, outputs=(len(tensors) - 1,))


def left(tmp_path: Path, *steps: tuple[str, object, str] | tuple[str, object], first: str = "RELU") -> Leftover | None:
    """The leftover of a chain, None where there is none."""
    found = of(tmp_path, chain(*steps, first=first)).leftovers
    assert len(found) <= 1
    return found[0] if found else None


def linear(kind: str, kernel: T, *, bias: T | None = None, slots: tuple[int, int, int] = (0, 1, 2)) -> G:
    """One linear operator; `slots` are the places of data, kernel and bias among its inputs."""
    tensors = [T(name="in", shape=SHAPE), kernel, T(name="out", shape=SHAPE)]
    inputs = [-1] * (max(slots) + (bias is not None))
    inputs[slots[0]], inputs[slots[1]] = 0, 1
    if bias is not None:
        tensors.append(bias)
        inputs[slots[2]] = 3
    return G(tensors=tensors, operators=(Op(kind=kind, inputs=inputs, outputs=(2,)),), outputs=(2,))


def only(lite: LiteFacts) -> FoldedOperator:
    """The one folded operator."""
    assert len(lite.folded) == 1
    return lite.folded[0]


@pytest.mark.parametrize(
    ("kind", "shape", "axis", "slots"),
    [
        ("CONV_2D", (4, 3, 2, 5), 0, (0, 1, 2)),
        ("DEPTHWISE_CONV_2D", (1, 3, 2, 4), 3, (0, 1, 2)),
        ("FULLY_CONNECTED", (4, 6), 0, (0, 1, 2)),
        ("TRANSPOSE_CONV", (4, 3, 2, 5), 0, (2, 1, 3)),
        ("CONV_3D", (2, 3, 2, 5, 4), 4, (0, 1, 2)),
    ],
)
def test_linear_operators(
    tmp_path: Path, kind: str, shape: tuple[int, ...], axis: int, slots: tuple[int, int, int]
) -> None:
    """Each kind's kernel is found, and its largest weight taken along its own channel axis."""
    kernel = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    lite = of(tmp_path, linear(kind, constant("w", kernel), bias=constant("b", BETA), slots=slots))
    found = only(lite)
    others = tuple(number for number in range(kernel.ndim) if number != axis)
    assert found.channel_max is not None
    assert found.channel_max.tolist() == np.abs(kernel.astype(np.float64)).max(axis=others).tolist()
    assert (found.kind, found.channels) == (kind, 4)
    assert found.weight_scales is None
    assert found.bias is None
    assert not lite.integer


def test_per_channel_scales_and_bias(tmp_path: Path) -> None:
    """An int8 kernel gives scales, real ranges and the bias as stored, with its width and steps."""
    kernel = np.array([[[[1, -128]]], [[[5, 3]]]], np.int8)
    bias = constant("b", np.array([-(2**31) + 1, 9], np.int32), scales=[1e-4, 1e-3])
    found = only(of(tmp_path, linear("CONV_2D", constant("w", kernel, scales=[0.5, 0.25], points=[0, 1]), bias=bias)))
    assert found.weight_scales is not None
    assert found.channel_max is not None
    assert found.bias is not None
    assert found.bias_scales is not None
    assert found.weight_scales.tolist() == [0.5, 0.25]
    assert found.channel_max.tolist() == [64.0, 1.0]
    assert found.bias.tolist() == [-(2**31) + 1, 9]
    assert found.bias_bits == 32
    assert found.bias_scales == pytest.approx([1e-4, 1e-3])


def test_per_tensor_scale_and_wide_bias(tmp_path: Path) -> None:
    """One scale for the whole kernel stays one entry; a 16x8 model's bias has 64 bits."""
    kernel = np.arange(8, dtype=np.int8).reshape(1, 1, 2, 4)
    bias = constant("b", np.array([2**40, 0, 1, -1], np.int64), scales=[1e-9])
    found = only(of(tmp_path, linear("DEPTHWISE_CONV_2D", constant("w", kernel, scales=[0.5]), bias=bias)))
    assert found.weight_scales is not None
    assert found.channel_max is not None
    assert found.bias is not None
    assert found.weight_scales.tolist() == [0.5]
    assert found.channel_max.tolist() == [2.0, 2.5, 3.0, 3.5]
    assert (found.bias_bits, int(found.bias[0])) == (64, 2**40)


def test_kernel_behind_dequantize(tmp_path: Path) -> None:
    """The float16 and the int8 kernel behind a DEQUANTIZE are found; an activation is no kernel."""
    half = np.array([[1.5, -2.0], [0.5, 0.25]], np.float16)
    tensors = (T(name="in", shape=(1, 2)), constant("h", half), T(name="w", shape=(2, 2)), T(name="out", shape=(1, 2)))
    operators = (
        Op(kind="DEQUANTIZE", inputs=(1,), outputs=(2,)),
        Op(kind="FULLY_CONNECTED", inputs=(0, 2, -1), outputs=(3,)),
        Op(kind="FULLY_CONNECTED", inputs=(0, 3), outputs=(3,)),
    )
    found = only(of(tmp_path, G(tensors=tensors, operators=operators)))
    assert found.channel_max is not None
    assert found.channel_max.tolist() == [2.0, 0.5]


@pytest.mark.parametrize(
    "kernel",
    [
        constant("w", np.ones((2, 2), np.int8)),
        constant("w", np.ones((2, 2), np.int8), scales=[0.5], details=2),
        constant("w", np.ones((2, 2), np.float32), sparse=True),
        constant("w", np.ones((2, 2), np.float32), external=1),
    ],
)
def test_ranges_that_cannot_be_told(tmp_path: Path, kernel: T) -> None:
    """A kernel without affine scale, sparse or elsewhere gives no range, and a note, rather than a wrong number."""
    path = tmp_path / "model.tflite"
    path.write_bytes(lite_bytes(linear("FULLY_CONNECTED", kernel)))
    found = recognise_lite(read_lite(path), Options())
    assert found.lite is not None
    assert only(found.lite).channel_max is None
    assert any("were not read" in note for note in found.notes)


def test_shuffled_kernel_has_no_ranges(tmp_path: Path) -> None:
    """A kernel stored in blocks of another order would give the ranges of other channels."""
    graph = linear("FULLY_CONNECTED", constant("w", np.ones((2, 2), np.float32)))
    op = graph.operators[0]
    operators = (Op(kind=op.kind, inputs=op.inputs, outputs=op.outputs, weights_format=1),)
    assert only(of(tmp_path, G(tensors=graph.tensors, operators=operators))).channel_max is None


def test_names_of_operators(tmp_path: Path) -> None:
    """A fused name gives the linear operator's part; the same kernel twice gives two names."""
    fused = "m/relu/Relu;m/bn/FusedBatchNormV3;m/conv2d_4/BiasAdd/ReadVariableOp;m/conv2d_4/Conv2D"
    tensors = (T(name="in", shape=SHAPE), constant("w", np.ones((4, 1, 1, 4), np.float32)), T(name=fused, shape=SHAPE))
    operators = (Op(kind="CONV_2D", inputs=(0, 1), outputs=(2,)), Op(kind="CONV_2D", inputs=(2, 1), outputs=(2,)))
    found = of(tmp_path, G(tensors=tensors, operators=operators)).folded
    assert [op.name for op in found] == ["m/conv2d_4/Conv2D", "m/conv2d_4/Conv2D #1"]


def test_all_subgraphs(tmp_path: Path) -> None:
    """Operators of every subgraph count; those behind the first say which they are of."""
    conv = linear("CONV_2D", constant("a/Conv2D", np.ones((4, 1, 1, 4), np.float32)))
    lite = of(tmp_path, conv, chain(("MUL", GAMMA), ("ADD", BETA)))
    assert [op.name for op in lite.folded] == ["a/Conv2D"]
    assert [one.name for one in lite.leftovers] == ["subgraph 1: t5"]
    assert lite.operators == 1 + 4


def test_names_that_come_up_again(tmp_path: Path) -> None:
    """Two leftovers of one name are told apart."""
    tensors = (
        T(name="in", shape=SHAPE),
        constant("m", GAMMA),
        T(name="", shape=SHAPE),
        constant("a", BETA),
        T(name="bn/batchnorm/add_1", shape=SHAPE),
        T(name="act", shape=SHAPE),
        T(name="", shape=SHAPE),
        T(name="bn/batchnorm/add_1", shape=SHAPE),
    )
    operators = (
        Op(kind="MUL", inputs=(0, 1), outputs=(2,)),
        Op(kind="ADD", inputs=(2, 3), outputs=(4,)),
        Op(kind="RELU", inputs=(4,), outputs=(5,)),
        Op(kind="MUL", inputs=(5, 1), outputs=(6,)),
        Op(kind="ADD", inputs=(6, 3), outputs=(7,)),
    )
    found = of(tmp_path, G(tensors=tensors, operators=operators, outputs=(7,))).leftovers
    assert [one.name for one in found] == ["bn/batchnorm/add_1", "bn/batchnorm/add_1 #2"]


def test_numbers_that_are_none(tmp_path: Path) -> None:
    """NaN and infinity in weights, scales and factors stay what they are, without a warning."""
    kernel = np.array([[1.0, np.nan], [np.inf, 2.0]], np.float32)
    found = only(of(tmp_path, linear("FULLY_CONNECTED", constant("w", kernel))))
    assert found.channel_max is not None
    assert np.isnan(found.channel_max[0])
    assert np.isinf(found.channel_max[1])
    scaled = constant("w", np.array([[0, 1], [2, 3]], np.int8), scales=[np.inf, np.nan])
    ranges = only(of(tmp_path, linear("FULLY_CONNECTED", scaled))).channel_max
    assert ranges is not None
    assert not np.isfinite(ranges).any()
    left_ = left(tmp_path, ("MUL", np.array([np.inf, np.nan, 0, 1], np.float32)), ("MUL", GAMMA * 0), ("DIV", BETA))
    assert left_ is not None


def test_bias_of_another_type(tmp_path: Path) -> None:
    """A bias in a type that no kernel takes is left aside."""
    bias = T(name="b", dtype="int4", shape=(4,), data=b"ab", scales=[0.5])
    kernel = constant("w", np.ones((4, 2), np.int8), scales=[0.5])
    assert only(of(tmp_path, linear("FULLY_CONNECTED", kernel, bias=bias))).bias is None


def test_multiplied_and_added(tmp_path: Path) -> None:
    """A MUL and an ADD per channel behind an activation are one leftover of both."""
    found = left(tmp_path, ("MUL", GAMMA), ("ADD", BETA))
    assert found is not None
    assert found.multiplier is not None
    assert found.addend is not None
    assert (found.operators, found.channels, found.after, found.feeds) == (("MUL", "ADD"), 4, "RELU", "MEAN")
    assert found.multiplier.tolist() == GAMMA.tolist()
    assert found.addend == pytest.approx(BETA.astype(np.float64))


@pytest.mark.parametrize(
    ("steps", "multiplier", "addend"),
    [
        ((("SUB", BETA), ("MUL", GAMMA)), GAMMA, -BETA * GAMMA),
        ((("SUB", BETA), ("DIV", GAMMA)), 1 / GAMMA, -BETA / GAMMA),
        ((("ADD", BETA), ("MUL", GAMMA)), GAMMA, BETA * GAMMA),
        ((("SUB", BETA), ("MUL", GAMMA), ("MUL", GAMMA), ("ADD", BETA)), GAMMA**2, BETA - BETA * GAMMA**2),
        ((("MUL", np.float32(3)), ("MUL", GAMMA), ("ADD", np.float32(2)), ("ADD", BETA)), GAMMA, BETA + 2),
        ((("MUL", GAMMA.reshape(1, 1, 1, 4)), ("ADD", BETA.reshape(1, 4))), GAMMA, BETA),
        ((("MUL", GAMMA), ("ADD", BETA), ("MUL", np.float32(3))), GAMMA, BETA),
    ],
)
def test_composition(
    tmp_path: Path, steps: tuple[tuple[str, object], ...], multiplier: np.ndarray, addend: np.ndarray
) -> None:
    """Every order of steps composes to the same affine map; scalar steps around it do not belong to it."""
    found = left(tmp_path, *steps)
    assert found is not None
    assert found.multiplier is not None
    assert found.addend is not None
    assert found.multiplier == pytest.approx(multiplier.astype(np.float64), rel=1e-6)
    assert found.addend == pytest.approx(addend.astype(np.float64), rel=1e-6, abs=1e-7)


def test_multiplied_only(tmp_path: Path) -> None:
    """A lone MUL is a leftover without an addend: the mark of statistics that were never updated."""
    found = left(tmp_path, ("MUL", GAMMA))
    assert found is not None
    assert found.addend is None
    assert found.operators == ("MUL",)


def test_fused_activation_ends_the_chain(tmp_path: Path) -> None:
    """What comes behind a fused activation is no part of the affine map."""
    found = left(tmp_path, ("MUL", GAMMA), ("ADD", BETA, "RELU"), ("ADD", BETA))
    assert found is not None
    assert found.operators == ("MUL", "ADD")


def test_integer_constants_count_in_real_numbers(tmp_path: Path) -> None:
    """Quantized constants are taken at what they are worth."""
    tensors = (
        T(name="in", dtype="int8", shape=SHAPE, scales=[0.1]),
        T(name="act", dtype="int8", shape=SHAPE, scales=[0.1]),
        constant("m", np.array([10, 20, 127, -1], np.int8), scales=[0.5], points=[-2]),
        T(name="mul", dtype="int8", shape=SHAPE, scales=[0.1]),
        constant("a", np.array([1, 2, 3, 4], np.int8), scales=[0.25]),
        T(name="add", dtype="int8", shape=SHAPE, scales=[0.1]),
    )
    operators = (
        Op(kind="RELU", inputs=(0,), outputs=(1,)),
        Op(kind="MUL", inputs=(1, 2), outputs=(3,)),
        Op(kind="ADD", inputs=(4, 3), outputs=(5,)),
    )
    (found,) = of(tmp_path, G(tensors=tensors, operators=operators, outputs=(5,))).leftovers
    assert found.multiplier is not None
    assert found.addend is not None
    assert found.multiplier.tolist() == [6.0, 11.0, 64.5, 0.5]
    assert found.addend.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert found.feeds == ""


def test_channels_first(tmp_path: Path) -> None:
    """Channels right behind the batch are found for a pair; a lone product along that axis is a window or gain."""
    gamma, beta = (np.arange(1, 9, dtype=np.float32).reshape(8, 1, 1) for _ in range(2))
    pair = left(tmp_path, ("MUL", gamma), ("ADD", beta))
    assert pair is not None
    assert pair.channels == 8
    assert left(tmp_path, ("MUL", gamma)) is None


@pytest.mark.parametrize(
    "steps",
    [
        (("MUL", np.float32(1 / 127.5)), ("SUB", np.float32(1))),
        (("MUL", np.array([0.125], np.float32)), ("ADD", np.array([1], np.float32))),
        (("ADD", 0), ("MUL", np.float32(2))),
        (("ADD", BETA),),
        (("MUL", 0), ("ADD", 0)),
        (("MUL", np.ones((8, 8, 4), np.float32)), ("ADD", np.ones((8, 8, 4), np.float32))),
        (("MUL", np.ones((8, 1), np.float32)), ("ADD", np.ones((8, 1), np.float32))),
        (("ADD", BETA), ("MUL", np.float32(2))),
    ],
)
def test_what_only_looks_like_it(tmp_path: Path, steps: tuple[tuple[str, object], ...]) -> None:
    """Scalars, residuals, biases, embeddings, gates and widths are no batch norm."""
    assert left(tmp_path, *steps) is None


def test_constant_minus_activation_is_no_step(tmp_path: Path) -> None:
    """`1 - x` and `c / x` are no affine map of this form."""
    tensors = (T(name="in", shape=SHAPE), constant("c", GAMMA), T(name="a", shape=SHAPE), T(name="b", shape=SHAPE))
    operators = (Op(kind="DIV", inputs=(1, 0), outputs=(2,)), Op(kind="SUB", inputs=(1, 2), outputs=(3,)))
    assert of(tmp_path, G(tensors=tensors, operators=operators)).leftovers == ()


def test_shapes_are_no_activations(tmp_path: Path) -> None:
    """Arithmetic on unquantized integers computes shapes."""
    tensors = (
        T(name="in", dtype="int32", shape=(2, 4)),
        constant("c", np.arange(1, 5, dtype=np.int32)),
        T(name="a", dtype="int32", shape=(2, 4)),
        T(name="b", dtype="int32", shape=(2, 4)),
    )
    operators = (Op(kind="MUL", inputs=(0, 1), outputs=(2,)), Op(kind="ADD", inputs=(2, 1), outputs=(3,)))
    assert of(tmp_path, G(tensors=tensors, operators=operators)).leftovers == ()


def normalised(*kinds: str) -> G:
    """The data times (or over) the root of a mean over its last axis, then gamma and beta."""
    tensors = [
        T(name="x", shape=SHAPE),
        constant("axes", np.array([3], np.int32)),
        constant("epsilon", np.float32(1e-3)),
        T(name="squares", shape=SHAPE),
        T(name="mean", shape=(1, 8, 8, 1)),
        T(name="plus", shape=(1, 8, 8, 1)),
        T(name="root", shape=(1, 8, 8, 1)),
        T(name="unit", shape=SHAPE),
        constant("gamma", GAMMA),
        T(name="scaled", shape=SHAPE),
        constant("beta", BETA),
        T(name="shifted", shape=SHAPE),
    ]
    operators = [
        Op(kind="SQUARE", inputs=(0,), outputs=(3,)),
        Op(kind="MEAN", inputs=(3, 1), outputs=(4,)),
        Op(kind="ADD", inputs=(4, 2), outputs=(5,)),
        Op(kind=kinds[0], inputs=(5,), outputs=(6,)),
        Op(kind=kinds[1], inputs=(0, 6), outputs=(7,)),
        Op(kind="MUL", inputs=(7, 8), outputs=(9,)),
        Op(kind="ADD", inputs=(9, 10), outputs=(11,)),
    ]
    return G(tensors=tensors, operators=operators, outputs=(11,))


@pytest.mark.parametrize("kinds", [("RSQRT", "MUL"), ("SQRT", "DIV")])
def test_gamma_and_beta_of_other_norms(tmp_path: Path, kinds: tuple[str, str]) -> None:
    """The affine part of layer norm, RMS norm and the like is no batch norm, and neither are their moments."""
    assert of(tmp_path, normalised(*kinds)).leftovers == ()


def test_scale_behind_l2_normalization(tmp_path: Path) -> None:
    """SSD's learned scale of L2-normalised features is no batch norm."""
    assert left(tmp_path, ("MUL", GAMMA), ("ADD", BETA), first="L2_NORMALIZATION") is None


@pytest.mark.parametrize(
    ("axes", "count"), [([0, 1, 2], 1), ([0, 2, 3], 1), ([1, 2], 0), ([3], 0), ([0, 1, 2, 3], 0), ([-4, -3, -2], 1)]
)
def test_moments_of_the_batch(tmp_path: Path, axes: list[int], count: int) -> None:
    """A variance over the batch and all but the channels is batch norm in training mode; other axes are other norms."""
    graph = normalised("RSQRT", "MUL")
    tensors = [*graph.tensors]
    tensors[1] = constant("axes", np.array(axes, np.int32))
    found = of(tmp_path, G(tensors=tensors, operators=graph.operators, outputs=graph.outputs)).leftovers
    assert len(found) == count
    assert all(one.multiplier is None and one.operators == ("SQUARE", "MEAN", "RSQRT") for one in found)


def placed(before: tuple[Op, ...], tensors: tuple[T, ...], last: int, after: tuple[Op, ...] = ()) -> G:
    """A MUL and an ADD on tensor `last`, behind and before other operators; their result is tensor last + 4."""
    assert len(tensors) == last + 1
    of_it = (constant("m", GAMMA), T(name="mul", shape=SHAPE), constant("a", BETA), T(name="add", shape=SHAPE))
    pair = (
        Op(kind="MUL", inputs=(last, last + 1), outputs=(last + 2,)),
        Op(kind="ADD", inputs=(last + 2, last + 3), outputs=(last + 4,)),
    )
    more = tuple(T(name=f"more{number}", shape=SHAPE) for number in range(len(after)))
    return G(tensors=(*tensors, *of_it, *more), operators=(*before, *pair, *after), outputs=(last + 4 + len(after),))


def test_where_it_stands(tmp_path: Path) -> None:
    """The operator before and behind is found through casts, reshapes and scalar arithmetic; the input has no name."""
    x = T(name="in", shape=SHAPE)
    (at_input,) = of(tmp_path, placed((), (x,), 0)).leftovers
    assert (at_input.after, at_input.feeds) == ("", "")
    scalar = (Op(kind="MUL", inputs=(0, 1), outputs=(2,)), Op(kind="QUANTIZE", inputs=(2,), outputs=(3,)))
    tensors = (x, constant("k", np.float32(1 / 255)), T(name="s", shape=SHAPE), T(name="q", shape=SHAPE))
    behind = (Op(kind="RESHAPE", inputs=(7,), outputs=(8,)), Op(kind="CONV_2D", inputs=(8,), outputs=(9,)))
    (scaled,) = of(tmp_path, placed(scalar, tensors, 3, behind)).leftovers
    assert (scaled.after, scaled.feeds) == ("", "CONV_2D")
    fused = (Op(kind="CONV_2D", inputs=(0, 1), outputs=(2,), activation="RELU6"),)
    tensors = (x, constant("w", np.ones((4, 1, 1, 4), np.float32)), T(name="c", shape=SHAPE))
    twice = (Op(kind="RELU", inputs=(6,), outputs=(7,)), Op(kind="RELU", inputs=(6,), outputs=(8,)))
    (both,) = of(tmp_path, placed(fused, tensors, 2, twice)).leftovers
    assert (both.after, both.feeds) == ("CONV_2D + RELU6", None)


def test_wiring_in_circles(tmp_path: Path) -> None:
    """Operators that feed one another in a circle, which no converter writes, end like any other file."""
    tensors = (T(name="in", shape=SHAPE), constant("c", GAMMA), T(name="a", shape=SHAPE), T(name="b", shape=SHAPE))
    operators = (
        Op(kind="MUL", inputs=(3, 1), outputs=(2,)),
        Op(kind="ADD", inputs=(2, 1), outputs=(3,)),
        Op(kind="RESHAPE", inputs=(3,), outputs=(3,)),
        Op(kind="DEQUANTIZE", inputs=(2,), outputs=(2,)),
        Op(kind="RSQRT", inputs=(2,), outputs=(2,)),
    )
    assert of(tmp_path, G(tensors=tensors, operators=operators)).operators == 5


REAL_FILES = [
    ("basic_pitch/nmp.tflite", 32, 0, [("MUL", "ADD")]),
    ("mlperf_tiny_kws/kws_ref_model.tflite", 10, 10, []),
    ("mlperf_tiny_kws/kws_ref_model_float32.tflite", 10, 5, []),
    ("mlperf_tiny_vww/vww_96_float.tflite", 28, 0, []),
    ("mlperf_tiny_vww/vww_96_int8.tflite", 28, 28, []),
    ("fer_emotion/emotion_model_quantized.tflite", 23, 9, []),
]


@pytest.mark.parametrize(("name", "folded", "integer_kernels", "leftovers"), REAL_FILES)
def test_real_files(
    name: str,
    folded: int,
    integer_kernels: int,
    leftovers: list[tuple[str, ...]],
) -> None:
    """Real public models: folded operators, integer kernels and leftovers as counted by hand."""
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    lite = facts(path)
    assert len(lite.folded) == folded
    assert sum(op.weight_scales is not None for op in lite.folded) == integer_kernels
    assert lite.integer is (integer_kernels > 0)
    assert [one.operators for one in lite.leftovers] == leftovers
    assert all(op.channel_max is not None and op.channel_max.shape == (op.channels,) for op in lite.folded)


@pytest.mark.parametrize("assigned", [False, True])
def test_weights_that_are_variables(tmp_path: Path, *, assigned: bool) -> None:
    """A file that reads variables and never sets them has lost its weights, and is told to; state is no such thing."""
    tensors = [T(name="in", shape=SHAPE), T(name="handle", dtype="resource"), T(name="kernel", shape=SHAPE)]
    operators = [
        Op(kind="VAR_HANDLE", inputs=(), outputs=(1,)),
        Op(kind="READ_VARIABLE", inputs=(1,), outputs=(2,)),
        Op(kind="ADD", inputs=(0, 2), outputs=(3,)),
    ]
    if assigned:
        operators.append(Op(kind="ASSIGN_VARIABLE", inputs=(1, 3), outputs=()))
    path = tmp_path / "model.tflite"
    graph = G(tensors=[*tensors, T(name="out", shape=SHAPE)], operators=operators, outputs=(3,))
    path.write_bytes(lite_bytes(graph))
    notes = recognise_lite(read_lite(path), Options()).notes
    assert [note.startswith("its weights are variables that it reads and never sets") for note in notes] == (
        [] if assigned else [True]
    )
