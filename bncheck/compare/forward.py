"""A recognised graph -> twins of its forward pass that differ in batch norm only, as one GraphDef. No TensorFlow here.

Weights become constants (once, for both twins), dropout and update ops fall away, conditions on the training switch are
settled for inference, input pipelines are cut at the tensor that they deliver. In place of each batch norm stands one
that normalises with the stored statistics (`eval`) or with those of the batch at hand (`train`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.loops import RESOURCE, take_values
from bncheck.errors import BncheckError
from bncheck.model import Layer, Mode, PerChannel
from bncheck.recognise.flat import CONDITIONALS, LOOPS, FlatGraph, edge, node_of, port_of
from bncheck.recognise.graph_view import GraphView
from bncheck.recognise.layers import PairedSite, pair
from bncheck.recognise.operands import FUSED
from bncheck.recognise.trace import MERGES, SWITCHES, VARIABLES, declared_shape, predicate, sources
from bncheck.recognise.upstream import dropout_input, is_dropout
from bncheck.sources import protos

FLOAT, DOUBLE, INT32, BOOL, BFLOAT16, HALF = 1, 2, 3, 10, 14, 19
_STEPS = 200
"""Nested calls and branches that are looked through."""
EVAL, TRAIN = "eval", "train"

REFUSED = frozenset(
    "PyFunc PyFuncStateless EagerPyFunc ReadFile WriteFile MatchingFiles Save SaveV2 SaveSlices Restore RestoreV2 "
    "FileSystem DebugGradientIdentity PrintV2 Send Recv HostSend HostRecv RemoteCall RegisterDataset "
    "DataServiceDataset SendTPUEmbeddingGradients LMDBReader LMDBDataset TFRecordDataset TextLineDataset "
    "FixedLengthRecordDataset LoadDataset SaveDataset InitializeTableFromTextFile InitializeTableFromTextFileV2".split()
)
"""Ops that touch files, the network or Python: they run only with `--trust-model`."""

_DEREFERENCED = {
    "RefSwitch": "Switch",
    "RefMerge": "Merge",
    "RefIdentity": "Identity",
    "RefEnter": "Enter",
    "RefExit": "Exit",
    "RefNextIteration": "NextIteration",
    "ReadVariableOp": "Identity",
}
_PIVOTS = frozenset({"Identity", "Switch", "Merge", "NoOp"})
"""Ops that a branch or a loop ties its other ops to."""
_DROPPED_ATTRIBUTES = ("_class", "_output_shapes", "_tpu_replicate", "_XlaCompile", "_gradient_op_type")


class StatisticsLacking(BncheckError):
    """A layer of the forward pass has no stored statistics, so there is no eval mode to run."""


@dataclass(frozen=True, kw_only=True)
class TwinSite:
    """One batch norm of the forward pass, in both twins, as tensor names."""

    layer: str
    eval_output: str
    train_output: str
    train_input: str
    batch_mean: str
    """(channels,) or (1, ..., channels): mean of the batch in the train twin."""
    batch_variance: str
    """Variance of the batch as the kernel gives it: Bessel-corrected where `corrected`."""
    corrected: bool
    axis: int | None
    """Of the channels in the input, -1 the last; None where batch norm keeps more axes than one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Forward:
    """Both twins in one GraphDef (a message of `sources/protos.py`), on one input."""

    graph_def: Any
    input: str
    batch: int | None
    """Samples that the graph declares its input to hold, where it does: the twins' input is open, other ops may not."""
    eval_outputs: tuple[str, ...]
    train_outputs: tuple[str, ...]
    sites: tuple[TwinSite, ...]
    """In forward order."""


@dataclass(kw_only=True, eq=False)
class _Emission:
    """The GraphDef being written, and what stands for what."""

    view: GraphView
    graph_def: Any
    input_edge: int
    sites: dict[int, tuple[PairedSite, Layer]]
    """Output node -> its batch norm."""
    settled: dict[int, bool]
    """Predicate node -> its value in inference."""
    trusted: bool
    written: set[str] = field(default_factory=set)
    found: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Site's node -> what `TwinSite` will say."""

    def label(self, node: int) -> str:
        """A node's name in both twins. One in a function's body may be called like one of the main graph."""
        flat = self.view.flat
        name = flat.names[node]
        return f"{name}/{node}" if node >= flat.main_nodes and name in flat.index else name


