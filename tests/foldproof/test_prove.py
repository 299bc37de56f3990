"""`recognise/fold.py`: which statistics a TFLite file has folded in, on files made by the formulas of folding alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fold_models import Conv, Operator, averaged, checkpoint, conv, fold, lite, of_arrays, operator
from hypothesis import given, settings
from hypothesis import strategies as st

from bncheck.facts.errors import ReadError, UsageError
from bncheck.facts.measurements import FoldedLayer, FoldProof
from bncheck.foldproof.prove import prove
from bncheck.sources import open_model
from bncheck.sources.raw import RawModel

REAL = Path(__file__).parents[2].parent / "shared" / "real"
VWW = REAL / "mlperf_tiny_vww"
SCHEMES = ("float32", "float16", "int8", "int8-per-tensor")


def only(proof: FoldProof) -> FoldedLayer:
    """Its one layer."""
    assert len(proof.layers) == 1
    return proof.layers[0]


def states(proof: FoldProof) -> list[str]:
    """What each layer holds."""
    return [layer.folded for layer in proof.layers]


def net() -> list[Conv]:
    """Three layers, two of them alike in shape, a depthwise one, a convolution with a bias."""
    return [
        conv("a", seed=1, inputs=3),
        conv("b", seed=2, inputs=8, depthwise=True, bias=np.linspace(-1, 1, 8)),
        conv("c", seed=3, inputs=8, size=1),
        conv("d", seed=4, inputs=8, size=1, bias=np.linspace(-1, 1, 8)),
    ]


@pytest.mark.parametrize("scheme", [*SCHEMES, "aware"])
def test_a_faithful_conversion_is_confirmed(tmp_path: Path, scheme: str) -> None:
    """All layers hold what is stored, by the right operators, within what rounding to the type explains."""
    layers = net()
    proof = prove(checkpoint(*layers), lite(tmp_path, *(operator(layer, scheme=scheme) for layer in layers)))
    assert states(proof) == ["stored"] * 4
    assert [layer.operator for layer in proof.layers] == [f"net/{name}/Conv2D" for name in "abcd"]
    assert all(layer.error <= layer.tolerance for layer in proof.layers)
    assert max(layer.error for layer in proof.layers) < (1e-6 if scheme == "float32" else 5e-3)
    assert [layer.epsilon for layer in proof.layers] == [1e-3] * 4
    for layer in proof.layers:
        assert layer.scale_ratio is not None
        assert layer.scale_ratio == pytest.approx(np.ones(8), abs=1e-6 if scheme == "float32" else 0.1)


@pytest.mark.parametrize("scheme", [*SCHEMES, "aware"])
@pytest.mark.parametrize(
    "change",
    [
        lambda layer: replace(layer, variance=layer.variance * np.float32(1.5)),
        lambda layer: replace(layer, mean=layer.mean + np.float32(0.2)),
        lambda layer: replace(layer, gamma=layer.gamma * np.linspace(0.9, 1.1, 8, dtype=np.float32)),
        lambda layer: replace(layer, beta=layer.beta + np.linspace(0, 0.5, 8, dtype=np.float32)),
        lambda layer: replace(layer, variance=np.where(np.arange(8) == 3, layer.variance * 4, layer.variance)),
    ],
    ids=["variance", "mean", "gamma", "beta", "one channel"],
)
def test_one_layer_that_holds_something_else_is_named(
    tmp_path: Path, scheme: str, change: Callable[[Conv], Conv]
) -> None:
    """Whatever part was changed, that layer and no other is accused, and its operator is found all the same."""
    layers = net()
    file = lite(tmp_path, *(operator(change(one) if one.name == "c" else one, scheme=scheme) for one in layers))
    proof = prove(checkpoint(*layers), file)
    assert states(proof) == ["stored", "stored", "other", "stored"]
    accused = proof.layers[2]
    assert accused.operator == "net/c/Conv2D"
    assert accused.error > accused.tolerance
    assert "channels" in accused.why


def test_initial_statistics_are_told(tmp_path: Path) -> None:
    """A conversion without the restore of the statistics: mean 0, variance 1 on trained weights."""
    layers = net()
    fresh = [replace(one, mean=one.mean * 0, variance=one.variance * 0 + 1) for one in layers]
    proof = prove(checkpoint(*layers), lite(tmp_path, *map(operator, fresh)))
    assert states(proof) == ["initial"] * 4
    assert not any(layer.never_moved for layer in proof.layers)


def test_statistics_that_never_moved_are_a_faithful_fold(tmp_path: Path) -> None:
    """Stored equals initial: the conversion is confirmed, and that the model was never right is said."""
    layers = [replace(one, mean=one.mean * 0, variance=one.variance * 0 + 1) for one in net()]
    proof = prove(checkpoint(*layers), lite(tmp_path, *map(operator, layers)))
    assert states(proof) == ["stored"] * 4
    assert all(layer.never_moved for layer in proof.layers)


@pytest.mark.parametrize("statistics", [True, False])
def test_averaged_weights(tmp_path: Path, statistics: bool) -> None:  # noqa: FBT001 - parametrised
    """Averages of the weights, with averages of the statistics or with the stored ones."""
    layer = conv("a")
    moved, keys = averaged(layer, 5, statistics=statistics)
    found = only(prove(checkpoint(layer, **keys), lite(tmp_path, operator(moved))))
    assert (found.folded, found.weights) == ("shadow" if statistics else "stored", "shadow")


def test_averages_of_the_statistics_alone(tmp_path: Path) -> None:
    """Stored weights with averaged statistics are told as that."""
    layer = conv("a")
    moved, keys = averaged(layer, 5, statistics=True)
    mixed = replace(layer, mean=moved.mean, variance=moved.variance)
    found = only(prove(checkpoint(layer, **keys), lite(tmp_path, operator(mixed))))
    assert (found.folded, found.weights) == ("shadow", "stored")


def test_a_reference_explains_what_the_source_does_not(tmp_path: Path) -> None:
    """Another checkpoint's weights and statistics, or its statistics on the source's weights."""
    here, there = conv("a", seed=1), conv("a", seed=2)
    whole = only(prove(checkpoint(here), lite(tmp_path, operator(there)), reference=checkpoint(there)))
    assert (whole.folded, whole.weights) == ("reference", "reference")
    mixed = replace(here, mean=there.mean, variance=there.variance)
    part = only(prove(checkpoint(here), lite(tmp_path, operator(mixed)), reference=checkpoint(there)))
    assert (part.folded, part.weights) == ("reference", "stored")


def test_two_layers_with_swapped_statistics(tmp_path: Path) -> None:
    """Each is accused, and told whose statistics it holds."""
    layers = net()
    c, d = layers[2], layers[3]
    swapped = [replace(c, mean=d.mean, variance=d.variance), replace(d, mean=c.mean, variance=c.variance)]
    proof = prove(checkpoint(*layers), lite(tmp_path, *map(operator, [*layers[:2], *swapped])))
    assert states(proof) == ["stored", "stored", "other", "other"]
    assert [layer.why for layer in proof.layers[2:]] == [
        "the statistics of d/BatchNorm fit",
        "the statistics of c/BatchNorm fit",
    ]


def test_order_and_names_of_operators_do_not_matter(tmp_path: Path) -> None:
    """Operators are found by their kernels."""
    layers = net()
    operators = [operator(layer, name=f"op{n}") for n, layer in enumerate(layers)]
    proof = prove(checkpoint(*layers), lite(tmp_path, *reversed(operators)))
    assert states(proof) == ["stored"] * 4
    assert [layer.operator for layer in proof.layers] == ["op0", "op1", "op2", "op3"]


@pytest.mark.parametrize(("epsilon", "found"), [(1e-5, 1e-5), (1e-3, 1e-3), (2.5e-4, 2.5e-4), (0.0, 0.0)])
def test_an_unknown_epsilon_is_found(tmp_path: Path, epsilon: float, found: float) -> None:
    """A bare checkpoint tells none; scale and bias do, where variances are small enough to tell."""
    layer = conv("a", variance=np.geomspace(1e-4, 2, 8))
    proved = only(prove(checkpoint(layer), lite(tmp_path, operator(layer, epsilon))))
    assert (proved.folded, proved.epsilon, proved.epsilon_known) == ("stored", pytest.approx(found), None)


def test_dead_channels_hold_no_scale(tmp_path: Path) -> None:
    """A kernel of zeros confirms nothing but its bias; subnormal weights that float32 flushed are no difference."""
    layer = conv("a")
    kernel = layer.kernel.copy()
    kernel[..., 2] = 0
    kernel[..., 5] = 1e-40
    dead = replace(layer, kernel=kernel)
    file = operator(dead)
    flushed = file.kernel.copy()
    flushed[5] = 0
    assert only(prove(checkpoint(dead), lite(tmp_path, replace(file, kernel=flushed)))).folded == "stored"
    moved = np.where(np.arange(8) == 2, dead.mean + 1, dead.mean).astype(np.float32)
    assert only(prove(checkpoint(dead), lite(tmp_path, operator(replace(dead, mean=moved))))).folded == "other"


def test_another_run(tmp_path: Path) -> None:
    """Operators of the right shapes, with other kernels: other weights, near or far."""
    layer = conv("a")
    noise = np.random.default_rng(9).normal(size=layer.kernel.shape).astype(np.float32)
    near = only(prove(checkpoint(layer), lite(tmp_path, operator(replace(layer, kernel=layer.kernel + noise / 20)))))
    far = only(prove(checkpoint(layer), lite(tmp_path, operator(replace(layer, kernel=noise)))))
    assert (near.folded, near.weights, far.folded) == ("other", "other", "other")
    assert "another step of the same run" in near.why
    assert "another run or model" in far.why


def test_another_model(tmp_path: Path) -> None:
    """Shapes that do not agree: nothing is matched, and said why."""
    other = [conv("x", outputs=5), conv("y", inputs=5, outputs=6, size=1), conv("z", seed=7)]
    proof = prove(checkpoint(*net()), lite(tmp_path, *map(operator, other)))
    assert states(proof) == ["unmatched"] * 4
    assert {layer.why.rpartition(": ")[2] for layer in proof.layers} == {"it was converted from another model"}


def test_pruned_channels(tmp_path: Path) -> None:
    """An operator with fewer channels is no match for its layer, the others are."""
    layers = net()
    cut = operator(layers[2])
    file = lite(tmp_path, *map(operator, layers[:2]), replace(cut, kernel=cut.kernel[:6], bias=cut.bias[:6]))
    proof = prove(checkpoint(*layers), file)
    assert states(proof) == ["stored", "stored", "unmatched", "unmatched"]
    assert proof.layers[2].operator == ""
    assert "no operator has a kernel of 8 channels of 8 weights" in proof.layers[2].why


def test_missing_statistics_are_no_match(tmp_path: Path) -> None:
    """A checkpoint without a variance cannot be held against anything, and says so."""
    layers = net()
    whole = checkpoint(*layers)
    left = {name: whole.tensors[name].read() for name in whole.tensors if name != "c/BatchNorm/moving_variance"}
    proof = prove(of_arrays(left), lite(tmp_path, *map(operator, layers)))
    assert states(proof) == ["stored", "stored", "unmatched", "stored"]
    assert "variance is missing" in proof.layers[2].why


def test_arithmetic_left_behind_the_convolution(tmp_path: Path) -> None:
    """A convolution as it is, and batch norm as MUL and ADD behind it."""
    layer = conv("a")
    kernel, bias = fold(replace(layer, bias=None))
    scale = layer.gamma / np.sqrt(layer.variance + np.float32(1e-3))
    plain = np.moveaxis(layer.kernel, -1, 0)
    assert kernel == pytest.approx(plain * scale[:, None, None, None])
    steps = (("MUL", scale), ("ADD", bias))
    file = lite(tmp_path, Operator(kind="CONV_2D", name="net/a/Conv2D", kernel=plain, behind=steps))
    assert only(prove(checkpoint(layer), file)).folded == "stored"
    wrong = lite(
        tmp_path, Operator(kind="CONV_2D", name="net/a/Conv2D", kernel=plain, behind=(steps[0], ("ADD", -bias)))
    )
    assert only(prove(checkpoint(layer), wrong)).folded == "other"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_number_that_the_converter_took_in(tmp_path: Path, scheme: str) -> None:
    """Images scaled by 1 / 127.5 - 1 before the convolution, and a result times 2: no fault where they may stand."""
    layer = conv("a")
    kernel, bias = fold(layer)
    sums = kernel.reshape(8, -1).sum(axis=1)
    before = operator(layer, scheme=scheme, kernel=kernel / np.float32(127.5), bias=bias - sums)
    behind = operator(layer, scheme=scheme, kernel=kernel * np.float32(2), bias=bias * 2 + np.float32(0.5))
    for file in (before, behind):
        found = only(prove(checkpoint(layer), lite(tmp_path, file)))
        assert found.folded == "stored"
        assert "converter took in" in found.why


def test_a_second_scale_behind_the_layer(tmp_path: Path) -> None:
    """Caffe's way: batch norm without gamma and beta, and a scale layer behind, both in one operator."""
    layer = conv("a", gamma=np.ones(8), beta=np.zeros(8))
    kernel, bias = fold(layer)
    random = np.random.default_rng(3)
    scale, shift = random.normal(size=(2, 8)).astype(np.float32)
    file = operator(layer, kernel=kernel * scale[:, None, None, None], bias=bias * scale + shift)
    names = {"a__scale__w": scale, "a__scale__b": shift}
    model = checkpoint(layer, **names)
    found = only(prove(model, lite(tmp_path, file)))
    # a bare checkpoint does not tell what stands behind a layer, so the vectors that it holds may
    assert (found.folded, "a/scale/w plus a/scale/b" in found.why) == ("stored", True)
    assert only(prove(checkpoint(layer), lite(tmp_path, file))).folded == "other"


