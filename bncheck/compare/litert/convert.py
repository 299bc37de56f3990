"""The eval side of a model's twins -> TFLite files, float and quantized, by TensorFlow's own converter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.backbones import quiet_tensorflow
from bncheck.compare.litert import recipes
from bncheck.compare.litert.calibrate import can_calibrate, ranges, with_ranges
from bncheck.compare.litert.even_ranges import with_even_ranges
from bncheck.compare.litert.interpreter import LiteFile, feeds_of, read_file
from bncheck.compare.litert.native_output import silence
from bncheck.compare.prepared import Prepared
from bncheck.compare.twins.float32 import in_float32
from bncheck.compare.twins.forward import Forward
from bncheck.compare.twins.loops import settle_lists
from bncheck.compare.twins.writer import EVAL, FLOAT
from bncheck.facts.errors import BncheckError, UsageError
from bncheck.facts.layers import PerChannel
from bncheck.settings.schemes import recipe_of, unknown
from bncheck.sources.graph import protos

CALIBRATED = frozenset({"int8", "int8-per-tensor", "int16x8"})
"""Schemes that need data for the ranges of activations."""
FLOAT_SCHEME = "float"
LEARNED = "int8"
"""The scheme for which a model that was trained quantization-aware has ranges of its own: no data are needed."""
_FAKE = frozenset(
    "FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantizeV2 "
    "QuantizeAndDequantizeV3 QuantizeAndDequantizeV4".split()
)
"""Ops that round to steps and give real numbers again; their first input is what they round."""

Statistics = Mapping[str, tuple[PerChannel, PerChannel]]
"""Layer name -> (mean, variance) to take in place of the stored ones."""
Shapes = Sequence[tuple[int | None, ...]]
"""Of each input, None for an open axis."""
Calibration = Iterable[NDArray[Any]]
"""Batches of images (samples, ...), all of one shape; gone through once a conversion."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EvalGraph:
    """The forward pass in inference mode: a GraphDef (a message of `sources/protos.py`) of constants and inputs."""

    graph_def: Any
    inputs: tuple[str, ...]
    """In the order of a batch's fields."""
    outputs: tuple[str, ...]


def eval_graph(forward: Forward, *, statistics: Statistics | None = None, shapes: Shapes | None = None) -> EvalGraph:
    """The eval twin alone, under the names of the model's own graph, in float32; the train twin falls away.

    `statistics` replace the stored ones of the layers that they name (UsageError for a layer that is not there, or of
    other channels); `shapes` are those of the data, batch axis first, for axes that the graph leaves open.
    """
    nodes = {node.name: node for node in forward.graph_def.node}
    replaced = _replaced(forward, statistics or {})
    own = f"{EVAL}/"
    names = [entry.tensor for entry in forward.inputs]
    known = {} if shapes is None else dict(zip(map(_node_name, names), shapes, strict=True))
    graph_def = protos.GraphDef()
    graph_def.library.CopyFrom(forward.graph_def.library)
    for name in _needed(nodes, forward.eval_outputs):
        node = graph_def.node.add()
        node.CopyFrom(nodes[name])
        node.name = name.removeprefix(own)
        for number, read in enumerate(node.input):
            mark = "^" if read.startswith("^") else ""
            node.input[number] = mark + read.removeprefix("^").removeprefix(own)
        if name in replaced:
            _overwrite(node, replaced[name])
        if node.name in known:
            _settle_shape(node, known[node.name])
    in_float32(graph_def)
    if settle_lists(graph_def):
        _of_one_sample(graph_def)
    return EvalGraph(
        graph_def=graph_def,
        inputs=tuple(names),
        outputs=tuple(o.removeprefix(own) for o in forward.eval_outputs),
    )


def _needed(nodes: Mapping[str, Any], outputs: Iterable[str]) -> list[str]:
    """Names of the nodes behind the outputs, in the graph's own order."""
    stack, seen = [_node_name(o) for o in outputs], set[str]()
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            stack.extend(_node_name(read) for read in nodes[name].input)
    return [name for name in nodes if name in seen]