def forward(
    view: GraphView, layers: tuple[Layer, ...], input_edge: int, outputs: list[int], *, trusted: bool
) -> Forward:
    """The twins between `input_edge` and `outputs` (edges). Raises BncheckError where that cannot be done."""
    by_site = {site.name: layer for layer in layers for site in layer.sites}
    flat = view.flat
    sites: dict[int, tuple[PairedSite, Layer]] = {}
    settled: dict[int, bool] = {}
    for found in view.layers:
        for paired in pair(flat, view.contexts, found.sites):
            layer = by_site.get(flat.names[paired.site.node])
            if layer is None:
                continue
            sites[paired.site.node] = (paired, layer)
            if paired.mode is Mode.SWITCHED and paired.switch is not None:
                settled[paired.switch[0]] = not paired.switch[1]
    emission = _Emission(
        view=view,
        graph_def=protos.GraphDef(),
        input_edge=input_edge,
        sites=sites,
        settled=settled,
        trusted=trusted,
    )
    emission.graph_def.library.CopyFrom(view.raw.graph_def.library)
    _placeholder(emission)
    names = {twin: tuple(_emit_all(emission, twin, e) for e in outputs) for twin in (EVAL, TRAIN)}
    position = view.position
    order = sorted(emission.found, key=position.__getitem__)
    return Forward(
        graph_def=emission.graph_def,
        input="input:0",
        batch=_declared_batch(view, input_edge),
        eval_outputs=names[EVAL],
        train_outputs=names[TRAIN],
        sites=tuple(TwinSite(**emission.found[node]) for node in order),
    )


def _placeholder(emission: _Emission) -> None:
    view = emission.view
    node = emission.graph_def.node.add(name="input", op="Placeholder")
    node.attr["dtype"].type = _dtype_of(view, emission.input_edge)
    shape = view.flat.attr(node_of(emission.input_edge), "shape")
    if shape is not None and not shape.shape.unknown_rank and shape.shape.dim:
        node.attr["shape"].shape.CopyFrom(shape.shape)
        node.attr["shape"].shape.dim[0].size = -1
    else:
        node.attr["shape"].shape.unknown_rank = True


def _declared_batch(view: GraphView, input_edge: int) -> int | None:
    shape = view.flat.attr(node_of(input_edge), "shape")
    if shape is None or shape.shape.unknown_rank or not shape.shape.dim or shape.shape.dim[0].size < 1:
        return None
    return int(shape.shape.dim[0].size)


def _dtype_of(view: GraphView, e: int) -> int:
    """DataType of an edge, from the op's attributes; float where they do not tell."""
    node = node_of(e)
    for key in ("output_types", "component_types"):
        listed = view.flat.attr(node, key)
        if listed is not None and len(listed.list.type) > port_of(e):
            return int(listed.list.type[port_of(e)])
    for key in ("dtype", "DstT", "T"):
        value = view.flat.attr(node, key)
        if value is not None and value.type:
            return int(value.type)
    return FLOAT


def _emit_all(emission: _Emission, twin: str, output: int) -> str:
    """Emits everything that `output` needs in one twin and gives its tensor name."""
    pending: list[int] = []
    name = _name(emission, twin, output, pending)
    while pending:
        _emit(emission, twin, pending.pop(), pending)
    return name


def _name(emission: _Emission, twin: str, e: int, pending: list[int]) -> str:
    """Tensor name of an edge in one twin; its node joins `pending` where it is not written yet."""
    flat = emission.view.flat
    e = _resolved(emission, e)
    if e == emission.input_edge:
        return "input"
    node = node_of(e)
    shared = flat.ops[node] in VARIABLES or flat.ops[node] == "Const" or node in emission.settled
    name = f"{'weights' if shared and not flat.control.get(node) else twin}/{emission.label(node)}"
    if name not in emission.written:
        emission.written.add(name)
        pending.append(node)
    port = 0 if node in emission.sites else port_of(e)
    return name if port == 0 else f"{name}:{port}"


