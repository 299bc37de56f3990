"""A backbone or a user's builder -> its inference graph beside the checkpoint's tensors, as a `.meta` would give it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import tensorflow as tf

from bncheck.backbones.builders import Builder, run_builder
from bncheck.backbones.checkpoint_fit import check_builder, check_network, check_scope, told, under
from bncheck.backbones.keras_names import renamed
from bncheck.backbones.quiet_tensorflow import without_warnings
from bncheck.backbones.registry import Spec
from bncheck.backbones.slim_compat import load_net, load_slim, mend_loaded_slim
from bncheck.facts.errors import BncheckError, UsageError
from bncheck.facts.formats import FileKind, Format
from bncheck.sources.graph import protos
from bncheck.sources.graph.graphs import meta_graph
from bncheck.sources.raw import RawModel, RawTensor

v1 = tf.compat.v1

Tensor: TypeAlias = Any
Shape: TypeAlias = "tuple[int | None, ...] | None"
"""(height, width, channels) of one image; None for what is not known."""

INPUT = "input"
SIGNATURE = "serving_default"


def named(spec: Spec, tensors: Mapping[str, RawTensor], path: Path, shape: Shape) -> RawModel:
    """The graph of a named backbone: see `build.build`. Raises BncheckError where it does not fit the tensors."""
    notes: list[str] = []
    keras = renamed(tensors, spec.scope) if spec.backbone.name == "mobilenet_v2" else None
    if keras is not None:
        tensors = keras.tensors
        layers = sorted({name.rpartition("/")[0] for name in keras.left_out})
        notes += (
            [f"MobileNetV2 weights from Keras; ignored, as they are not part of it: {', '.join(layers)}"]
            if layers
            else []
        )
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    check_scope(spec, shapes)
    whole = told(spec, shapes)
    if whole.options != spec.options:
        found = {key: value for key, value in whole.options.items() if key not in spec.options}
        notes.append(f"derived from the checkpoint: {replace(spec, options=found)}")
    height, width, _ = shape or (None, None, None)
    if "image_size" in spec.options or not (height and width):
        height = width = spec.options.get("image_size", spec.backbone.image_size)
    stem = shapes.get(under(spec.scope, spec.backbone.stem), ())
    channels = stem[2] if len(stem) == 4 else 3
    with _graph() as graph, without_warnings():
        images = v1.placeholder(tf.float32, [None, height, width, channels], name=INPUT)
        try:
            outputs = _network(whole, images)
        except ValueError as error:
            raise BncheckError(
                f"{whole} cannot be built (for images of {height}x{width}): {_first_line(error)}"
            ) from error
        notes += check_network(whole, _wanted(graph, outputs), _all_variables(graph), shapes)
        return _model(outputs, tensors, path, spec.backbone.name, tuple(notes))


def by_builder(builder: Builder, tensors: Mapping[str, RawTensor], path: Path, shape: Shape) -> RawModel:
    """The graph of a user's builder: see `build.build`. Raises BncheckError where it does not fit the tensors."""
    mend_loaded_slim()
    with _graph() as graph:
        images = v1.placeholder(tf.float32, [None, *(shape or (None, None, 3))], name=INPUT)
        outputs = _named_outputs(builder, run_builder(builder, images))
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        notes = check_builder(str(builder), _wanted(graph, outputs), _all_variables(graph), shapes)
        return _model(outputs, tensors, path, str(builder), tuple(notes))


@contextmanager
def _graph() -> Iterator[Any]:
    """A graph of TensorFlow 1, whose variables are resources whatever the process has chosen."""
    with tf.Graph().as_default() as graph, v1.variable_scope(v1.get_variable_scope(), use_resource=True):
        yield graph


def _network(spec: Spec, images: Tensor) -> dict[str, Tensor]:
    """Output name -> tensor, in inference mode."""
    options = {key: value for key, value in spec.options.items() if key not in ("image_size", "partial", "scope")}
    classes = options.pop("num_classes", 0) or None
    kind = spec.backbone.module.rpartition("_")[0] or spec.backbone.name
    outputs = {"mobilenet_v2": _mobilenet, "resnet": _resnet, "inception": _inception}[kind](
        spec, images, classes, options
    )
    return {name: tf.identity(tensor, name=name) for name, tensor in outputs.items()}


def _mobilenet(spec: Spec, images: Tensor, classes: int | None, options: dict[str, Any]) -> dict[str, Tensor]:
    from bncheck.backbones import mobilenet_v2  # noqa: PLC0415 - builders may do without TF-slim

    epsilon = options.pop("epsilon", 1e-3)
    end = options.pop("final_endpoint", None) or (None if classes else mobilenet_v2.LAST_LAYER)
    with mobilenet_v2.slim.arg_scope(mobilenet_v2.training_scope(is_training=False, bn_epsilon=epsilon)):
        first, _ = mobilenet_v2.mobilenet(images, classes, scope=spec.scope, final_endpoint=end, **options)
    return {"logits" if end is None else end.replace("/", "_"): first}


