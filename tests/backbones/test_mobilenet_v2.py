"""MobileNetV2 in TF-slim: the paper's shapes and counts, the public checkpoints' names."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

STRIDES = [2, 2, 4, 4, 8, 8, 8, 16, 16, 16, 16, 16, 16, 16, 32, 32, 32, 32, 32]
DEPTHS = {
    1.0: [32, 16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320, 1280],
    0.35: [16, 8, 8, 8, 16, 16, 16, 24, 24, 24, 24, 32, 32, 32, 56, 56, 56, 112, 1280],
    1.4: [48, 24, 32, 32, 48, 48, 48, 88, 88, 88, 88, 136, 136, 136, 224, 224, 224, 448, 1792],
}


@pytest.fixture(scope="module")
def net() -> ModuleType:
    """The module, imported where TensorFlow is there."""
    pytest.importorskip("tf_slim")
    from bncheck.backbones import mobilenet_v2

    return mobilenet_v2


@functools.cache
def built(net: ModuleType, *, size: int = 224, is_training: bool = True, **arguments: Any) -> Any:
    """(first result, end points, graph) in a graph of its own."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, [1, size, size, 3])
        with net.slim.arg_scope(net.training_scope(is_training=is_training)):
            first, end_points = net.mobilenet(images, **arguments)
    return first, end_points, graph


def layers(end_points: Any) -> list[tuple[int, int]]:
    """(height, depth) of layer_1 to layer_19."""
    return [(end_points[f"layer_{n}"].shape[1], end_points[f"layer_{n}"].shape[3]) for n in range(1, 20)]


