"""How a model is run on data: the options that `compare`, `gate` and `repair` share, each listed once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from bncheck.facts.layers import Given

SYNTHETIC = "synthetic"
"""In the place of data: noise."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The data, and the way that they take through the model."""

    inputs: str | None = None
    """Tensor at which the data enter; None: what the graph tells."""
    outputs: Sequence[str] = ()
    """Tensors to compare at; none: what the graph tells."""
    batch_size: int | None = None
    """None: the graph's own, else 32."""
    batches: int | None = None
    """As many at most; None: all."""
    preprocess: str | None = None
    """A name in `compare.preprocess.RANGES`: what bytes become."""
    labels: str | None = None
    """A file of integers, the name of an array or feature beside the images, or "folders"."""
    channel_order: str = "rgb"
    """Of decoded images, "rgb" or "bgr"."""
    size: tuple[int, int] | None = None
    """(height, width), for models that take images of any size."""
    model: str | None = None
    """A named backbone, "mobilenet_v2:depth_multiplier=0.35", for a checkpoint without a graph."""
    builder: str | None = None
    """"pkg.mod:function" with `function(images, is_training)`, for the same."""
    trust_model: bool = False
    """Whether ops may run that touch files, the network or Python."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(RunOptions):
    """As `RunOptions`, with what `inspect_checkpoint` takes."""

    graph: str | Path | None = None
    """The graph of a checkpoint, where it is not the `.meta` of the same prefix."""
    use_graph: bool = True
    decay: float | None = None
    """TensorFlow's, 0 to 1, where no file tells it."""
    steps: int | None = None
    """Updates of the statistics, where no file tells them."""
    train_ops: Sequence[str] = ()
    """Names of the ops that train."""


class CompareKeywords(TypedDict, total=False):
    """The fields of `CompareOptions` as keyword arguments, for type checkers (PEP 692)."""

    inputs: str | None
    outputs: Sequence[str]
    batch_size: int | None
    batches: int | None
    preprocess: str | None
    labels: str | None
    channel_order: str
    size: tuple[int, int] | None
    model: str | None
    builder: str | None
    trust_model: bool
    graph: str | Path | None
    use_graph: bool
    decay: float | None
    steps: int | None
    train_ops: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """What float is compared with: a TFLite file, or a conversion."""

    quantized: str | Path | None = None
    """A file that was converted from the model."""
    scheme: str | None = None
    calibration_batches: int | None = None


def given(options: CompareOptions, data: str | Path | None = None) -> Given:
    """The same as words of a command line, in the order of the fields; how many batches, each command says for itself.

    Data made up say nothing and are not repeated.
    """
    running = [
        *_option("model", options.model),
        *_option("builder", options.builder),
        *_option("inputs", options.inputs),
        *(word for name in options.outputs for word in _option("outputs", name)),
        *_option("preprocess", options.preprocess),
        *_option("channel-order", None if options.channel_order == "rgb" else options.channel_order),
        *_option("size", None if options.size is None else "x".join(map(str, options.size))),
        *_option("labels", options.labels),
        *_option("batch-size", options.batch_size),
        *(["--trust-model"] if options.trust_model else []),
    ]
    return Given(
        data=None if data is None or str(data) == SYNTHETIC else str(data),
        reading=(
            *_option("graph", options.graph),
            *(() if options.use_graph else ("--no-graph",)),
            *_option("decay", options.decay),
            *_option("steps", options.steps),
        ),
        running=tuple(running),
        training=tuple(word for name in options.train_ops for word in _option("train-op", name)),
    )


def _option(name: str, value: object) -> tuple[str, ...]:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return () if value is None else (f"--{name}={text}",) if text.startswith("-") else (f"--{name}", text)


def shows_options(function: _Function) -> _Function:
    """Lists each keyword of `CompareKeywords` in a function's signature: `help` and notebooks show `**options` else."""
    shown = inspect.signature(function)
    listed = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(CompareOptions)
    ]
    own = [parameter for parameter in shown.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    function.__signature__ = shown.replace(parameters=[*own, *listed])  # type: ignore[attr-defined]  # typeshed has none
    return function
