"""What lies before a site (the op to fold into, a redundant bias, dropout), and whether a layer lies behind it."""

from __future__ import annotations

from bncheck.facts.record import Record
from bncheck.recognise.graph.flat import FlatGraph, node_of
from bncheck.recognise.graph.operands import per_channel_shape
from bncheck.recognise.graph.reductions import ELEMENTWISE
from bncheck.recognise.graph.trace import PASS, VARIABLES, constant, sources, steps_back

LINEAR = frozenset(
    "Conv2D DepthwiseConv2dNative Conv3D Conv2DBackpropInput Conv3DBackpropInputV2 MatMul BatchMatMul BatchMatMulV2 "
    "BatchMatMulV3".split()
)
DATA_INPUT = {"Conv2DBackpropInput": 2, "Conv3DBackpropInputV2": 2}
"""Which input of a linear op holds the activations, where that is not the first."""
_RANDOM = frozenset("RandomUniform StatelessRandomUniform StatelessRandomUniformV2 RandomStandardNormal".split())
_SHAPE_OPS = frozenset({"SpaceToBatchND", "BatchToSpaceND", "Pad", "PadV2", "Transpose"})
_STEPS = 24
_ACTIVATIONS = frozenset("Relu Relu6 LeakyRelu Elu Selu Sigmoid Tanh Softplus Softsign Softmax Erf".split())
_POOLS = frozenset("AvgPool MaxPool MaxPoolV2 AvgPool3D MaxPool3D".split())
_SHAPES = frozenset("Pad PadV2 Transpose SpaceToBatchND BatchToSpaceND ConcatV2".split())
_STEPS_BEHIND = 6
_WIDTH = 60
_RAW_EDGES = 60


class Upstream(Record):
    """What lies before a site, as nodes; None where there is no such thing."""

    linear: int | None = None
    kernel: int | None = None
    """Variable or constant of the linear op's kernel."""
    bias: int | None = None
    dropout: int | None = None
    turned: tuple[int, ...] | None = ()
    """Axis of the linear op's output that each axis of the site's input is, where a transposition lies between; empty
    where none does, None where it is not constant."""


def upstream(graph: FlatGraph, x: int) -> Upstream:
    """Walks back from a site's input to the op it is folded into, and on to a dropout with only linear ops between."""
    bias = linear = kernel = None
    turned: tuple[int, ...] | None = ()
    current = x
    for _ in range(_STEPS):
        node = node_of(current)
        op, data = graph.ops[node], graph.data[node]
        if is_dropout(graph, node):
            return Upstream(linear=linear, kernel=kernel, bias=bias, dropout=node, turned=turned)
        if op in LINEAR and len(data) > 1:
            if linear is not None:
                break
            linear, kernel = node, _kernel(graph, data[1])
            current = data[DATA_INPUT.get(op, 0)]
            continue
        if op in ("BiasAdd", "Add", "AddV2") and len(data) == 2:
            found = _bias(graph, data[1])
            if found is None:
                break
            bias = found if linear is None else bias
            current = data[0]
            continue
        following = _shape_only(graph, current)
        if following is None:
            break
        if op == "Transpose" and linear is None:
            turned = _turned(graph, node, turned)
        current = following
    return Upstream(linear=linear, kernel=kernel, bias=bias, turned=turned)


