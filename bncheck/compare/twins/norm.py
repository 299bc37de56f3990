"""One batch norm of a twin: normalises with the stored statistics (`eval`) or with those of the batch (`train`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bncheck.compare.twins.inference_path import without_identities
from bncheck.compare.twins.writer import BFLOAT16, BOOL, DOUBLE, EVAL, FLOAT, HALF, INT32, TRAIN, TwinWriter, data_type
from bncheck.facts.errors import BncheckError
from bncheck.facts.layers import Layer, PerChannel
from bncheck.recognise.graph.group_sites import PairedSite
from bncheck.recognise.graph.operands import FUSED
from bncheck.recognise.graph.view import GraphView


class StatisticsLacking(BncheckError):
    """A layer of the forward pass has no stored statistics, so there is no eval mode to run."""


@dataclass(frozen=True, kw_only=True)
class Normalised:
    """A batch norm as it was written, as tensor names."""

    output: str
    input: str
    mean: str
    """(channels,) or (1, ..., channels): what it normalises with."""
    variance: str
    corrected: bool
    """Whether the variance of a batch is Bessel-corrected, as fused kernels give it."""
    axis: int | None
    """Of the channels in the input, -1 the last; None where batch norm keeps more axes than one."""
    mask: str | None = None
    """(samples, steps, 1) of 1.0 where a value counts in the moments of the batch, else 0; None where all count."""


def write_norm(writer: TwinWriter, node: int) -> Normalised:
    """Writes a batch norm under the name of the op whose output it stands for.

    Raises StatisticsLacking in eval mode, BncheckError where the graph has no input of it.
    """
    paired, layer = writer.plan.sites[node]
    x_edge = paired.site.x if paired.site.x is not None else paired.train.x
    if x_edge is None:
        raise BncheckError(f"{layer.name} is folded into its convolution in the graph: compare cannot run it yet")
    mask = _mask(writer, node, x_edge)
    if writer.plan.view.flat.ops[node] not in FUSED:
        return _decomposed(writer, node, x_edge, mask)
    if mask is not None:
        raise BncheckError(f"{layer.name} is a fused batch norm with a mask: compare cannot run it yet")
    return _fused(writer, node, x_edge)


def _mask(writer: TwinWriter, node: int, x_edge: int) -> str | None:
    """The mask of a batch norm, in the train twin; None where all values count."""
    plan = writer.plan
    found = plan.masks.get(without_identities(plan.view.flat, x_edge))
    if found is None or writer.twin == EVAL:
        return None
    name = f"{writer.name(node)}/mask"
    number = writer.node(f"{name}/number", "Cast", [writer.tensor(found)], SrcT=BOOL, DstT=FLOAT)
    last = writer.constant(f"{name}/last", np.array(-1, np.int32))
    return writer.node(name, "ExpandDims", [number, last], T=FLOAT, Tdim=INT32)


def _statistics(layer: Layer) -> tuple[PerChannel, PerChannel]:
    if layer.mean.values is None or layer.variance.values is None:
        lacking = layer.mean if layer.mean.values is None else layer.variance
        raise StatisticsLacking(f"{layer.name} has no stored {lacking.role.value} to compare with: {lacking.reason}")
    return layer.mean.values, layer.variance.values


def _fused(writer: TwinWriter, node: int, x_edge: int) -> Normalised:
    view = writer.plan.view
    paired, layer = writer.plan.sites[node]
    name, x = writer.name(node), writer.tensor(x_edge)
    scale, offset = (writer.tensor(e) for e in view.flat.data[node][1:3])
    if writer.twin == EVAL:
        mean, variance = stored_statistics(writer, name, layer, (-1,))
        given = [mean, variance]
    else:
        mean, variance = f"{name}:1", f"{name}:2"
        given = [writer.constant(f"{name}/none", np.zeros(0, np.float32))] * 2
    proto = writer.graph_def.node.add(name=name, op="FusedBatchNormV3", input=[x, scale, offset, *given])
    kind = view.flat.attr(node, "T")
    proto.attr["T"].type = FLOAT if kind is None else kind.type
    proto.attr["U"].type = FLOAT
    proto.attr["epsilon"].f = paired.site.epsilon or 0.0
    proto.attr["is_training"].b = writer.twin == TRAIN
    layout = view.flat.attr(node, "data_format")
    proto.attr["data_format"].s = b"NHWC" if layout is None or not layout.s else layout.s
    first = proto.attr["data_format"].s.startswith(b"NC")
    axis = 1 if first else -1
    return Normalised(output=f"{name}:0", input=x, mean=mean, variance=variance, corrected=True, axis=axis)


def _decomposed(writer: TwinWriter, node: int, x_edge: int, mask: str | None) -> Normalised:
    """`(x - mean) * rsqrt(variance + epsilon) [* gamma] [+ beta]`, with the operands' own shapes."""
    paired, layer = writer.plan.sites[node]
    site = paired.site
    name, x = writer.name(node), writer.tensor(x_edge)
    kind, shape = _float_type(writer.plan.view, x_edge), _in_place(paired)
    if kind != FLOAT:  # moments of a large map overflow in half floats, and the kernel that fuses takes floats too
        x = writer.node(f"{name}/x", "Cast", [x], SrcT=kind, DstT=FLOAT)
    mean, variance = (
        stored_statistics(writer, name, layer, shape or (-1,))
        if writer.twin == EVAL
        else _moments(writer, name, x, paired, mask)
    )
    epsilon = writer.constant(f"{name}/epsilon", np.array(site.epsilon or 0.0, np.float32))
    added = writer.node(f"{name}/add", "AddV2", [variance, epsilon], T=FLOAT)
    inverse = writer.node(f"{name}/rsqrt", "Rsqrt", [added], T=FLOAT)
    gamma = _operand(writer, f"{name}/gamma", site.gamma, shape)
    beta = _operand(writer, f"{name}/beta", site.beta, shape)
    if gamma is not None:
        inverse = writer.node(f"{name}/scale", "Mul", [inverse, gamma], T=FLOAT)
    last = name if kind == FLOAT else f"{name}/float"
    apply = _folded if writer.twin == EVAL else _centred
    apply(writer, last, (x, mean, inverse), beta)
    if kind != FLOAT:
        writer.node(name, "Cast", [last], SrcT=FLOAT, DstT=kind)
    axis = _axis(paired)
    if mask is not None and axis != -1:
        raise BncheckError(f"{layer.name} takes a mask, and its channels are not last: compare cannot run it yet")
    return Normalised(output=f"{name}:0", input=x, mean=mean, variance=variance, corrected=False, axis=axis, mask=mask)