def _resolved(emission: _Emission, e: int) -> int:
    """The edge behind calls and behind conditions on the training switch: what inference takes."""
    flat = emission.view.flat
    for _ in range(_STEPS):
        node, op = node_of(e), flat.ops[node_of(e)]
        if e == emission.input_edge or node in emission.sites:
            return e
        if node in flat.returns and op not in LOOPS:
            e = _through_call(emission, e)
        elif op in SWITCHES and len(flat.data[node]) > 1 and _is_settled(emission, flat.data[node][1]) is not None:
            e = flat.data[node][0]
        elif op in MERGES and port_of(e) == 0 and len(alive := _alive(emission, node)) == 1:
            e = alive[0]
        else:
            return e
    return e


def _is_settled(emission: _Emission, e: int) -> bool | None:
    """Value of a predicate in inference; None where it is not the training switch."""
    source, negated = predicate(emission.view.flat, e)
    value = emission.settled.get(source)
    return None if value is None else value != negated


def _alive(emission: _Emission, merge: int) -> list[int]:
    """Inputs of a merge that inference may take."""
    flat = emission.view.flat
    found = []
    for e in flat.data[merge]:
        node = node_of(e)
        switch = flat.ops[node] in SWITCHES and len(flat.data[node]) > 1
        side = _is_settled(emission, flat.data[node][1]) if switch else None
        against = side is not None and side != bool(port_of(e))
        for source, value in emission.view.contexts.of(node).conditions:
            against = against or emission.settled.get(source, value) != value
        if not against:
            found.append(e)
    return found


def _through_call(emission: _Emission, e: int) -> int:
    """The edge behind a call's output; of a condition, the branch that inference takes."""
    flat = emission.view.flat
    node = node_of(e)
    branches = flat.returns[node]
    branch = 0
    if flat.ops[node] in CONDITIONALS:
        source, negated = predicate(flat, flat.data[node][0])
        if source not in emission.settled:
            raise BncheckError(
                f"{flat.names[node]} is a condition that is not the training switch: give --inputs and --outputs that "
                "leave it out"
            )
        branch = 0 if emission.settled[source] != negated else 1
    return branches[branch][port_of(e)]


def _emit(emission: _Emission, twin: str, node: int, pending: list[int]) -> None:
    flat = emission.view.flat
    op = flat.ops[node]
    prefix = twin if f"{twin}/{emission.label(node)}" in emission.written else "weights"
    name = f"{prefix}/{emission.label(node)}"
    if node in emission.settled:
        _constant(emission, name, np.array(emission.settled[node]))
    elif op in VARIABLES:
        _constant(emission, name, _weights(emission, node))
    elif node in emission.sites:
        _batch_norm(emission, twin, node, pending)
    elif is_dropout(flat, node):
        data = dropout_input(flat, node)
        _node(emission, name, "Identity", [_name(emission, twin, data, pending)], T=_dtype_of(emission.view, data))
    else:
        _copy(emission, twin, node, name, pending)


def _copy(emission: _Emission, twin: str, node: int, name: str, pending: list[int]) -> None:
    flat = emission.view.flat
    op = flat.ops[node]
    if op in REFUSED and not emission.trusted:
        raise BncheckError(
            f"{flat.names[node]} is a {op}: it touches files, the network or Python, and runs only with --trust-model"
        )
    if op in ("Placeholder", "PlaceholderV2") or op.endswith("Iterator") or "IteratorGetNext" in op:
        raise BncheckError(
            f"the output depends on {flat.names[node]} ({op}) besides the input: name the right input with --inputs, "
            "or outputs that do without it with --outputs"
        )
    if op in LOOPS and any(flat.frames[flat.frame_of[n]].call == node for n in emission.sites if n in flat.frame_of):
        raise BncheckError(
            f"{flat.names[node]} is a loop with batch norm in it, which cannot be run in two modes: give --outputs "
            "that leave it out"
        )
    proto = emission.graph_def.node.add(name=name, op=_DEREFERENCED.get(op, op))
    proto.input.extend(_name(emission, twin, e, pending) for e in flat.data[node])
    proto.input.extend(f"^{c}" for c in _kept_control(emission, twin, node, pending))
    for key in flat.proto(node).attr:
        if key not in _DROPPED_ATTRIBUTES:
            proto.attr[key].CopyFrom(flat.proto(node).attr[key])
    if "frame_name" in proto.attr:
        # a loop is told by the name of its frame, and there are two of each
        proto.attr["frame_name"].s = twin.encode() + b"/" + proto.attr["frame_name"].s
    if op == "ReadVariableOp":
        proto.attr["T"].type = proto.attr["dtype"].type
        del proto.attr["dtype"]
    elif op in LOOPS:
        handles = {place: _handle(flat, e) for place, e in enumerate(flat.data[node])}
        kinds = {
            place: _dtype_of(emission.view, e) for place, e in handles.items() if flat.ops[node_of(e)] in VARIABLES
        }
        resources = [place for place, kind in enumerate(proto.attr["T"].list.type) if kind == RESOURCE]
        take_values(proto, emission.graph_def.library, {place: kinds[place] for place in resources if place in kinds})
    elif "T" in proto.attr and proto.attr["T"].type == RESOURCE and flat.data[node]:
        # a variable's handle on its way into a branch or loop: here it is the value
        proto.attr["T"].type = _dtype_of(emission.view, _handle(flat, flat.data[node][0]))