def _resnet(spec: Spec, images: Tensor, classes: int | None, options: dict[str, Any]) -> dict[str, Tensor]:
    slim, net = load_slim(), load_net(spec.backbone.module)
    with slim.arg_scope(net.resnet_arg_scope(batch_norm_epsilon=options.pop("epsilon", 1e-5))):
        # features are left with their places: a pooled vector would pass for one score a class
        first, _ = getattr(net, spec.backbone.name)(
            images, classes, is_training=False, global_pool=classes is not None, scope=spec.scope, **options
        )
    return {"logits": _without_places(first)} if classes else {"features": first}


def _inception(spec: Spec, images: Tensor, classes: int | None, options: dict[str, Any]) -> dict[str, Tensor]:
    slim, net, name = load_slim(), load_net(spec.backbone.module), spec.backbone.name
    with slim.arg_scope(getattr(net, f"{name}_arg_scope")()):
        if classes:
            arguments = {"is_training": False, "spatial_squeeze": False, "scope": spec.scope, **options}
            first, _ = getattr(net, name)(images, classes, **arguments)
            return {"logits": _without_places(first)}
        options.pop("create_aux_logits", None)
        with (
            v1.variable_scope(spec.scope) as variables,
            slim.arg_scope([slim.batch_norm, slim.dropout], is_training=False),
        ):
            first, _ = getattr(net, f"{name}_base")(images, scope=variables, **options)
    return {"features": first}


def _without_places(logits: Tensor) -> Tensor:
    """(batch, height, width, classes) -> (batch, classes): their mean, which is the only one after a global pool."""
    return v1.reduce_mean(logits, axis=[1, 2]) if logits.shape.rank == 4 else logits


def _named_outputs(builder: Builder, given: Any) -> dict[str, Tensor]:
    """What the user's function gave, each under a name of its own in the graph."""
    first = given[0] if isinstance(given, tuple | list) and given else given
    named_ = first if isinstance(first, Mapping) else {"output": first}
    if not named_:
        raise UsageError(f"{builder} returned no output: expected a tensor, (tensor, end points) or {{name: tensor}}")
    for key, value in named_.items():
        if not tf.is_tensor(value) or value.graph is not v1.get_default_graph():
            raise UsageError(
                f"{builder} gave {type(value).__name__} for {key!r}: it must build in the current graph and return a "
                "tensor, (tensor, end points) or {name: tensor}"
            )
    return {str(key): tf.identity(value, name=f"outputs/{_clean(str(key))}") for key, value in named_.items()}


def _clean(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.-/") else "_" for c in name).strip("/") or "output"


def _all_variables(graph: Any) -> dict[str, tuple[int | None, ...]]:
    """Checkpoint key -> shape; a partitioned variable is one."""
    with graph.as_default():
        return dict(_entry(variable) for variable in v1.global_variables())


def _entry(variable: Any) -> tuple[str, tuple[int | None, ...]]:
    part = variable.to_proto().save_slice_info_def
    if part.full_name:
        return part.full_name, tuple(part.full_shape)
    return variable.op.name, () if variable.shape.rank is None else tuple(variable.shape.as_list())


def _wanted(graph: Any, outputs: Mapping[str, Tensor]) -> dict[str, tuple[int | None, ...]]:
    """Those of `_all_variables` that the outputs are computed from."""
    seen: set[Any] = set()
    stack = [tensor.op for tensor in outputs.values()]
    while stack:
        op = stack.pop()
        if op not in seen:
            seen.add(op)
            stack += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    with graph.as_default():
        return dict(_entry(variable) for variable in v1.global_variables() if variable.op in seen)


def _model(
    outputs: Mapping[str, Tensor], tensors: Mapping[str, RawTensor], path: Path, what: str, notes: tuple[str, ...]
) -> RawModel:
    exported = v1.train.export_meta_graph(clear_devices=True)
    message = protos.MetaGraphDef.FromString(exported.SerializeToString())
    signature = message.signature_def[SIGNATURE]
    signature.inputs["images"].name = f"{INPUT}:0"
    for name, tensor in outputs.items():
        signature.outputs[name].name = tensor.name
    graph = replace(meta_graph(path, message), path=path)
    form = Format(FileKind.NETWORK, f"checkpoint + {what}")
    return RawModel(path=path, format=form, tensors=dict(tensors), graphs=(graph,), notes=notes)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