def test_two_layers_behind_one_kernel_of_which_no_name_tells(tmp_path: Path) -> None:
    """Bare weights say neither what lies before a layer nor behind it: the numbers of both explain the operator."""
    first, second, other = conv("a"), conv("b", seed=1), conv("c", seed=2, inputs=8)
    kernel, bias = fold(first)
    scale = second.gamma / np.sqrt(second.variance + np.float32(1e-3))
    both = operator(first, kernel=kernel * scale[:, None, None, None], bias=(bias - second.mean) * scale + second.beta)
    arrays = {f"kernels/{one.name}": one.kernel for one in (first, other)}
    for one, name in zip((first, second, other), "xyz", strict=True):
        vectors = {"gamma": one.gamma, "beta": one.beta, "moving_mean": one.mean, "moving_variance": one.variance}
        arrays |= {f"{name}/{role}": values for role, values in vectors.items()}
    proof = prove(of_arrays(arrays), lite(tmp_path, both, operator(other)))
    assert states(proof) == ["stored"] * 3
    assert [layer.operator for layer in proof.layers] == ["net/a/Conv2D", "net/a/Conv2D", "net/c/Conv2D"]
    assert [layer.why for layer in proof.layers] == [
        "together with y, which follows it",
        "together with x, which it follows",
        "",
    ]