def _handle(flat: FlatGraph, e: int) -> int:
    """The variable behind a resource."""
    for _ in range(_STEPS):
        if flat.ops[node_of(e)] in VARIABLES or not flat.data[node_of(e)]:
            return e
        e = flat.data[node_of(e)][0]
    return e


def _kept_control(emission: _Emission, twin: str, node: int, pending: list[int]) -> list[str]:
    """Control inputs that hold a node inside a branch or loop; updates, assertions and the like fall away."""
    flat, contexts = emission.view.flat, emission.view.contexts
    return [
        _name(emission, twin, edge(source), pending).partition(":")[0]
        for source in flat.control.get(node, ())
        if flat.ops[source] in _PIVOTS and (contexts.of(source).conditions or contexts.of(source).loops)
    ]


def _weights(emission: _Emission, node: int) -> NDArray[Any]:
    tensor = emission.view.stored.tensor(node)
    name = emission.view.stored.name(node)
    if tensor is None:
        raise BncheckError(f"no checkpoint holds the variable {name}, which the forward pass reads")
    if tensor.unavailable is not None:
        raise BncheckError(f"the values of {name} are not at hand: {tensor.unavailable}")
    return _part(emission.view.flat, node, tensor.read())


def _part(flat: FlatGraph, node: int, whole: NDArray[Any]) -> NDArray[Any]:
    """What a variable holds of a stored tensor: all of it, or the slice of a partition that the Saver writes it to."""
    declared = declared_shape(flat, node)
    if declared is None or declared == whole.shape or len(declared) != whole.ndim or min(declared, default=0) < 0:
        return whole
    for save in flat.by_op.get("SaveV2", ()):
        value = flat.attr(node_of(flat.data[save][2]), "value")
        told = [] if value is None else [item.decode() for item in value.tensor.string_val]
        for text, e in zip(told, flat.data[save][3:], strict=False):
            if not text or [node_of(x) for x in sources(flat, e)] != [node]:
                continue
            parts = text.rpartition(" ")[2].split(":")
            ends = [tuple(map(int, part.split(","))) if part != "-" else (0, None) for part in parts]
            return whole[tuple(slice(a, None if n is None else a + n) for a, n in ends)]
    return whole


_DATA_TYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19}


def _constant(emission: _Emission, name: str, value: NDArray[Any]) -> str:
    number = _DATA_TYPES.get(value.dtype.name)
    if number is None:
        raise BncheckError(f"{name.removeprefix('weights/')} is of type {value.dtype}, which cannot be frozen")
    node = emission.graph_def.node.add(name=name, op="Const")
    tensor = node.attr["value"].tensor
    node.attr["dtype"].type = tensor.dtype = number
    for size in value.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    return name


def _node(emission: _Emission, name: str, op: str, inputs: list[str], **types: int) -> str:
    node = emission.graph_def.node.add(name=name, op=op, input=inputs)
    for key, value in types.items():
        node.attr[key].type = value
    return name