def _node_name(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _replaced(forward: Forward, statistics: Statistics) -> dict[str, PerChannel]:
    """Name of a constant of the eval twin -> its new value."""
    found: dict[str, PerChannel] = {}
    for site in forward.sites:
        if site.layer in statistics:
            base = _node_name(site.eval_output)
            found[f"{base}/mean"], found[f"{base}/variance"] = statistics[site.layer]
    unknown = set(statistics) - {site.layer for site in forward.sites}
    if unknown:
        raise UsageError(f"the forward pass has no batch norm {min(unknown)} to take statistics")
    return found


def _overwrite(node: Any, values: PerChannel) -> None:
    tensor = node.attr["value"].tensor
    held = len(tensor.tensor_content) // 4
    if held != values.size:
        raise UsageError(f"{node.name} holds {held} channels, not {values.size}")
    tensor.tensor_content = np.asarray(values, np.float32).astype("<f4", copy=False).tobytes()


def _settle_shape(node: Any, shape: tuple[int | None, ...]) -> None:
    """Fills in what the placeholder leaves open; the batch axis stays open."""
    declared = node.attr["shape"].shape
    if declared.unknown_rank:
        declared.Clear()
        for number, size in enumerate(shape):
            declared.dim.add(size=-1 if number == 0 or size is None else size)
        return
    for dim, size in list(zip(declared.dim, shape, strict=False))[1:]:
        if dim.size < 0 and size is not None:
            dim.size = size


def _of_one_sample(graph_def: Any) -> None:
    for node in graph_def.node:
        if node.op == "Placeholder" and node.attr["shape"].shape.dim:
            node.attr["shape"].shape.dim[0].size = 1


def _takes_one_sample(graph: EvalGraph) -> bool:
    entry = next((node for node in graph.graph_def.node if node.name == _node_name(graph.inputs[0])), None)
    return entry is not None and [dim.size for dim in entry.attr["shape"].shape.dim[:1]] == [1]


def float_model(
    tf: Any, prepared: Prepared, *, statistics: Statistics | None = None, shapes: Shapes | None = None
) -> bytes:
    """The model's eval mode as a float TFLite file; arguments as `eval_graph`, errors as `convert`.

    Of a model that was trained quantization-aware without the rounding that it does in training.
    """
    return convert(tf, unrounded(eval_graph(prepared.forward, statistics=statistics, shapes=shapes)))


def quantized_model(
    tf: Any,
    prepared: Prepared,
    scheme: str,
    calibration: Calibration,
    *,
    statistics: Statistics | None = None,
    shapes: Shapes | None = None,
    exact: LiteFile | None = None,
) -> bytes:
    """The same, quantized by a scheme of `settings.schemes`.

    `exact` is what `float_model` gave for the same arguments.
    """
    graph = eval_graph(prepared.forward, statistics=statistics, shapes=shapes)
    if rounds(graph) and scheme == LEARNED and statistics is None:  # what was learned belongs to the stored ones
        return convert(tf, replace(graph, graph_def=with_even_ranges(graph.graph_def)), scheme)
    return convert(tf, unrounded(graph), scheme, calibration, exact=exact)


def rounds(graph: EvalGraph) -> bool:
    """Whether the model was trained quantization-aware: it rounds to 8 bits itself, by ranges that it learned."""
    return any(node.op in _FAKE for node in graph.graph_def.node)


def unrounded(graph: EvalGraph) -> EvalGraph:
    """The same model without rounding of its own."""
    if not rounds(graph):
        return graph
    graph_def = protos.GraphDef()
    graph_def.CopyFrom(graph.graph_def)
    for node in graph_def.node:
        if node.op in _FAKE:
            del node.input[1:]
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = FLOAT
    return EvalGraph(graph_def=graph_def, inputs=graph.inputs, outputs=graph.outputs)


def convert(
    tf: Any,
    graph: EvalGraph,
    scheme: str = FLOAT_SCHEME,
    calibration: Calibration = (),
    *,
    exact: LiteFile | None = None,
) -> bytes:
    """A TFLite file with float input and output: "float", or a scheme of `settings.schemes`.

    Raises BncheckError, with the operation that stands in the way, where TensorFlow refuses, and UsageError for a
    scheme that is not known or lacks its data.
    """
    if scheme != FLOAT_SCHEME and (sentence := unknown(scheme)) is not None:
        raise UsageError(sentence)
    recipe = recipe_of(scheme)
    if recipe is not None:
        return by_recipe(exact or read_file(convert(tf, graph)), recipe, calibration)
    learned = scheme == LEARNED and rounds(graph)
    if scheme in ("int8", "int8-per-tensor") and not learned:
        file = exact or read_file(convert(tf, graph))
        if can_calibrate(file):
            return _quantize(tf, file, scheme, calibration)
    if scheme in CALIBRATED and not learned:
        _refuse_loops(graph, scheme)
    batches = list(calibration) if scheme in CALIBRATED and not learned else []
    if _takes_one_sample(graph):
        batches = [sample[None] for batch in batches for sample in batch]
    if scheme in CALIBRATED and not batches and not learned:
        raise UsageError(_NO_DATA.format(scheme))
    with silence() as said, quiet_tensorflow.without_warnings():
        try:
            converter = _learned_converter(tf, graph) if learned else _converter(tf, graph)
            _configure(tf, converter, scheme, batches)
            if scheme == FLOAT_SCHEME:
                _leave_as_it_is(converter)
            return bytes(converter.convert())
        except (tf.errors.OpError, RuntimeError, ValueError, *_refusals()) as error:
            raise BncheckError(_sentence(error, said(), scheme)) from error


def _refuse_loops(graph: EvalGraph, scheme: str) -> None:
    """TensorFlow's calibrator (seen in 2.21) ends the process at a loop."""
    loop = next((node for node in graph.graph_def.node if node.op in ("While", "StatelessWhile")), None)
    if loop is not None:
        raise BncheckError(
            f"TensorFlow cannot convert this model to TFLite with scheme {scheme}: it finds no ranges in the loop "
            f"{loop.name}; --scheme int8 leaves loops in float, dynamic and float16 need no ranges"
        )


def by_recipe(file: LiteFile, recipe: str, calibration: Calibration) -> bytes:
    """A float file quantized by a recipe of ai-edge-quantizer; errors as `recipes.quantize`."""
    parts = (part for batch in calibration for part in (np.split(batch, len(batch)) if file.batch == 1 else (batch,)))
    return recipes.quantize(file.content, recipe, (feeds_of(file, part) for part in parts))


_NO_DATA = "{} takes its ranges from data: give at least one batch to calibrate on"


def _quantize(tf: Any, file: LiteFile, scheme: str, calibration: Calibration) -> bytes:
    """What the converter does for these schemes once it has a float file, with the ranges from XNNPACK's kernels."""
    found = ranges(file, calibration)
    if not found:
        raise UsageError(_NO_DATA.format(scheme))
    calibrated = with_ranges(file.content, found)
    with silence() as said, quiet_tensorflow.without_warnings():
        from tensorflow.lite.python.convert import mlir_quantize  # noqa: PLC0415 - heavy

        try:
            return bytes(mlir_quantize(calibrated, disable_per_channel=scheme == "int8-per-tensor"))
        except (tf.errors.OpError, RuntimeError, ValueError, *_refusals()) as error:
            raise BncheckError(_sentence(error, said(), scheme)) from error


def _converter(tf: Any, graph: EvalGraph) -> Any:
    """TensorFlow's converter for frozen graphs: a quarter of the time of the one for concrete functions.

    It asks a loaded graph for the names, types and shapes of the ends and nothing else, so that only these are loaded.
    """
    graph_def = tf.compat.v1.GraphDef.FromString(graph.graph_def.SerializeToString())
    names = [name if ":" in name else f"{name}:0" for name in (*graph.inputs, *graph.outputs)]
    count = len(graph.inputs)
    ends = tf.Graph()
    with ends.as_default():
        tf.graph_util.import_graph_def(_ends(tf, graph_def, names, count), name="")
    tensors = [ends.get_tensor_by_name(name) for name in names]
    return tf.compat.v1.lite.TFLiteConverter(graph_def, tensors[:count], tensors[count:])


def _ends(tf: Any, graph_def: Any, tensors: list[str], count: int) -> Any:
    """A graph of the first `count` tensors, the inputs, and placeholders for the rest; the whole if none can stand."""
    names = [_node_name(tensor) for tensor in tensors]
    own = [node for node in graph_def.node if node.name in names[:count]]
    if any(node.op != "Placeholder" for node in own) or not all(tensor.endswith(":0") for tensor in tensors):
        return graph_def
    ends = tf.compat.v1.GraphDef(node=own, versions=graph_def.versions)
    for name in dict.fromkeys(names[count:]):
        if name not in names[:count]:
            ends.node.add(name=name, op="Placeholder").attr["dtype"].type = FLOAT
    return ends


def _learned_converter(tf: Any, graph: EvalGraph) -> Any:
    """The one for concrete functions: the other takes ranges in the graph for a float model's."""
    graph_def = tf.compat.v1.GraphDef.FromString(graph.graph_def.SerializeToString())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph_def, name=""), [])
    entries, exits = (
        [wrapped.graph.get_tensor_by_name(name if ":" in name else f"{name}:0") for name in names]
        for names in (graph.inputs, graph.outputs)
    )
    return tf.lite.TFLiteConverter.from_concrete_functions([wrapped.prune(entries, exits)])


