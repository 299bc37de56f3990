"""MobileNetV2 in TF-slim, written after the paper (Sandler et al., arXiv 1801.04381, table 2).

Variables carry the names of the public checkpoints (`MobilenetV2/expanded_conv_3/depthwise/BatchNorm/moving_mean`),
so that those can be restored; end points are called `layer_1` to `layer_19` as there. A network is built inside
`slim.arg_scope(training_scope(...))`, which decides whether its 52 batch norms train:

    slim = load_slim()
    with slim.arg_scope(training_scope(is_training=True)):
        logits, end_points = mobilenet(images, num_classes=1001)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import tensorflow as tf

from bncheck.backbones.slim_compat import load_slim

slim = load_slim()
v1 = tf.compat.v1

Tensor: TypeAlias = Any
"""tf.Tensor; images and activations are (batch, height, width, channels)."""

BATCH_NORMS = 52
LAST_LAYER = "layer_19"
ALIASES = {"layer_20": LAST_LAYER}
"""The public code's own text, and many a tutorial, calls the last convolution `layer_20`; it counts to 19."""


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A full convolution with batch norm and ReLU6."""

    depth: int
    kernel: int
    stride: int = 1


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """An inverted residual with linear projection: expand 1x1, depthwise 3x3, project 1x1."""

    depth: int
    expansion: int = 6
    stride: int = 1


Layer: TypeAlias = Conv | Bottleneck


def _repeated(first: Bottleneck, times: int) -> tuple[Bottleneck, ...]:
    """One line of the table: only the first of a group has the stride."""
    return (first, *(replace(first, stride=1) for _ in range(times - 1)))


LAYERS: tuple[Layer, ...] = (
    Conv(depth=32, kernel=3, stride=2),
    *_repeated(Bottleneck(depth=16, expansion=1), 1),
    *_repeated(Bottleneck(depth=24, stride=2), 2),
    *_repeated(Bottleneck(depth=32, stride=2), 3),
    *_repeated(Bottleneck(depth=64, stride=2), 4),
    *_repeated(Bottleneck(depth=96), 3),
    *_repeated(Bottleneck(depth=160, stride=2), 3),
    *_repeated(Bottleneck(depth=320), 1),
    Conv(depth=1280, kernel=1),
)
"""Table 2: layer_1 to layer_19."""


class EndPoints(dict[str, Tensor]):
    """End point name -> activation; a name in ALIASES is found too, but not listed twice."""

    def __getitem__(self, name: str) -> Tensor:
        return super().__getitem__(ALIASES.get(name, name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(ALIASES.get(name, name) if isinstance(name, str) else name)

    def get(self, name: str, default: Any = None) -> Any:
        """The activation of that name or alias, else `default`."""
        return super().get(ALIASES.get(name, name), default)


def training_scope(
    *,
    is_training: bool | Tensor | None = True,
    bn_decay: float = 0.997,
    bn_epsilon: float = 1e-3,
    weight_decay: float = 0.00004,
    stddev: float = 0.09,
    dropout_keep_prob: float = 0.8,
) -> Any:
    """Argument scope for training or, with `is_training=False`, for inference.

    `bn_decay` is TensorFlow's (0.997 keeps 99.7 % of the moving statistics at each update). `stddev` is that of the
    truncated normal the kernels start from; negative: Glorot's uniform. `is_training=None` leaves the mode to whoever
    calls the network. Depthwise kernels are not regularised, as in the paper's predecessor (arXiv 1704.04861, 3.2).
    """
    mode = {} if is_training is None else {"is_training": is_training}
    kernels = v1.glorot_uniform_initializer() if stddev < 0 else v1.truncated_normal_initializer(stddev=stddev)
    with (
        slim.arg_scope([slim.conv2d, slim.separable_conv2d], weights_initializer=kernels),
        slim.arg_scope([slim.conv2d], weights_regularizer=slim.l2_regularizer(weight_decay)),
        slim.arg_scope([slim.separable_conv2d], weights_regularizer=None),
        slim.arg_scope([slim.batch_norm], decay=bn_decay, epsilon=bn_epsilon, center=True, scale=True, **mode),
        slim.arg_scope([slim.dropout], keep_prob=dropout_keep_prob, **mode) as scope,
    ):
        return scope


def mobilenet(
    images: Tensor,
    num_classes: int | None = 1001,
    *,
    prediction_fn: Callable[[Tensor, str], Tensor] | None = None,
    reuse: bool | None = None,
    scope: str = "MobilenetV2",
    **base: Any,
) -> tuple[Tensor, EndPoints]:
    """(logits of shape (batch, num_classes), end points) for images in [-1, 1].

    Without `num_classes` the first value is the pooled features, (batch, 1, 1, depth of the last layer). `base` are
    keywords of `mobilenet_base`; with `final_endpoint` the network ends there and that activation is the first value.
    """
    with v1.variable_scope(scope, "MobilenetV2", [images], reuse=reuse) as variables:
        net, end_points = mobilenet_base(images, scope=variables, **base)
        if base.get("final_endpoint") is not None:
            return net, end_points
        with v1.variable_scope("Logits"):
            net = v1.reduce_mean(net, axis=[1, 2], keepdims=True, name="global_pool")
            end_points["global_pool"] = net
            if not num_classes:
                return net, end_points
            net = slim.dropout(net, scope="Dropout")
            net = slim.conv2d(
                net,
                num_classes,
                [1, 1],
                activation_fn=None,
                normalizer_fn=None,
                biases_initializer=v1.zeros_initializer(),
                scope="Conv2d_1c_1x1",
            )
            logits = v1.squeeze(net, [1, 2])
        logits = tf.identity(logits, name="output")
        end_points["Logits"] = logits
        end_points["Predictions"] = (prediction_fn or slim.softmax)(logits, "Predictions")
    return logits, end_points


def mobilenet_base(
    images: Tensor,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    divisible_by: int = 8,
    final_endpoint: str | None = None,
    output_stride: int | None = None,
    finegrain_classification_mode: bool = True,
    use_explicit_padding: bool = False,
    reuse: bool | None = None,
    scope: Any = "MobilenetV2",
) -> tuple[Tensor, EndPoints]:
    """(activation of `final_endpoint`, end points so far): the network without its classifier.

    `depth_multiplier` scales every depth, rounded to `divisible_by` but no less than `min_depth`; with
    `finegrain_classification_mode` multipliers below 1 leave the last convolution at its 1280 channels (section 4 of
    the paper). `output_stride` (a power of two up to 32) stops the shrinking there and dilates depthwise kernels.
    `use_explicit_padding` pads all sides alike before a kernel and then convolves without padding; TensorFlow's "SAME"
    pads only below and to the right where a stride of 2 meets an even size, so that the two are different networks.
    Raises ValueError for a multiplier that is not positive, another stride or an unknown end point.
    """
    if depth_multiplier <= 0:
        raise ValueError(f"depth_multiplier must be above 0, not {depth_multiplier}")
    if output_stride is not None and output_stride not in (1, 2, 4, 8, 16, 32):
        raise ValueError(f"output_stride must be 1, 2, 4, 8, 16 or 32, not {output_stride}")
    last = LAST_LAYER if final_endpoint is None else ALIASES.get(final_endpoint, final_endpoint)
    if last.split("/")[0] not in {f"layer_{number}" for number in range(1, len(LAYERS) + 1)}:
        raise ValueError(f"final_endpoint {final_endpoint!r} is not one of layer_1 to {LAST_LAYER}")

    end_points = EndPoints()
    net, stride, rate, block = images, 1, 1, 0
    padding = "VALID" if use_explicit_padding else "SAME"
    with (
        v1.variable_scope(scope, "MobilenetV2", [images], reuse=reuse) as variables,
        v1.name_scope(variables.original_name_scope),
        slim.arg_scope([slim.conv2d, slim.separable_conv2d], padding=padding),
    ):
        for number, layer in enumerate(LAYERS, start=1):
            keeps_depth = finegrain_classification_mode and number == len(LAYERS)
            multiplier = max(depth_multiplier, 1.0) if keeps_depth else depth_multiplier
            depth = rounded_depth(layer.depth * multiplier, divisible_by=divisible_by, least=min_depth)
            dilates = output_stride is not None and stride == output_stride
            step = 1 if dilates else layer.stride
            name = f"layer_{number}"
            if isinstance(layer, Conv):
                conv_scope = "Conv" if number == 1 else "Conv_1"
                net = _padded(net, layer.kernel) if use_explicit_padding else net
                end_points[name] = net = _conv(net, depth, layer.kernel, stride=step, scope=conv_scope)
            else:
                inner = _expanded_depth(net, layer.expansion, divisible_by)
                parts = _bottleneck(
                    net,
                    inner,
                    depth,
                    stride=step,
                    rate=rate,
                    pads=use_explicit_padding,
                    scope=_numbered("expanded_conv", block),
                )
                end_points |= {f"{name}/{part}": tensor for part, tensor in parts.items()}
                end_points[name] = net = parts["output"]
                block += 1
            stride, rate = stride * step, rate * (layer.stride if dilates else 1)
            if last.split("/")[0] == name:
                break
        if last not in end_points:
            raise ValueError(f"final_endpoint {final_endpoint!r} does not exist; available: {', '.join(end_points)}")
    return end_points[last], end_points


def rounded_depth(depth: float, *, divisible_by: int = 8, least: int = 8) -> int:
    """The multiple of `divisible_by` nearest to `depth`, at least `least`, never more than 10 % below `depth`."""
    nearest = max(least, int(depth + divisible_by / 2) // divisible_by * divisible_by)
    return nearest + divisible_by if nearest < 0.9 * depth else nearest


def block_depths(multiplier: float, *, divisible_by: int = 8, least: int = 8) -> tuple[int, ...]:
    """Depths of layer_1 to layer_18: the first convolution and the 17 blocks."""
    return tuple(
        rounded_depth(layer.depth * multiplier, divisible_by=divisible_by, least=least) for layer in LAYERS[:-1]
    )


def pad_to_multiple(images: Tensor, multiple: int = 32) -> Tensor:
    """(batch, height, width, channels) with zeros below and to the right until both sizes are multiples of `multiple`.

    So that every layer's grid covers the image exactly, as box predictors need. Raises ValueError for a multiple < 1.
    """
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, not {multiple}")
    dynamic = tf.shape(images)
    paddings = []
    for axis in (1, 2):
        size = images.shape[axis] if images.shape[axis] is not None else dynamic[axis]
        paddings.append([0, -size % multiple])
    return tf.pad(images, [[0, 0], *paddings, [0, 0]])


def _padded(net: Tensor, kernel: int, rate: int = 1) -> Tensor:
    """Zeros on all four sides, half of what the dilated kernel reaches over: the kernel is odd."""
    reach = (kernel - 1) * rate // 2
    return tf.pad(net, [[0, 0], [reach, reach], [reach, reach], [0, 0]]) if reach else net


def _expanded_depth(net: Tensor, expansion: int, divisible_by: int) -> int:
    depth = int(net.shape[-1])
    return depth if expansion == 1 else rounded_depth(depth * expansion, divisible_by=divisible_by)


def _conv(net: Tensor, depth: int, kernel: int, *, stride: int, scope: str) -> Tensor:
    return slim.conv2d(
        net,
        depth,
        [kernel, kernel],
        stride=stride,
        normalizer_fn=slim.batch_norm,
        activation_fn=tf.nn.relu6,
        scope=scope,
    )


def _bottleneck(
    net: Tensor, inner: int, depth: int, *, stride: int, rate: int, pads: bool, scope: str
) -> dict[str, Tensor]:
    """Part name -> activation; "output" is the block's. Expands only where `inner` is more than what comes in."""
    incoming = int(net.shape[-1])
    parts: dict[str, Tensor] = {}
    with v1.variable_scope(scope):
        parts["input"] = shortcut = tf.identity(net, name="input")
        if inner > incoming:
            net = _conv(shortcut, inner, 1, stride=1, scope="expand")
            parts["expansion_output"] = net = tf.identity(net, name="expansion_output")
        net = slim.separable_conv2d(
            _padded(net, 3, rate) if pads else net,
            None,
            [3, 3],
            depth_multiplier=1,
            stride=stride,
            rate=rate,
            normalizer_fn=slim.batch_norm,
            activation_fn=tf.nn.relu6,
            scope="depthwise",
        )
        parts["depthwise_output"] = net = tf.identity(net, name="depthwise_output")
        net = slim.conv2d(net, depth, [1, 1], normalizer_fn=slim.batch_norm, activation_fn=None, scope="project")
        parts["projection_output"] = net = tf.identity(net, name="projection_output")
        if stride == 1 and depth == incoming:
            net = v1.add(net, shortcut, name="add")
        parts["output"] = tf.identity(net, name="output")
    return parts


def _numbered(name: str, number: int) -> str:
    return name if number == 0 else f"{name}_{number}"
