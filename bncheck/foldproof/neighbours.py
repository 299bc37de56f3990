"""Whether a model has arithmetic beside a layer that the converter may take into the operator it is folded into.

What the structure rules out need not be thought of as an explanation. At the ends of a model it rules out nothing, for
people wrap preprocessing around a model before they convert it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bncheck.facts.layers import Layer
from bncheck.recognise.graph.flat import FlatGraph, edge, node_of
from bncheck.recognise.graph.trace import VARIABLES, sources, steps_back
from bncheck.recognise.graph.upstream import DATA_INPUT, upstream
from bncheck.recognise.graph.view import GraphView
from bncheck.sources.raw import RawKeras, RawKerasCall, RawKerasLayer


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Where multiplications and additions by constants may stand."""

    before: bool = True
    """Before the linear layer that the batch norm is folded into."""
    behind: bool = True
    """Behind the batch norm."""


ANYWHERE = Arithmetic()
Neighbours = Callable[[Layer], Arithmetic]

_MOST = 32
"""Layers or nodes looked through in one direction."""

_LINEAR_CLASS = ("Conv1D", "Conv2D", "Conv3D", "Dense", "Transpose", "Convolution2D")
_NO_CONSTANTS = frozenset(
    {"ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "ThresholdedReLU", "Relu", "Relu6", "Embedding", "LSTM", "GRU"}
    | {f"{kind}Pooling{n}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for n in (1, 2, 3)}
)
"""Layers without a multiplication or addition by one number, but the linear ones, which their names' end tells."""
_OF_SEVERAL = frozenset({"Add", "Concatenate", "Maximum", "Minimum", "Subtract", "Merge"})
"""The same where they take several inputs; of one input they are Keras 3's operations with a constant."""
_PASS = frozenset(
    {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise", "GaussianDropout"}
    | {"Identity", "ActivityRegularization", "Flatten", "Reshape", "Permute", "RepeatVector"}
    | {f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for n in (1, 2, 3)}
)
_NO_CONSTANTS_IN = frozenset(
    {"linear", "relu", "relu6", "sigmoid", "tanh", "softmax", "elu", "selu", "softplus", "exp"}
)
"""Activation functions."""

_BY_CONSTANTS = frozenset({"Add", "AddV2", "Sub", "RealDiv", "Div", "BiasAdd"})
_ANY = frozenset({"Mul", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
"""Ops that are arithmetic whatever their operands: of a product the constant may stand in any factor."""
_ENDS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "IteratorGetNext", "_Arg"})
_SHAPE_OPS = frozenset({"SpaceToBatchND", "BatchToSpaceND", "Pad", "PadV2", "MirrorPad", "Transpose"})


def nothing_known(layer: Layer) -> Arithmetic:
    """Where no structure is at hand."""
    del layer
    return ANYWHERE


def of_configuration(keras: RawKeras) -> Neighbours:
    """By the calls of a Keras configuration."""
    calls = {call.name: call for call in keras.calls}
    layers = {layer.path: layer for layer in keras.layers}
    readers: dict[str, list[RawKerasCall]] = defaultdict(list)
    for call in keras.calls:
        for name in call.inbound:
            readers[name].append(call)

    def ask(layer: Layer) -> Arithmetic:
        sites = [calls[site.name] for site in layer.sites if site.name in calls]
        if not sites:
            return ANYWHERE
        return Arithmetic(
            before=any(_arithmetic_above(call, calls, layers) for call in sites),
            behind=any(_arithmetic_below(call, readers, layers) for call in sites),
        )

    return ask


def _arithmetic_above(
    call: RawKerasCall, calls: Mapping[str, RawKerasCall], layers: Mapping[str, RawKerasLayer]
) -> bool:
    """Whether the linear layer above a batch norm takes something that may be scaled or shifted."""
    linear = False
    for _ in range(_MOST):
        above = calls.get(call.inbound[0]) if len(call.inbound) == 1 else None
        if above is None:
            return not linear and len(call.inbound) != 1
        layer = layers[above.layer]
        if layer.class_name.endswith(_LINEAR_CLASS) and not linear:
            linear = True
        elif layer.class_name not in _PASS and not _is_identity(layer):
            return not _harmless(layer, above) and layer.class_name != "BatchNormalization"
        call = above
    return True


def _arithmetic_below(
    call: RawKerasCall, readers: Mapping[str, list[RawKerasCall]], layers: Mapping[str, RawKerasLayer]
) -> bool:
    """Whether something behind a batch norm may scale or shift it; True at the end of the model."""
    pending, seen = [call], {call.name}
    while pending and len(seen) < _MOST:
        following = readers.get(pending.pop().name, [])
        if not following:
            return True
        for reader in following:
            layer = layers[reader.layer]
            if layer.class_name in _PASS or _is_identity(layer):
                if reader.name not in seen:
                    seen.add(reader.name)
                    pending.append(reader)
            elif not _harmless(layer, reader):
                return True
    return bool(pending)


def _harmless(layer: RawKerasLayer, call: RawKerasCall) -> bool:
    name = layer.class_name
    if name.endswith(_LINEAR_CLASS) and name != "InputLayer":
        return _function(layer) in _NO_CONSTANTS_IN
    if name == "Activation":
        return _function(layer) in _NO_CONSTANTS_IN
    return name in _NO_CONSTANTS or (name in _OF_SEVERAL and len(call.inbound) > 1)


def _is_identity(layer: RawKerasLayer) -> bool:
    return layer.class_name == "Activation" and _function(layer) == "linear"


def _function(layer: RawKerasLayer) -> str:
    found = layer.config.get("activation") or "linear"
    if isinstance(found, Mapping):  # Keras 3 names functions as {"class_name": "function", "config": "linear"}
        found = found.get("config")
    return found if isinstance(found, str) else "unknown"


def of_graph(view: GraphView) -> Neighbours:
    """By the nodes around a layer's sites."""
    flat = view.flat
    sites = {flat.names[site.node]: site for layer in view.layers for site in layer.sites}

    def ask(layer: Layer) -> Arithmetic:
        found = [sites[site.name] for site in layer.sites if site.name in sites]
        if not found:
            return ANYWHERE
        inputs = [site.x for site in found]
        return Arithmetic(
            before=any(x is None or _made_of_constants(flat, x) for x in inputs),
            behind=any(_read_with_constants(flat, site.node) for site in found),
        )

    return ask


def _made_of_constants(flat: FlatGraph, x: int) -> bool:
    """Whether the linear op above a site takes something that may be scaled or shifted."""
    linear = upstream(flat, x).linear
    if linear is None:
        return False
    e = flat.data[linear][DATA_INPUT.get(flat.ops[linear], 0)]
    for _ in range(_MOST):
        node = node_of(e)
        if flat.ops[node] in _SHAPE_OPS and flat.data[node]:
            e = flat.data[node][0]
            continue
        back = steps_back(flat, e)
        if back is None:
            return flat.ops[node] in _ENDS or flat.ops[node] == "Mul" or _by_constant(flat, node)
        if len(back) != 1:
            return True
        e = back[0]
    return True


def _read_with_constants(flat: FlatGraph, node: int) -> bool:
    """Whether something behind a site may scale or shift it; True at the end of the graph."""
    pending, seen = [node], {node}
    while pending and len(seen) < _MOST:
        following = flat.consumers(pending.pop())
        if not following:
            return True
        for reader in following:
            op = flat.ops[reader]
            if op in _ANY or _by_constant(flat, reader):
                return True
            passes = op in _SHAPE_OPS or reader in flat.returns or steps_back(flat, edge(reader)) is not None
            if passes and op not in _BY_CONSTANTS and reader not in seen:
                seen.add(reader)
                pending.append(reader)
    return bool(pending)


def _by_constant(flat: FlatGraph, node: int) -> bool:
    """Whether a sum, difference or quotient has a constant or variable among its operands."""
    if flat.ops[node] not in _BY_CONSTANTS:
        return False
    origins = [[flat.ops[node_of(x)] for x in sources(flat, e)] for e in flat.data[node]]
    return any(found and all(op == "Const" or op in VARIABLES for op in found) for found in origins)