def test_a_second_bias_behind_the_layer(tmp_path: Path) -> None:
    """A bias that is added to what batch norm gives is found among the model's vectors."""
    layer = conv("a")
    kernel, bias = fold(layer)
    shift = np.linspace(-1, 1, 8, dtype=np.float32)
    file = operator(layer, kernel=kernel, bias=bias + shift)
    found = only(prove(checkpoint(layer, a__output__biases=shift), lite(tmp_path, file)))
    assert (found.folded, found.why) == ("stored", "plus a/output/biases, which the model holds besides")
    assert only(prove(checkpoint(layer), lite(tmp_path, file))).folded == "other"


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_damaged_files(tmp_path: Path, scheme: str) -> None:
    """Whatever bytes are changed, the end is a named error or a proof of all layers."""
    layers = net()
    steps = (("MUL", np.ones(8)), ("ADD", np.ones(8)))
    whole = lite(tmp_path, *(operator(layer, scheme=scheme, behind=steps) for layer in layers)).path.read_bytes()
    model, random = checkpoint(*layers), np.random.default_rng(1)
    outcomes = set()
    for number in range(300):
        data = bytearray(whole)
        for place in random.integers(0, len(data), size=random.integers(1, 5)):
            data[place] = random.integers(0, 256)
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(data)
        try:
            outcomes.add(len(prove(model, _open(path)).layers))
        except ReadError as error:
            outcomes.add(type(error).__name__)
        path.unlink()
    assert {4, "Malformed"} <= outcomes


