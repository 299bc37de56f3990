"""A named backbone or a builder, and a checkpoint's tensors -> a model that can be run; TensorFlow is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bncheck.backbones.builders import Builder, load_builder
from bncheck.backbones.quiet_tensorflow import load_tensorflow
from bncheck.backbones.registry import Spec, parse
from bncheck.facts.errors import BncheckError
from bncheck.facts.extras import install
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel, RawTensor


def with_network(raw: RawModel, options: Options, shape: tuple[int | None, ...] | None) -> RawModel:
    """The model that `options` name, with the values of `raw`; `raw` itself where they name none.

    `shape` is that of one sample, as far as it is known. Raises UsageError where the tensors do not fit the network.
    """
    if options.model is None and options.builder is None:
        return raw
    what = parse(options.model) if options.model is not None else load_builder(options.builder or "")
    return build(what, raw.tensors, path=raw.path, input_shape=shape)


def build(
    what: Spec | Builder,
    tensors: Mapping[str, RawTensor],
    *,
    path: Path | str = "",
    input_shape: tuple[int | None, ...] | None = None,
) -> RawModel:
    """The inference graph of `what`, with the checkpoint's tensors: what reading a `.meta` beside a checkpoint gives.

    The graph has one float placeholder `input` (batch, height, width, channels), batch norm in eval mode, and a
    signature that names its outputs. `tensors` are those of the checkpoint at `path`; Keras's names of MobileNetV2 are
    understood, and the model then has them by ours. `input_shape` (height, width, channels) is that of the data at
    hand; the option `image_size` goes before it, and without both the input has the size that the backbone was made
    for. Raises BncheckError where the checkpoint and the graph do not fit each other, or without TensorFlow.
    """
    try:
        load_tensorflow()
        from bncheck.backbones import inference_graph  # noqa: PLC0415 - needs TensorFlow

        if isinstance(what, Spec):
            return inference_graph.named(what, tensors, Path(path), input_shape)
        return inference_graph.by_builder(what, tensors, Path(path), input_shape)
    except ModuleNotFoundError as error:
        raise BncheckError(f"{error.name} is not installed: {install('tf')}") from error