def stored_statistics(writer: TwinWriter, name: str, layer: Layer, shape: tuple[int, ...]) -> tuple[str, str]:
    """The stored statistics as constants of `shape`."""
    mean, variance = (part.astype(np.float32).reshape(shape) for part in _statistics(layer))
    return writer.constant(f"{name}/mean", mean), writer.constant(f"{name}/variance", variance)


def _centred(writer: TwinWriter, name: str, operands: tuple[str, str, str], beta: str | None) -> None:
    """`(x - mean) * inverse + beta`: exact also where the mean is large against the spread."""
    x, mean, inverse = operands
    centred = writer.node(f"{name}/centred", "Sub", [x, mean], T=FLOAT)
    if beta is None:
        writer.node(name, "Mul", [centred, inverse], T=FLOAT)
    else:
        scaled = writer.node(f"{name}/scaled", "Mul", [centred, inverse], T=FLOAT)
        writer.node(name, "AddV2", [scaled, beta], T=FLOAT)


def _folded(writer: TwinWriter, name: str, operands: tuple[str, str, str], beta: str | None) -> None:
    """`x * inverse + (beta - mean * inverse)`, as tf.nn.batch_normalization does: a converter folds no other form."""
    x, mean, inverse = operands
    shift = writer.node(f"{name}/shift", "Mul", [mean, inverse], T=FLOAT)
    scaled = writer.node(f"{name}/scaled", "Mul", [x, inverse], T=FLOAT)
    if beta is None:
        writer.node(name, "Sub", [scaled, shift], T=FLOAT)
    else:
        offset = writer.node(f"{name}/offset", "Sub", [beta, shift], T=FLOAT)
        writer.node(name, "AddV2", [scaled, offset], T=FLOAT)