def test_a_layer_that_is_applied_twice(tmp_path: Path) -> None:
    """Both operators count; a second layer with the same kernel takes the operator that fits it."""
    layer = conv("a")
    twice = prove(checkpoint(layer), lite(tmp_path, operator(layer, name="one"), operator(layer, name="two")))
    assert (only(twice).operator, only(twice).why) == ("one", "and in 1 more operator")
    head = conv("b", seed=5, kernel=layer.kernel)
    both = prove(checkpoint(layer, head), lite(tmp_path, operator(head, name="one"), operator(layer, name="two")))
    assert [(found.folded, found.operator) for found in both.layers] == [("stored", "two"), ("stored", "one")]


def test_copies_of_a_layer(tmp_path: Path) -> None:
    """A target network's layers equal another's: one operator confirms both, and a third layer is not disturbed."""
    layer, other = conv("online"), conv("zother", seed=5)
    copy = replace(layer, name="target")
    proof = prove(checkpoint(layer, copy, other), lite(tmp_path, operator(layer), operator(other)))
    assert states(proof) == ["stored"] * 3
    assert [found.why for found in proof.layers] == ["", "the same numbers as another layer's", ""]


def test_not_a_lite_file(tmp_path: Path) -> None:
    """What is no TFLite file, or is one on both sides, is refused in one sentence."""
    file = lite(tmp_path, operator(conv("a")))
    with pytest.raises(UsageError, match="neither"):
        prove(checkpoint(conv("a")), checkpoint(conv("a")))
    with pytest.raises(UsageError, match="give the model that"):
        prove(file, file)