@pytest.mark.parametrize("multiplier", sorted(DEPTHS))
def test_end_points_have_the_shapes_of_table_2(net: ModuleType, multiplier: float) -> None:
    """At 224 every layer has the paper's resolution and the depth of the multiplier, rounded to 8."""
    logits, end_points, _ = built(net, depth_multiplier=multiplier)
    assert layers(end_points) == [(224 // s, d) for s, d in zip(STRIDES, DEPTHS[multiplier], strict=True)]
    assert logits.shape == (1, 1001)
    assert end_points["layer_8/expansion_output"].shape[1:] == (28, 28, DEPTHS[multiplier][6] * 6)
    assert end_points["layer_8/depthwise_output"].shape[1:] == (14, 14, DEPTHS[multiplier][6] * 6)
    assert "layer_2/expansion_output" not in end_points


def test_counts_are_the_published_ones(net: ModuleType) -> None:
    """3,506,153 trained parameters and about 300 M multiply-adds at 1.0 and 224, and 52 batch norms, 104 updates."""
    _, _, graph = built(net)
    trained = graph.get_collection("trainable_variables")
    assert sum(math.prod(v.shape) for v in trained) == 3_506_153
    assert len(graph.get_collection("update_ops")) == 2 * net.BATCH_NORMS == 104
    assert multiply_adds(graph) == pytest.approx(300.8e6, rel=0.01)


def multiply_adds(graph: Any) -> int:
    """Of all convolutions: output positions times output depth times kernel volume."""
    total = 0
    for op in graph.get_operations():
        if op.type in ("Conv2D", "DepthwiseConv2dNative"):
            height, width, depth, _ = op.inputs[1].shape
            one = height * width * (depth if op.type == "Conv2D" else 1)
            total += math.prod(op.outputs[0].shape) * one
    return total


def test_variables_carry_the_public_checkpoints_names(net: ModuleType) -> None:
    """Scopes are those of the public checkpoints, the first block has no expansion, batch norm has all four."""
    _, _, graph = built(net)
    names = {v.op.name for v in graph.get_collection("variables")}
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    blocks = ["expanded_conv", *(f"expanded_conv_{n}" for n in range(1, 17))]
    parts = [f"{b}/{part}" for b in blocks for part in ("expand", "depthwise", "project")][1:]
    expected = {f"MobilenetV2/{scope}/BatchNorm/{v}" for scope in ["Conv", *parts, "Conv_1"] for v in norm}
    expected |= {
        f"MobilenetV2/{scope}/{'depthwise_weights' if scope.endswith('depthwise') else 'weights'}"
        for scope in ["Conv", *parts, "Conv_1"]
    }
    expected |= {f"MobilenetV2/Logits/Conv2d_1c_1x1/{v}" for v in ("weights", "biases")}
    assert names == expected


def test_residuals_are_where_stride_and_depth_allow(net: ModuleType) -> None:
    """Ten of the 17 blocks add their input: those of stride 1 that keep their depth."""
    _, _, graph = built(net)
    added = [
        op.name.split("/")[1] for op in graph.get_operations() if op.name.endswith("/add") and "expanded" in op.name
    ]
    assert added == [f"expanded_conv_{n}" for n in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)]


def test_layer_20_is_another_name_of_layer_19(net: ModuleType) -> None:
    """The name of many a tutorial works as final end point and in lookups, and is not listed."""
    features, end_points, _ = built(net, final_endpoint="layer_20")
    assert features is end_points["layer_20"] is end_points["layer_19"] is end_points.get("layer_20")
    assert "layer_20" in end_points
    assert "layer_20" not in list(end_points)
    assert "layer_21" not in end_points
    assert end_points.get("layer_21") is None
    with pytest.raises(KeyError):
        end_points["layer_21"]


def test_final_endpoint_ends_the_network(net: ModuleType) -> None:
    """Nothing after the named end point is built, inner end points of a block included."""
    features, end_points, graph = built(net, final_endpoint="layer_15/expansion_output")
    assert features.shape == (1, 14, 14, 576)
    assert "layer_16" not in end_points
    assert not any("expanded_conv_14/" in v.name for v in graph.get_collection("variables"))


@pytest.mark.parametrize("wrong", ["layer_0", "layer_21", "Conv", "layer_2/expansion_output"])
def test_unknown_final_endpoint_is_refused(net: ModuleType, wrong: str) -> None:
    """A name that does not exist is an error that repeats it."""
    with pytest.raises(ValueError, match=wrong):
        built(net, final_endpoint=wrong)


@pytest.mark.parametrize(
    ("arguments", "what"), [({"depth_multiplier": 0}, "depth_mult"), ({"output_stride": 3}, "stride")]
)
def test_impossible_arguments_are_refused(net: ModuleType, arguments: dict[str, Any], what: str) -> None:
    """Multiplier zero and a stride that is no power of two are errors that name the argument."""
    with pytest.raises(ValueError, match=what):
        built(net, **arguments)


@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride_dilates_instead_of_shrinking(net: ModuleType, stride: int) -> None:
    """Resolution stops at the stride, depths and variables stay, so that the same checkpoint fits."""
    _, plain, _ = built(net, final_endpoint="layer_19")
    _, dilated, graph = built(net, final_endpoint="layer_19", output_stride=stride)
    assert layers(dilated) == [(max(h, 224 // stride), d) for h, d in layers(plain)]
    types = [op.type for op in graph.get_operations()]
    assert types.count("DepthwiseConv2dNative") == 17
    assert "SpaceToBatchND" in types or any(
        max(op.get_attr("dilations")) > 1 for op in graph.get_operations() if op.type == "DepthwiseConv2dNative"
    )


def test_multiplier_without_finegrain_narrows_the_last_convolution(net: ModuleType) -> None:
    """As the public function's default does: 448 channels at 0.35."""
    features, _, _ = built(net, num_classes=None, depth_multiplier=0.35, finegrain_classification_mode=False)
    assert features.shape == (1, 1, 1, 448)


def test_rounding_never_loses_more_than_a_tenth(net: ModuleType) -> None:
    """Multiples of 8, at least the least, never below 90 % of what was asked."""
    assert [net.rounded_depth(d) for d in (3, 8, 11.2, 11.9, 12, 33.6, 44.8)] == [8, 8, 16, 16, 16, 32, 48]
    assert net.rounded_depth(5, divisible_by=1, least=1) == 5
    assert all(net.rounded_depth(d) >= 0.9 * d and net.rounded_depth(d) % 8 == 0 for d in range(1, 400))


def test_scope_decides_the_mode_and_the_decay(net: ModuleType) -> None:
    """Training: 52 fused ops in training mode, epsilon 1e-3, and their updates; inference: no updates, no dropout."""
    _, _, training = built(net)
    _, _, inference = built(net, is_training=False)
    for graph, mode in ((training, True), (inference, False)):
        fused = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
        assert [op.get_attr("is_training") for op in fused] == [mode] * 52
        assert {round(op.get_attr("epsilon"), 9) for op in fused} == {1e-3}
    assert len(training.get_collection("update_ops")) == 104
    assert not inference.get_collection("update_ops")
    assert not [op for op in inference.get_operations() if op.type == "RandomUniform" and "ropout" in op.name]
    assert len(training.get_collection("regularization_losses")) == 1 + 16 + 17 + 1 + 1


def test_reuse_shares_every_variable(net: ModuleType) -> None:
    """A second network in the same graph adds no variable when told to reuse."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, [1, 64, 64, 3])
        with net.slim.arg_scope(net.training_scope()):
            net.mobilenet(images, 10, depth_multiplier=0.35)
            before = len(graph.get_collection("variables"))
            with net.slim.arg_scope([net.slim.batch_norm], is_training=False):
                net.mobilenet(images, 10, depth_multiplier=0.35, reuse=True)
    assert len(graph.get_collection("variables")) == before == 52 * 5 + 2


def test_slim_compat_leaves_tensorflow_as_it_was() -> None:
    """All layers that were broken work, twice loaded is once, and neither `sys.modules` nor `ops` keeps a shim."""
    pytest.importorskip("tf_slim")
    code = """
import sys, tensorflow as tf
from tensorflow.python.framework import ops
had_tensor = hasattr(ops, "Tensor")
from bncheck.backbones.slim_compat import load_slim, load_tf_layers
slim = load_slim()
assert slim is load_slim() and slim is sys.modules["tf_slim"]
assert hasattr(ops, "Tensor") == had_tensor
try:
    import tf_keras.legacy_tf_layers
except ModuleNotFoundError:
    assert not [name for name in sys.modules if name.startswith("tf_keras.legacy_tf_layers")]
with tf.Graph().as_default():
    x = tf.compat.v1.placeholder(tf.float32, [2, 8, 8, 3])
    net = slim.fully_connected(slim.flatten(slim.batch_norm(slim.conv2d(x, 8, 3))), 2)
    loss = tf.reduce_mean(load_tf_layers().batch_normalization(net, training=True))
    slim.learning.create_train_op(loss, tf.compat.v1.train.GradientDescentOptimizer(0.1), gradient_multipliers={
        tf.compat.v1.trainable_variables()[0]: 2.0})
    slim.local_variable(0.0)
    slim.dropout(slim.batch_norm(x, is_training=tf.compat.v1.placeholder(tf.bool)), is_training=True)
    slim.optimize_loss(loss, tf.compat.v1.train.get_or_create_global_step(), 0.1, "SGD")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_explicit_padding_pads_all_sides_alike(net: ModuleType) -> None:
    """Same shapes at even sizes; each kernel of 3 gets a border of zeros and no padding of its own."""
    _, plain, _ = built(net)
    _, padded, graph = built(net, use_explicit_padding=True)
    assert layers(padded) == layers(plain)
    ops = graph.get_operations()
    wide = [op for op in ops if op.type in ("Conv2D", "DepthwiseConv2dNative") and op.inputs[1].shape[0] == 3]
    assert [op.get_attr("padding") for op in wide] == [b"VALID"] * 18
    assert len([op for op in ops if op.type == "Pad"]) == 18


def test_explicit_padding_is_another_network_where_strides_meet_even_sizes(net: ModuleType) -> None:
    """A kernel of stride 2 starts one pixel earlier on an even size; on an odd one nothing changes."""
    import numpy as np
    import tensorflow as tf

    def first_layer(size: int, *, pads: bool) -> Any:
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            v1.set_random_seed(3)
            fed = tf.constant(np.random.default_rng(0).normal(size=(1, size, size, 3)).astype(np.float32))
            with net.slim.arg_scope(net.training_scope(is_training=False)):
                out, _ = net.mobilenet_base(fed, final_endpoint="layer_1", use_explicit_padding=pads)
            session.run(v1.global_variables_initializer())
            for variable in v1.global_variables():
                if variable.op.name.endswith("/weights"):
                    variable.load(np.random.default_rng(1).normal(size=variable.shape).astype(np.float32), session)
            return session.run(out)

    np.testing.assert_allclose(first_layer(9, pads=True), first_layer(9, pads=False), atol=1e-5)
    assert np.abs(first_layer(8, pads=True) - first_layer(8, pads=False)).max() > 0.1


def test_explicit_padding_covers_dilated_kernels(net: ModuleType) -> None:
    """With an output stride the border grows with the dilation, so that resolution stays."""
    _, plain, _ = built(net, output_stride=8, final_endpoint="layer_19")
    _, padded, _ = built(net, output_stride=8, final_endpoint="layer_19", use_explicit_padding=True)
    assert layers(padded) == layers(plain)


@pytest.mark.parametrize(("size", "padded"), [((96, 64), (96, 64)), ((97, 63), (128, 64)), ((1, 32), (32, 32))])
def test_images_are_padded_to_a_multiple_of_32(net: ModuleType, size: tuple[int, int], padded: tuple[int, int]) -> None:
    """Below and to the right, with zeros, whether the size is known when the graph is built or only when it runs."""
    import numpy as np
    import tensorflow as tf

    v1 = tf.compat.v1
    batch = np.ones((2, *size, 3), np.float32)
    with tf.Graph().as_default(), v1.Session() as session:
        known = net.pad_to_multiple(v1.placeholder(tf.float32, [None, *size, 3]))
        assert known.shape.as_list() == [None, *padded, 3]
        fed = v1.placeholder(tf.float32, [None, None, None, 3])
        found = session.run(net.pad_to_multiple(fed), {fed: batch})
    assert found.shape == (2, *padded, 3)
    assert found[:, : size[0], : size[1]].min() == 1
    assert found.sum() == batch.sum()
    with pytest.raises(ValueError, match="multiple"):
        net.pad_to_multiple(known, 0)


def test_least_depth_and_divisor_are_obeyed(net: ModuleType) -> None:
    """`min_depth` holds narrow networks up, `divisible_by` sets the grid of depths, the expanded ones included."""
    _, narrow, graph = built(net, size=64, depth_multiplier=0.1, min_depth=16, divisible_by=4)
    assert {depth % 4 for _, depth in layers(narrow)} == {0}
    assert [depth for _, depth in layers(narrow)][:7] == [16] * 7
    kernels = {v.op.name: v.shape.as_list() for v in graph.get_collection("variables")}
    assert kernels["MobilenetV2/expanded_conv_1/expand/weights"] == [1, 1, 16, 96]


def test_scope_takes_another_epsilon(net: ModuleType) -> None:
    """For checkpoints that were trained with one of their own."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        with net.slim.arg_scope(net.training_scope(bn_epsilon=1e-5)):
            net.mobilenet(tf.zeros([1, 32, 32, 3]), 2, depth_multiplier=0.35)
        fused = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
    assert {round(op.get_attr("epsilon"), 9) for op in fused} == {1e-5}


def test_block_depths_are_the_tables(net: ModuleType) -> None:
    """What tells the multiplier of a checkpoint: depths of layer_1 to layer_18."""
    for multiplier, depths in DEPTHS.items():
        assert list(net.block_depths(multiplier)) == depths[:-1]
