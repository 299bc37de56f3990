"""Which ops of a model may run: numbers in, numbers out. Told by TensorFlow's registry, and by a short list by hand.

An op counts as allowed where TensorFlow generates it among its ops of mathematics, arrays, control flow and the like
(`tensorflow.python.ops.gen_*_ops`) and registers it as stateless, or where it stands here with a reason. What touches
files, the network, processes, Python or the terminal, and what may wait for ever, is in none of the two.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Container, Iterable, Iterator
from functools import cache
from typing import Any

from bncheck.compare.twins.libraries import load_tensorflow
from bncheck.facts.errors import BncheckError

_FAMILIES = (
    *("array", "bitwise", "clustering", "control_flow", "count", "ctc", "functional", "image", "linalg", "list"),
    *("manip", "math", "nn", "ragged_array", "ragged_conversion", "ragged_math", "random", "random_index_shuffle"),
    *("rnn", "set", "sparse", "special_math", "spectral", "stateless_random", "string"),
)
"""Modules `gen_*_ops` whose stateless ops turn values into values."""

_REASONS = {
    "calls a function, whose ops are looked at": ("Case", "If", "StatefulPartitionedCall", "While"),
    "tells on which kind of device it runs, by which recurrent layers choose a kernel": ("DeviceIndex",),
    "ends the run where values are not as they should be": ("Assert", "CheckNumerics", "CheckNumericsV2"),
    "memory of its own": ("DeepCopy", "Empty", "GuaranteeConst"),
    "draws numbers": (
        *("Multinomial", "ParameterizedTruncatedNormal", "RandomGamma", "RandomPoisson", "RandomPoissonV2"),
        *("RandomShuffle", "RandomStandardNormal", "RandomUniform", "RandomUniformInt", "StatelessRandomGetAlg"),
        *("TruncatedNormal", "RandomCrop", "SampleDistortedBoundingBox", "SampleDistortedBoundingBoxV2"),
    ),
    "recurrent kernels for GPUs, in a branch that a CPU does not take": ("CudnnRNN", "CudnnRNNV2", "CudnnRNNV3"),
    "arrays that loops read and write, which do not wait": (
        *("TensorArrayV3", "TensorArrayReadV3", "TensorArrayWriteV3", "TensorArrayGatherV3", "TensorArrayScatterV3"),
        *("TensorArrayConcatV3", "TensorArraySplitV3", "TensorArraySizeV3", "TensorArrayCloseV3"),
    ),
    "the model's own variables, read": (
        *("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VarHandleOp", "VarIsInitializedOp"),
        *("Variable", "VariableShape", "VariableV2"),
    ),
    "written by TensorFlow's optimizer in place of stateless ones": (
        *("_FusedBatchNormEx", "_FusedConv2D", "_FusedDepthwiseConv2dNative", "_FusedMatMul", "_SwitchN"),
    ),
    "sorts values into parts; its family holds queues and tables": (
        *("DynamicPartition", "DynamicStitch", "ParallelDynamicStitch"),
    ),
}
"""Reason -> ops that are allowed though no family tells so."""
_BY_HAND = frozenset(op for ops in _REASONS.values() for op in ops)
_NOT = {"Abort": "ends the process", "ImmutableConst": "maps a file"}
"""Stateless ops of the families that do more than to turn values into values."""


@cache
def allowed(op: str) -> bool:
    """Whether an op of this type may run without `--trust-model`. Raises BncheckError without TensorFlow."""
    if op in _BY_HAND:
        return True
    if op in _NOT or not op.isidentifier():
        return False
    load_tensorflow()
    registry = importlib.import_module("tensorflow.python.framework.op_def_registry")
    found = registry.get(op) if any(op in vars(family) for family in _families()) else None
    return found is not None and not found.is_stateful


@cache
def _families() -> tuple[Any, ...]:
    """Those that this TensorFlow has."""
    names = [f"tensorflow.python.ops.gen_{family}_ops" for family in _FAMILIES]
    names.append("tensorflow.python.ops.gen_stateless_random_ops_v2")
    return tuple(importlib.import_module(name) for name in names if importlib.util.find_spec(name) is not None)


def keep_reached(graph_def: Any) -> None:
    """Drops from a GraphDef's library each function that none of its nodes reaches, and all gradient functions.

    TensorFlow takes a function of its name for an op, and its optimizer may take one function for another; what is not
    there cannot be taken.
    """
    functions = {function.signature.name: function for function in graph_def.library.function}
    reached = dict[str, Any]()
    pending = list(_called(graph_def.node, functions))
    while pending:
        name = pending.pop()
        if name in functions and name not in reached:
            reached[name] = functions[name]
            pending.extend(_called(functions[name].node_def, functions))
    kept = [function.SerializeToString() for function in reached.values()]
    graph_def.ClearField("library")  # with all that its message does not know of, as the gradient functions
    for function in kept:
        graph_def.library.function.add().ParseFromString(function)


def refuse_others(graph_def: Any) -> None:
    """Raises BncheckError for the first node of twins that may not run, those in all functions of the library included.

    A function of an op's name stands in its place, and is looked at as one.
    """
    functions = {function.signature.name for function in graph_def.library.function}
    _refuse(graph_def.node, functions, "")
    for function in graph_def.library.function:
        _refuse(function.node_def, functions, f", in the function {function.signature.name},")


def _refuse(nodes: Iterable[Any], functions: Container[str], where: str) -> None:
    for node in nodes:
        if node.op not in functions and not allowed(node.op):
            name = node.name if where else node.name.partition("/")[2]  # the first part is that of the twin
            raise BncheckError(
                f"{name}{where} is the op {node.op}, not one of the ops of mathematics, arrays and control flow that "
                "bncheck runs: it could touch files, the network or Python, or hang, and runs only with --trust-model"
            )


def _called(nodes: Iterable[Any], functions: Container[str]) -> Iterator[str]:
    """Names of functions that nodes are, or name in an attribute."""
    for node in nodes:
        if node.op in functions:
            yield node.op
        for value in node.attr.values():
            yield from _named(value)


def _named(value: Any) -> Iterator[str]:
    """Functions that a value of an attribute names, those in the attributes that it gives them included."""
    for func in (*([value.func] if value.HasField("func") else ()), *value.list.func):
        yield func.name
        for inner in func.attr.values():
            yield from _named(inner)