def test_no_batch_norm(tmp_path: Path) -> None:
    """A source without batch norm gives an empty proof."""
    empty = of_arrays({"a/weights": conv("a").kernel})
    assert prove(empty, lite(tmp_path, operator(conv("a")))).layers == ()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scheme=st.sampled_from(SCHEMES),
    epsilon=st.sampled_from((1e-3, 1e-5)),
    depthwise=st.booleans(),
)
def test_no_false_alarm(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    scheme: str,
    epsilon: float,
    depthwise: bool,  # noqa: FBT001 - parametrised
) -> None:
    """Whatever the numbers, also with ranges of six decades over channels, a faithful conversion is confirmed."""
    random = np.random.default_rng(seed)
    layer = conv(
        "a",
        seed=seed,
        inputs=8,
        depthwise=depthwise,
        variance=10.0 ** random.uniform(-6, 4, 8),
        gamma=random.normal(size=8) * 10.0 ** random.uniform(-3, 1, 8),
        mean=random.normal(size=8) * 10.0 ** random.uniform(-3, 2, 8),
        bias=random.normal(size=8),
    )
    folder = tmp_path_factory.mktemp("lite")
    found = only(prove(checkpoint(layer), lite(folder, operator(layer, epsilon, scheme=scheme))))
    assert found.folded == "stored"
    assert found.error <= found.tolerance


@pytest.mark.skipif(not VWW.exists(), reason="the real models are not at hand")
@pytest.mark.parametrize(("scheme", "error"), [("float", 1e-6), ("int8", 5e-3)])
def test_real_conversions_are_confirmed(scheme: str, error: float) -> None:
    """27 of 27 layers of a published MobileNet, most of whose channels are dead."""
    proof = prove(_open(VWW / "vww_96.h5"), _open(VWW / f"vww_96_{scheme}.tflite"))
    assert states(proof) == ["stored"] * 27
    assert max(layer.error for layer in proof.layers) <= error


@pytest.mark.skipif(not VWW.exists(), reason="the real models are not at hand")
@pytest.mark.parametrize("scheme", ["float", "int8"])
@pytest.mark.parametrize(("name", "change"), [("moving_variance", 1.5), ("moving_mean", 1.5), ("beta", 2.0)])
def test_a_changed_layer_of_a_real_model_is_named(tmp_path: Path, scheme: str, name: str, change: float) -> None:
    """One layer's vector changed in a copy of the model: that layer and no other is accused."""
    path = _changed(tmp_path, {f"batch_normalization_5/{name}": lambda values: values * change})
    proof = prove(_open(path), _open(VWW / f"vww_96_{scheme}.tflite"))
    assert [layer.layer for layer in proof.layers if layer.folded != "stored"] == ["batch_normalization_5"]