def _moments(writer: TwinWriter, name: str, x: str, paired: PairedSite, mask: str | None) -> tuple[str, str]:
    axes = paired.train.variance.axes or paired.train.mean.axes
    if axes:
        over = writer.constant(f"{name}/axes", np.array(axes, np.int32))
    elif paired.site.axis in (-1, None):
        rank = writer.node(f"{name}/rank", "Rank", [x], T=FLOAT)
        one = writer.constant(f"{name}/one", np.array(1, np.int32))
        zero = writer.constant(f"{name}/zero", np.array(0, np.int32))
        last = writer.node(f"{name}/last", "Sub", [rank, one], T=INT32)
        over = writer.node(f"{name}/axes", "Range", [zero, last, one], Tidx=INT32)
    else:
        size = len(paired.site.variance.reshaped) or paired.site.rank or 4
        kept = [axis for axis in range(size) if axis != paired.site.axis]
        over = writer.constant(f"{name}/axes", np.array(kept, np.int32))
    mean = _averaged(writer, f"{name}/mean", x, over, mask)
    spread = writer.node(f"{name}/deviation", "SquaredDifference", [x, mean], T=FLOAT)
    return mean, _averaged(writer, f"{name}/variance", spread, over, mask)


def _averaged(writer: TwinWriter, name: str, x: str, axes: str, mask: str | None) -> str:
    """The mean over the values that count, as Keras weighs them; 0 where none does."""
    if mask is None:
        return reduced(writer, name, x, axes)
    counted = writer.node(f"{name}/counted", "Mul", [x, mask], T=FLOAT)
    parts = [reduced(writer, f"{name}/{key}", part, axes) for key, part in (("sum", counted), ("share", mask))]
    return writer.node(name, "DivNoNan", parts, T=FLOAT)


def reduced(writer: TwinWriter, name: str, x: str, axes: str) -> str:
    """The mean of `x` over `axes`, which are kept with size 1."""
    node = writer.graph_def.node.add(name=name, op="Mean", input=[x, axes])
    node.attr["T"].type = FLOAT
    node.attr["Tidx"].type = INT32
    node.attr["keep_dims"].b = True
    return name


def _operand(writer: TwinWriter, name: str, e: int | None, shape: tuple[int, ...]) -> str | None:
    """Gamma or beta as float, in the shape that the statistics are used in."""
    if e is None:
        return None
    found, kind = writer.tensor(e), _float_type(writer.plan.view, e)
    if kind != FLOAT:
        found = writer.node(f"{name}/float", "Cast", [found], SrcT=kind, DstT=FLOAT)
    if not shape:
        return found
    wanted = writer.constant(f"{name}/shape", np.array(shape, np.int32))
    return writer.node(f"{name}/reshaped", "Reshape", [found, wanted], T=FLOAT, Tshape=INT32)


def _in_place(paired: PairedSite) -> tuple[int, ...]:
    """Shape in which vectors meet the site's input; () where the channels are last."""
    if paired.site.variance.reshaped:
        return paired.site.variance.reshaped
    axes = paired.train.variance.axes or paired.train.mean.axes
    left = set(range(len(axes) + 1)).difference(axes)
    if not axes or min(axes) < 0 or len(left) != 1 or left == {len(axes)}:
        return ()
    return tuple(-1 if axis in left else 1 for axis in range(len(axes) + 1))


def _axis(paired: PairedSite) -> int | None:
    """Axis of the channels; None where the moments keep more than one."""
    axes = paired.train.variance.axes or paired.train.mean.axes
    if not axes:
        return -1 if paired.site.axis is None else paired.site.axis
    left = [axis for axis in range(len(axes) + 1) if axis not in axes]
    if min(axes) < 0 or len(left) != 1 or not left[0]:
        return None
    return -1 if left[0] == len(axes) else left[0]


def _float_type(view: GraphView, e: int) -> int:
    """DataType of numbers: half, bfloat16, double, or FLOAT where it is none of these."""
    found = data_type(view, e)
    return found if found in (HALF, BFLOAT16, DOUBLE) else FLOAT