def _batch_norm(emission: _Emission, twin: str, node: int, pending: list[int]) -> None:
    """Writes one batch norm under the name of the op whose output it stands for."""
    paired, layer = emission.sites[node]
    name = f"{twin}/{emission.label(node)}"
    site = paired.site
    x_edge = site.x if site.x is not None else paired.train.x
    if x_edge is None:
        raise BncheckError(f"{layer.name} is folded into its convolution in the graph: not understood by compare yet")
    write = _fused if emission.view.flat.ops[node] in FUSED else _decomposed
    values = write(emission, twin, node, x_edge, pending)
    found = emission.found.setdefault(node, {"layer": layer.name})
    found[f"{twin}_output"] = f"{name}:0"
    if twin == TRAIN:
        found |= values


def _statistics(layer: Layer) -> tuple[PerChannel, PerChannel]:
    if layer.mean.values is None or layer.variance.values is None:
        lacking = layer.mean if layer.mean.values is None else layer.variance
        raise StatisticsLacking(f"{layer.name} has no stored {lacking.role.value} to compare with: {lacking.reason}")
    return layer.mean.values, layer.variance.values


def _fused(emission: _Emission, twin: str, node: int, x_edge: int, pending: list[int]) -> dict[str, Any]:
    view = emission.view
    paired, layer = emission.sites[node]
    name, x = f"{twin}/{emission.label(node)}", _name(emission, twin, x_edge, pending)
    data = view.flat.data[node]
    scale, offset = (_name(emission, twin, e, pending) for e in data[1:3])
    if twin == EVAL:
        mean, variance = _statistics(layer)
        statistics = [
            _constant(emission, f"{name}/{part}", value.astype(np.float32))
            for part, value in (("mean", mean), ("variance", variance))
        ]
    else:
        empty = _constant(emission, f"{name}/none", np.zeros(0, np.float32))
        statistics = [empty, empty]
    proto = emission.graph_def.node.add(name=name, op="FusedBatchNormV3", input=[x, scale, offset, *statistics])
    kind = view.flat.attr(node, "T")
    proto.attr["T"].type = FLOAT if kind is None else kind.type
    proto.attr["U"].type = FLOAT
    proto.attr["epsilon"].f = paired.site.epsilon or 0.0
    proto.attr["is_training"].b = twin == TRAIN
    layout = view.flat.attr(node, "data_format")
    proto.attr["data_format"].s = b"NHWC" if layout is None or not layout.s else layout.s
    first = proto.attr["data_format"].s.startswith(b"NC")
    moments = {"batch_mean": f"{name}:1", "batch_variance": f"{name}:2", "corrected": True}
    return {"train_input": x, **moments, "axis": 1 if first else -1}


def _decomposed(emission: _Emission, twin: str, node: int, x_edge: int, pending: list[int]) -> dict[str, Any]:
    """`(x - mean) * rsqrt(variance + epsilon) [* gamma] [+ beta]`, with the operands' own shapes."""
    paired, layer = emission.sites[node]
    site = paired.site
    name, x = f"{twin}/{emission.label(node)}", _name(emission, twin, x_edge, pending)
    kind, shape = _kind(emission.view, x_edge), _in_place(paired)
    if kind != FLOAT:  # moments of a large map overflow in half floats, and the kernel that fuses takes floats too
        x = _node(emission, f"{name}/x", "Cast", [x], SrcT=kind, DstT=FLOAT)
    if twin == EVAL:
        values = [part.astype(np.float32).reshape(shape or (-1,)) for part in _statistics(layer)]
        mean, variance = (
            _constant(emission, f"{name}/{part}", value)
            for part, value in zip(("mean", "variance"), values, strict=True)
        )
    else:
        mean, variance = _moments(emission, name, x, paired)
    epsilon = _constant(emission, f"{name}/epsilon", np.array(site.epsilon or 0.0, np.float32))
    inverse = _node(
        emission,
        f"{name}/rsqrt",
        "Rsqrt",
        [_node(emission, f"{name}/add", "AddV2", [variance, epsilon], T=FLOAT)],
        T=FLOAT,
    )
    gamma, beta = (
        _operand(emission, twin, f"{name}/{part}", e, shape=shape, pending=pending)
        for part, e in (("gamma", site.gamma), ("beta", site.beta))
    )
    if gamma is not None:
        inverse = _node(emission, f"{name}/scale", "Mul", [inverse, gamma], T=FLOAT)
    last = name if kind == FLOAT else f"{name}/float"
    if twin == EVAL:
        _folded(emission, last, (x, mean, inverse), beta)
    else:
        centred = _node(emission, f"{name}/centred", "Sub", [x, mean], T=FLOAT)
        if beta is None:
            _node(emission, last, "Mul", [centred, inverse], T=FLOAT)
        else:
            scaled = _node(emission, f"{name}/scaled", "Mul", [centred, inverse], T=FLOAT)
            _node(emission, last, "AddV2", [scaled, beta], T=FLOAT)
    if kind != FLOAT:
        _node(emission, name, "Cast", [last], SrcT=FLOAT, DstT=kind)
    moments = {"batch_mean": mean, "batch_variance": variance, "corrected": False}
    return {"train_input": x, **moments, "axis": _axis(paired)}