@pytest.mark.skipif(not VWW.exists(), reason="the real models are not at hand")
def test_two_layers_of_a_real_model_that_changed_places(tmp_path: Path) -> None:
    """Kernel, bias and batch norm of two layers of one shape exchanged: each folds rightly, in the other's place."""
    pairs = [("depthwise_conv2d_7", "depthwise_conv2d_8"), ("batch_normalization_15", "batch_normalization_17")]
    names = [("depthwise_kernel", "bias"), ("gamma", "beta", "moving_mean", "moving_variance")]
    changes: dict[str, Callable[[Any], Any]] = {}
    with h5py.File(VWW / "vww_96.h5") as file:
        for (one, other), weights in zip(pairs, names, strict=True):
            for here, there in ((one, other), (other, one)):
                for weight in weights:
                    values = file[f"model_weights/{there}/{there}/{weight}:0"][...]
                    changes[f"{here}/{weight}"] = lambda _, values=values: values
    proof = prove(_open(_changed(tmp_path, changes)), _open(VWW / "vww_96_float.tflite"))
    accused = {layer.layer: layer.why for layer in proof.layers if layer.folded != "stored"}
    assert set(accused) == {"batch_normalization_15", "batch_normalization_17"}
    assert "swapped with batch_normalization_17" in accused["batch_normalization_15"]


@pytest.mark.skipif(not VWW.exists(), reason="the real models are not at hand")
def test_a_uniform_shift_is_not_taken_for_arithmetic(tmp_path: Path) -> None:
    """Between convolution and ReLU nothing can be taken in: a beta that is 0.1 higher in all channels is a fault."""
    path = _changed(tmp_path, {"batch_normalization_5/beta": lambda values: values + 0.1})
    proof = prove(_open(path), _open(VWW / "vww_96_float.tflite"))
    assert [layer.layer for layer in proof.layers if layer.folded != "stored"] == ["batch_normalization_5"]


@pytest.mark.skipif(not VWW.exists(), reason="the real models are not at hand")
def test_real_files_that_do_not_belong_together() -> None:
    """The published keyword spotter's SavedModel and TFLite files are of two training runs; others of two models."""
    runs = prove(
        _open(REAL / "mlperf_tiny_kws" / "kws_ref_model"), _open(REAL / "mlperf_tiny_kws" / "kws_ref_model.tflite")
    )
    assert {(layer.folded, layer.weights) for layer in runs.layers} == {("other", "other")}
    models = prove(_open(VWW / "vww_96.h5"), _open(REAL / "basic_pitch" / "nmp.tflite"))
    assert set(states(models)) == {"unmatched"}


@pytest.mark.skipif(not VWW.exists(), reason="the real models are not at hand")
@pytest.mark.parametrize(
    ("source", "file", "layers"),
    [
        ("basic_pitch/nmp", "basic_pitch/nmp.tflite", 3),
        ("fer_emotion/emotion_model.hdf5", "fer_emotion/emotion_model_quantized.tflite", 14),
    ],
)
def test_more_real_conversions(source: str, file: str, layers: int) -> None:
    """A SavedModel with layers that stand as MUL and ADD; a Keras file against its dynamic-range conversion."""
    assert states(prove(_open(REAL / source), _open(REAL / file))) == ["stored"] * layers


def _open(path: Path) -> RawModel:
    return open_model(path, graph=None, use_graph=True)


def _changed(folder: Path, changes: dict[str, Callable[[Any], Any]]) -> Path:
    """A copy of the real model with weights changed."""
    path = folder / "changed.h5"
    shutil.copyfile(VWW / "vww_96.h5", path)
    with h5py.File(path, "r+") as file:
        for name, change in changes.items():
            layer, weight = name.split("/")
            stored = file[f"model_weights/{layer}/{layer}/{weight}:0"]
            stored[...] = change(stored[...])
    return path