def _leave_as_it_is(converter: Any) -> None:
    """Leaves out what the converter does in Python to a float file, a third of its time: none of it is a number.

    It unpacks and packs the file twice, to share buffers of equal content and to note the converter's own version.
    Where another TensorFlow has no method of that name, it does what it always does.
    """
    converter.exclude_conversion_metadata = True
    converter._optimize_tflite_model = lambda model, *_args, **_kwargs: model


def _configure(tf: Any, converter: Any, scheme: str, batches: list[NDArray[Any]]) -> None:
    if scheme == FLOAT_SCHEME:
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if not batches and scheme == LEARNED:
        return  # the ranges are in the graph
    if scheme in CALIBRATED:
        first = batches[0].shape
        converter.representative_dataset = lambda: (_columns(batch) for batch in batches if batch.shape == first)
    if scheme in ("int8", "int8-per-tensor"):
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter._experimental_disable_per_channel = scheme == "int8-per-tensor"
    elif scheme == "int16x8":
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]
    elif scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]


def _columns(batch: NDArray[Any]) -> list[NDArray[Any]]:
    """Of each input the values, in order."""
    return [batch] if batch.dtype.names is None else [np.ascontiguousarray(batch[name]) for name in batch.dtype.names]


def _refusals() -> tuple[type[Exception], ...]:
    """The converter's own error, where this TensorFlow has one."""
    try:
        from tensorflow.lite.python.convert import ConverterError  # noqa: PLC0415 - heavy
    except ImportError:
        return ()
    return (ConverterError,)


