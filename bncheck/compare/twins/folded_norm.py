"""One batch norm of a twin that the graph folds into its convolution: quantization-aware training (recognise/folded).

Both twins round the folded weights, which are scaled with the *stored* deviation in either, as training scales them so
that their grid does not jump with the batch:

- `eval`: `linear(x, round(w * gamma / s)) + beta - m * gamma / s` with the stored mean m and deviation s, rounded
  within the stored range. That is the served graph, and training from the freeze step on.
- `train`: `linear(x, round(w * gamma / s)) * s / s_b + beta - m_b * gamma / s_b` with mean m_b and deviation s_b of
  what the unrounded weights give on the batch, rounded within the range that the weights have, for training records it
  anew in every step. That is training before the freeze step, and stays what train mode means after it: the question
  is whether the stored statistics stand for the data. Ranges of activations are the stored ones in both.
"""

from __future__ import annotations

import numpy as np

from bncheck.compare.twins.norm import Normalised, reduced, stored_statistics
from bncheck.compare.twins.ops import weights_of
from bncheck.compare.twins.writer import EVAL, FLOAT, INT32, TwinWriter
from bncheck.facts.errors import BncheckError
from bncheck.recognise.graph.flat import node_of
from bncheck.recognise.graph.folded import Fold
from bncheck.recognise.graph.trace import sources

_DEPTHWISE = "DepthwiseConv2dNative"
_COPIED = ("strides", "padding", "dilations", "data_format", "explicit_paddings", "transpose_a", "transpose_b", "T")


def write_folded(writer: TwinWriter, node: int) -> Normalised:
    """Writes a folded batch norm under the name of the op that adds its bias. Raises as `write_norm` does."""
    paired, layer = writer.plan.sites[node]
    fold, site = paired.site.fold, paired.site
    assert fold is not None
    name, flat = writer.name(node), writer.plan.view.flat
    shape = _kernel_shape(writer, fold)
    axis, along = _axis(writer, fold)
    x, kernel = writer.tensor(fold.x), writer.tensor(fold.kernel)
    mean, variance = stored_statistics(writer, name, layer, (-1,))
    gamma = None if site.gamma is None else writer.tensor(site.gamma)
    beta = None if site.beta is None else writer.tensor(site.beta)
    inverse = _inverse(writer, f"{name}/stored", variance, site.epsilon)
    scale = inverse if gamma is None else writer.node(f"{name}/scale", "Mul", [inverse, gamma], T=FLOAT)
    turned = shape[2:4] if flat.ops[fold.linear] == _DEPTHWISE else (-1,)
    weights = writer.node(
        f"{name}/folded", "Mul", [kernel, _reshaped(writer, f"{name}/as_kernel", scale, turned)], T=FLOAT
    )
    if fold.fake_quant is not None:
        weights = _rounded(writer, f"{name}/rounded", weights, fold.fake_quant, rank=len(shape))
    y = _linear(writer, f"{name}/linear", fold, x, weights)
    vectors = {"scale": scale, "mean": mean}
    if writer.twin == EVAL:
        batch = Normalised(output=f"{name}:0", input=y, mean=mean, variance=variance, corrected=False, axis=axis)
    else:
        batch = _moments(writer, name, _linear(writer, f"{name}/unrounded", fold, x, kernel), along, axis)
        flat_mean = _reshaped(writer, f"{name}/batch/mean", batch.mean, (-1,))
        flat_variance = _reshaped(writer, f"{name}/batch/variance", batch.variance, (-1,))
        of_batch = _inverse(writer, f"{name}/batch", flat_variance, site.epsilon)
        ratio = writer.node(f"{name}/correction", "RealDiv", [of_batch, inverse], T=FLOAT)
        y = writer.node(f"{name}/corrected", "Mul", [y, _reshaped(writer, f"{name}/ratio", ratio, along)], T=FLOAT)
        vectors = {"scale": writer.node(f"{name}/batch/scale", "Mul", [scale, ratio], T=FLOAT), "mean": flat_mean}
    shift = writer.node(f"{name}/shift", "Mul", [vectors["mean"], vectors["scale"]], T=FLOAT)
    if beta is None:
        bias = writer.node(f"{name}/bias", "Neg", [shift], T=FLOAT)
    else:
        bias = writer.node(f"{name}/bias", "Sub", [beta, shift], T=FLOAT)
    writer.node(name, "AddV2", [y, _reshaped(writer, f"{name}/offset", bias, along)], T=FLOAT)
    return batch