def _turned(graph: FlatGraph, node: int, so_far: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """One more transposition on the way back from a site; None where its axes are not constant."""
    axes = constant(graph, graph.data[node][1]) if len(graph.data[node]) > 1 else None
    if axes is None or so_far is None:
        return None
    order = tuple(int(axis) for axis in axes.reshape(-1))
    if sorted(order) != list(range(len(order))) or (so_far and len(so_far) != len(order)):
        return None
    return tuple(order[axis] for axis in so_far) if so_far else order


def _shape_only(graph: FlatGraph, e: int) -> int | None:
    node = node_of(e)
    if graph.ops[node] in _SHAPE_OPS:
        return graph.data[node][0] if graph.data[node] else None
    back = steps_back(graph, e)
    if back is None or (len(back) != 1 and graph.ops[node] in ("ConcatV2", "Merge")):
        return _through_dropout_condition(graph, node, back)
    return back[0] if len(back) == 1 else None


def _through_dropout_condition(graph: FlatGraph, node: int, back: tuple[int, ...] | None) -> int | None:
    """A merge of dropout and no dropout continues at the dropout."""
    if back is None or graph.ops[node] not in ("Merge", "RefMerge"):
        return None
    return next((e for e in back if _leads_to_dropout(graph, e)), None)


def _leads_to_dropout(graph: FlatGraph, e: int) -> bool:
    for _ in range(4):
        if is_dropout(graph, node_of(e)):
            return True
        back = steps_back(graph, e)
        if back is None or len(back) != 1:
            return False
        e = back[0]
    return False


def is_dropout(graph: FlatGraph, node: int) -> bool:
    """A product (or selection) of which one operand is a comparison or floor of random numbers."""
    op, data = graph.ops[node], graph.data[node]
    if op == "Mul" and len(data) == 2:
        return any(_random_mask(graph, e) for e in data)
    return op in ("Select", "SelectV2") and len(data) == 3 and _random_mask(graph, data[0])


def dropout_input(graph: FlatGraph, node: int) -> int:
    """The edge that a dropout op thins out, without the scale by 1 / keep that goes with it."""
    op, data = graph.ops[node], graph.data[node]
    e = data[1] if op in ("Select", "SelectV2") else next(x for x in data if not _random_mask(graph, x))
    scaled = node_of(e)
    if graph.ops[scaled] in ("Mul", "RealDiv", "Div") and len(graph.data[scaled]) == 2:
        left, right = graph.data[scaled]
        if _scalar_source(graph, right) or graph.ops[scaled] != "Mul":
            return left
        if _scalar_source(graph, left):
            return right
    return e


def _random_mask(graph: FlatGraph, e: int) -> bool:
    thresholded = False
    for _ in range(10):
        node = node_of(e)
        op, data = graph.ops[node], graph.data[node]
        if op in _RANDOM:
            return thresholded
        if op in ("Floor", "GreaterEqual", "Greater", "Less", "LessEqual"):
            thresholded = True
        elif op not in PASS and op not in ("Add", "AddV2", "Mul", "Sub"):
            return False
        following = [x for x in data if graph.ops[node_of(x)] != "Const" and not _scalar_source(graph, x)]
        if not following:
            return False
        e = following[-1] if op in ("Add", "AddV2") and len(following) > 1 else following[0]
    return False


def _scalar_source(graph: FlatGraph, e: int) -> bool:
    found = sources(graph, e)
    return len(found) == 1 and graph.ops[node_of(found[0])] in {"Const", "Placeholder", "PlaceholderWithDefault"}


def _kernel(graph: FlatGraph, e: int) -> int | None:
    found = sources(graph, e)
    node = node_of(found[0]) if found else None
    if node is None or graph.ops[node] not in VARIABLES | {"Const"}:
        return None
    return node


def _bias(graph: FlatGraph, e: int) -> int | None:
    found = sources(graph, e)
    nodes = {node_of(x) for x in found}
    if len(nodes) != 1:
        return None
    node = nodes.pop()
    return node if graph.ops[node] in VARIABLES | {"Const"} and per_channel_shape(graph, node) else None


def is_raw(graph: FlatGraph, e: int) -> bool:
    """Whether a value is what is fed, cut and scaled at most: no weights and no layer lie before it."""
    stack, seen, fed = [e], {e}, False
    while stack:
        node = node_of(stack.pop())
        op, data = graph.ops[node], graph.data[node]
        if op in VARIABLES or op in LINEAR or op in _POOLS or op in _ACTIVATIONS or len(seen) > _RAW_EDGES:
            return False
        fed = fed or (not data and op != "Const")
        for x in data:
            if x not in seen:
                seen.add(x)
                stack.append(x)
    return fed


def leading_one_reshape(graph: FlatGraph, e: int) -> bool:
    """Whether the value was reshaped to a batch of 1, as layer, instance and group norms on fused batch norm do."""
    node = node_of(e)
    for _ in range(4):
        if graph.ops[node] == "Reshape" and len(graph.data[node]) > 1:
            return _starts_with_one(graph, graph.data[node][1])
        if graph.ops[node] not in ("Identity", "Cast", "Transpose") or not graph.data[node]:
            return False
        node = node_of(graph.data[node][0])
    return False


def _starts_with_one(graph: FlatGraph, e: int) -> bool:
    node = node_of(e)
    if graph.ops[node] in ("Pack", "ConcatV2") and graph.data[node]:
        e = graph.data[node][0]
    shape = constant(graph, e)
    return shape is not None and shape.size > 0 and int(shape.reshape(-1)[0]) == 1


def feeds_a_layer(graph: FlatGraph, node: int) -> bool:
    """Whether an activation, a pooling or an op with weights follows.

    Embeddings that are standardised for a loss (Barlow twins) are multiplied with each other instead.
    """
    frontier, seen = [node], {node}
    for _ in range(_STEPS_BEHIND):
        behind = [c for current in frontier for c in graph.consumers(current) if c not in seen]
        if any(_is_layer(graph, c) for c in behind):
            return True
        seen.update(behind)
        if len(seen) > _WIDTH:
            return True
        frontier = [c for c in behind if graph.ops[c] in PASS | ELEMENTWISE | _SHAPES]
    return False


def _is_layer(graph: FlatGraph, node: int) -> bool:
    op, data = graph.ops[node], graph.data[node]
    if op in _ACTIVATIONS or op in _POOLS:
        return True
    weights = VARIABLES | {"Const"}
    return op in LINEAR and any(graph.ops[node_of(x)] in weights for e in data for x in sources(graph, e))