_NAMED_OPS = re.compile(r"(?:Custom|Select|Flex) ops: *([\w, ]+)")
_NAMED_OP = re.compile(r"'((?:tf|tfl)\.\w+)' op|[Oo]p(?:erator)?:? *'(\w+)'|Node number \d+ \((\w+)\)")
_LEADS = re.compile(r"^(?:Could not translate MLIR to FlatBuffer\.)?(?:<unknown>:0: )?(?:error: )?(?:loc\(.*?\): )?")


def _sentence(error: Exception, said: str, scheme: str) -> str:
    """Which operation stands in the way, as far as the converter tells; its own first line otherwise."""
    what = "a float TFLite file" if scheme == FLOAT_SCHEME else f"TFLite with scheme {scheme}"
    text = f"{error}\n{said}"
    several = _NAMED_OPS.search(text)
    single = _NAMED_OP.search(text)
    if several is not None:
        ops = several.group(1).strip().rstrip(",")
        return f"TensorFlow cannot convert this model to {what}: TFLite has no operator for {ops}"
    lines = [_LEADS.sub("", line).strip() for line in text.splitlines()]
    reason = next((line for line in lines if line), type(error).__name__)[:300]
    if single is not None:
        op = next(name for name in single.groups() if name)
        return f"TensorFlow cannot convert this model to {what}: {op} cannot be converted ({reason})"
    return f"TensorFlow cannot convert this model to {what}: {reason}"