def _kernel_shape(writer: TwinWriter, fold: Fold) -> tuple[int, ...]:
    """As it is stored. Raises BncheckError where it is not at hand."""
    found = sources(writer.plan.view.flat, fold.kernel)
    if len(found) != 1:
        raise BncheckError(
            f"{writer.plan.view.flat.names[fold.linear]}: batch norm is folded into weights that are stored in parts, "
            "which compare cannot join"
        )
    return tuple(weights_of(writer, node_of(found[0])).shape)


def _axis(writer: TwinWriter, fold: Fold) -> tuple[int, tuple[int, ...]]:
    """(axis of the channels in the output, shape in which a vector meets it)."""
    layout = writer.plan.view.flat.attr(fold.linear, "data_format")
    first = layout is not None and layout.s.startswith(b"NC")
    return (1, (1, -1, 1, 1)) if first else (-1, (-1,))


def _inverse(writer: TwinWriter, name: str, variance: str, epsilon: float | None) -> str:
    added = writer.constant(f"{name}/epsilon", np.array(epsilon or 0.0, np.float32))
    return writer.node(
        f"{name}/rsqrt", "Rsqrt", [writer.node(f"{name}/add", "AddV2", [variance, added], T=FLOAT)], T=FLOAT
    )


def _reshaped(writer: TwinWriter, name: str, vector: str, shape: tuple[int, ...]) -> str:
    wanted = writer.constant(f"{name}/shape", np.array(shape, np.int32))
    return writer.node(name, "Reshape", [vector, wanted], T=FLOAT, Tshape=INT32)


def _linear(writer: TwinWriter, name: str, fold: Fold, x: str, kernel: str) -> str:
    """The linear op on another kernel, and what moves its values about after it."""
    flat = writer.plan.view.flat
    proto = writer.graph_def.node.add(name=name, op=flat.ops[fold.linear], input=[x, kernel])
    for key in _COPIED:
        value = flat.attr(fold.linear, key)
        if value is not None:
            proto.attr[key].CopyFrom(value)
    for number, node in enumerate(fold.after):
        others = [writer.tensor(e) for e in flat.data[node][1:]]
        following = writer.graph_def.node.add(name=f"{name}/{number}", op=flat.ops[node], input=[proto.name, *others])
        for key, value in flat.proto(node).attr.items():
            if not key.startswith("_"):
                following.attr[key].CopyFrom(value)
        proto = following
    return str(proto.name)


def _rounded(writer: TwinWriter, name: str, weights: str, fake_quant: int, *, rank: int) -> str:
    """FakeQuant within the stored range; in the train twin within the range that the weights have, 0 included."""
    flat = writer.plan.view.flat
    op = flat.ops[fake_quant]
    if writer.twin == EVAL:
        low, high = (writer.tensor(e) for e in flat.data[fake_quant][1:3])
    else:
        kept = 1 if op.endswith("PerChannel") else 0
        over = writer.constant(f"{name}/axes", np.arange(rank - kept, dtype=np.int32))
        zero = writer.constant(f"{name}/zero", np.array(0, np.float32))
        low, high = (
            writer.node(
                f"{name}/{bound}",
                "Minimum" if bound == "Min" else "Maximum",
                [writer.node(f"{name}/{bound}/of", bound, [weights, over], T=FLOAT, Tidx=INT32), zero],
                T=FLOAT,
            )
            for bound in ("Min", "Max")
        )
    proto = writer.graph_def.node.add(name=name, op=op, input=[weights, low, high])
    for key in ("num_bits", "narrow_range"):
        value = flat.attr(fake_quant, key)
        if value is not None:
            proto.attr[key].CopyFrom(value)
    return name


def _moments(writer: TwinWriter, name: str, x: str, along: tuple[int, ...], axis: int) -> Normalised:
    """Mean and biased variance of the batch, per channel."""
    if len(along) > 1:
        over = writer.constant(f"{name}/axes", np.array([0, 2, 3], np.int32))
    else:
        rank = writer.node(f"{name}/rank", "Rank", [x], T=FLOAT)
        one = writer.constant(f"{name}/one", np.array(1, np.int32))
        zero = writer.constant(f"{name}/zero", np.array(0, np.int32))
        last = writer.node(f"{name}/last", "Sub", [rank, one], T=INT32)
        over = writer.node(f"{name}/axes", "Range", [zero, last, one], Tidx=INT32)
    mean = reduced(writer, f"{name}/moments/mean", x, over)
    spread = writer.node(f"{name}/moments/deviation", "SquaredDifference", [x, mean], T=FLOAT)
    variance = reduced(writer, f"{name}/moments/variance", spread, over)
    return Normalised(output=f"{name}:0", input=x, mean=mean, variance=variance, corrected=False, axis=axis)