def _operand(
    emission: _Emission, twin: str, name: str, e: int | None, *, shape: tuple[int, ...], pending: list[int]
) -> str | None:
    """Gamma or beta as float, in the shape that the statistics are used in."""
    if e is None:
        return None
    found, kind = _name(emission, twin, e, pending), _kind(emission.view, e)
    if kind != FLOAT:
        found = _node(emission, f"{name}/float", "Cast", [found], SrcT=kind, DstT=FLOAT)
    if not shape:
        return found
    wanted = _constant(emission, f"{name}/shape", np.array(shape, np.int32))
    return _node(emission, f"{name}/reshaped", "Reshape", [found, wanted], T=FLOAT, Tshape=INT32)


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


def _kind(view: GraphView, e: int) -> int:
    """DataType of numbers: half, bfloat16, double, or FLOAT where it is none of these."""
    found = _dtype_of(view, e)
    return found if found in (HALF, BFLOAT16, DOUBLE) else FLOAT


def _folded(emission: _Emission, name: str, operands: tuple[str, str, str], beta: str | None) -> None:
    """`x * inverse + (beta - mean * inverse)`, as tf.nn.batch_normalization does: a converter folds no other form."""
    x, mean, inverse = operands
    shift = _node(emission, f"{name}/shift", "Mul", [mean, inverse], T=FLOAT)
    scaled = _node(emission, f"{name}/scaled", "Mul", [x, inverse], T=FLOAT)
    if beta is None:
        _node(emission, name, "Sub", [scaled, shift], T=FLOAT)
    else:
        offset = _node(emission, f"{name}/offset", "Sub", [beta, shift], T=FLOAT)
        _node(emission, name, "AddV2", [scaled, offset], T=FLOAT)


def _moments(emission: _Emission, name: str, x: str, paired: PairedSite) -> tuple[str, str]:
    axes = paired.train.variance.axes or paired.train.mean.axes
    if axes:
        over = _constant(emission, f"{name}/axes", np.array(axes, np.int32))
    elif paired.site.axis in (-1, None):
        rank = _node(emission, f"{name}/rank", "Rank", [x], T=FLOAT)
        one = _constant(emission, f"{name}/one", np.array(1, np.int32))
        zero = _constant(emission, f"{name}/zero", np.array(0, np.int32))
        last = _node(emission, f"{name}/last", "Sub", [rank, one], T=INT32)
        over = _node(emission, f"{name}/axes", "Range", [zero, last, one], Tidx=INT32)
    else:
        size = len(paired.site.variance.reshaped) or paired.site.rank or 4
        over = _constant(
            emission, f"{name}/axes", np.array([a for a in range(size) if a != paired.site.axis], np.int32)
        )
    mean = _reduce(emission, f"{name}/mean", x, over)
    spread = _node(emission, f"{name}/deviation", "SquaredDifference", [x, mean], T=FLOAT)
    return mean, _reduce(emission, f"{name}/variance", spread, over)


def _reduce(emission: _Emission, name: str, x: str, axes: str) -> str:
    node = emission.graph_def.node.add(name=name, op="Mean", input=[x, axes])
    node.attr["T"].type = FLOAT
    node.attr["Tidx"].type = INT32
    node.attr["keep_dims"].b = True
    return name
