"""Every option of a run, listed once.

The command line, `[tool.bncheck]`, the keyword arguments of the Python API, the help, and the words by which a
recommended command repeats what was given are made of `Options`: a new option is one field here.
"""

# ruff: noqa: FBT003 - `option` gives a field, and its first argument is the default
from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import Field, field, fields
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncheck.facts.errors import UsageError
from bncheck.facts.record import Record
from bncheck.settings import kinds
from bncheck.settings.config import Settings
from bncheck.settings.kinds import ValueKind
from bncheck.settings.schemes import PLACEHOLDER, SCHEMES

if TYPE_CHECKING:
    from bncheck.facts.layers import Given

SYNTHETIC = "synthetic"
"""In the place of data: noise."""


class CommandName(Enum):
    """Who takes an option."""

    CHECK = "check"
    CHECKPOINT = "inspect checkpoint"
    GRAPH = "inspect graph"
    MODEL = "inspect model"
    RUN = "inspect run"
    TRAIN_VS_EVAL = "compare train-vs-eval"
    FLOAT_VS_QUANTIZED = "compare float-vs-quantized"
    GATE = "gate"
    DIFF = "diff"
    REPAIR = "repair"


_C = CommandName
_ALL = frozenset(_C)
_RUNNING = frozenset({_C.TRAIN_VS_EVAL, _C.FLOAT_VS_QUANTIZED, _C.GATE, _C.REPAIR})
_QUANTIZING = frozenset({_C.FLOAT_VS_QUANTIZED, _C.GATE})
_GATE, _REPAIR = frozenset({_C.GATE}), frozenset({_C.REPAIR})


class ConfigTable(Enum):
    """Where a configuration file has an option."""

    NONE = "none"
    TOP = "[tool.bncheck]"
    GATE = "[tool.bncheck.gate]"


class Words(Enum):
    """Which recommended commands repeat an option: the fields of `Given`."""

    NONE = "none"
    READING = "reading"
    RUNNING = "running"
    TRAINING = "training"


class Option(Record, eq=False):
    """How a field is given. A flag whose field is true by default makes it false."""

    kind: ValueKind
    help: str
    flag: str = ""
    """Where it is not called as the field: "--train-op"."""
    short: str = ""
    metavar: str | None = None
    heading: str = ""
    """In the help; empty: the command's own."""
    of: Collection[CommandName] = _ALL
    required: Collection[CommandName] = ()
    helps: Mapping[CommandName, str] = field(default_factory=dict)
    """For commands that say it in other words."""
    table: ConfigTable = ConfigTable.NONE
    words: Words = Words.NONE


def option(default: Any, kind: ValueKind, help: str, **more: Any) -> Any:  # noqa: A002 - as click calls it
    """A field that can be given everywhere, by `Option`."""
    return field(default=default, metadata={"option": Option(kind=kind, help=help, **more)})


def keyword(default: Any, *, of: Collection[CommandName] = _ALL) -> Any:
    """A field that is a keyword argument alone."""
    return field(default=default, metadata={"of": of})


def silent(*_: Any) -> None:
    """Hears of progress, and tells nobody."""


_of_gate = partial(option, of=_GATE, table=ConfigTable.GATE)
_of_data = partial(option, heading="Data", of=_RUNNING, table=ConfigTable.GATE, words=Words.RUNNING)
_of_model = partial(option, heading="Model")
_of_network = partial(option, heading="Model", of=_RUNNING, table=ConfigTable.GATE, words=Words.RUNNING)


class Options(Record):
    """What a user may say besides the path. Raises UsageError for a decay or number of steps that cannot be."""

    data: str | Path | None = option(
        None,
        kinds.DATA,
        "Data to run the model on: a folder of images, .npy, .npz, TFRecord, or the word synthetic.",
        helps={
            _C.GATE: "Run the model too, on a folder of images, .npy, .npz, TFRecord, or the word synthetic.",
            _C.REPAIR: "Estimate the statistics from training data: a folder of images, .npy, .npz or TFRecord.",
        },
        metavar="D",
        of=_RUNNING,
        required=(_C.TRAIN_VS_EVAL,),
        table=ConfigTable.GATE,
    )
    quantize: bool = _of_gate(True, kinds.FLAG, "Do not compare float with quantized.", flag="--no-quantize")
    quantized: str | Path | None = _of_gate(
        None,
        kinds.PATH,
        "TFLite file to compare with, instead of converting the model.",
        metavar="FILE",
        of=_QUANTIZING,
    )
    scheme: str | None = _of_gate(
        None,
        kinds.SCHEME,
        f"How to quantize: {', '.join(SCHEMES)} or {PLACEHOLDER}, a recipe of ai-edge-quantizer by name "
        "(static_wi8_ai8) or as a JSON file [int8: full integer, a scale for each channel].",
        metavar="SCHEME",
        of=_QUANTIZING,
    )
    calibration_batches: int | None = _of_gate(
        None,
        kinds.COUNT,
        "Number of batches that calibrate the ranges of activations [16].",
        metavar="N",
        of=_QUANTIZING,
    )
    against: str | Path | None = _of_gate(
        None, kinds.PLACE, "Earlier model, or its JSON report; fail only on what is new or worse.", metavar="OLD"
    )
    max_time: float | None = _of_gate(
        None, kinds.TIME, "Stop running the model after this time, such as 90 (seconds), 10m or 1h.", metavar="S"
    )
    max_memory: float | None = _of_gate(
        None, kinds.MEMORY, "Stop running the model above this memory, such as 2000 (MB) or 2GB.", metavar="MB"
    )
    early_stop: bool = _of_gate(
        True, kinds.FLAG, "Run the model even if its files show a fault that makes this pointless.", flag="--all-stages"
    )
    debias: bool = option(
        False,
        kinds.FLAG,
        "Use no data: compute away the initial value's share from decay and number of updates.",
        of=_REPAIR,
    )
    rescue: bool = option(
        False, kinds.FLAG, "Use no data, as a last resort: estimate the statistics from synthetic images.", of=_REPAIR
    )
    weights: str | None = option(
        None,
        kinds.one_of("raw", "ema"),
        "Which weights to run, if the checkpoint also holds their averages.",
        helps={_C.REPAIR: "Which weights you serve, if the checkpoint also holds their averages [both]."},
        heading="Model",
        of={_C.TRAIN_VS_EVAL, _C.FLOAT_VS_QUANTIZED, _C.GATE, _C.REPAIR},
        words=Words.RUNNING,
    )
    compare: bool = option(
        True,
        kinds.FLAG,
        "Skip the comparison of train and eval mode before and after.",
        flag="--no-compare",
        of=_REPAIR,
    )

    allow_unverified: bool = option(
        False, kinds.FLAG, "Exit with 0, not 3, if no independent data confirm the copy.", of=_REPAIR
    )

    labels: str | None = _of_data(
        None,
        kinds.TEXT,
        "Labels: a file of integers, the name of an array beside the images, or the word folders (one for each class).",
        metavar="L",
    )
    labels_output: str | None = _of_data(
        None, kinds.TEXT, "Output that the labels belong to, if there are several.", metavar="T"
    )
    preprocess: str | None = _of_data(
        None,
        kinds.TEXT,
        "Range that pixels are scaled to, as in training: -1..1, 0..1, 0..255, imagenet-mean, ...",
        metavar="RANGE",
    )
    channel_order: str = _of_data("rgb", kinds.one_of("rgb", "bgr"), "Order of the colours of decoded images [rgb].")
    size: tuple[int, int] | None = _of_data(
        None, kinds.SIZE, "Size of the images, for models that take any.", metavar="HxW"
    )
    batch_size: int | None = _of_data(
        None, kinds.COUNT, "Samples in a batch, best as in training [the graph's own, else 32].", metavar="N"
    )
    batches: int | None = _of_data(
        None,
        kinds.COUNT,
        "Largest number of batches to use [all, or as many as repair needs].",
        metavar="N",
        words=Words.NONE,
    )

    graph: str | Path | None = _of_model(
        None,
        kinds.PATH,
        "MetaGraph of the checkpoint, if it is not PATH.meta.",
        metavar="META",
        of={_C.CHECK, _C.CHECKPOINT, *_RUNNING},
        words=Words.READING,
    )
    use_graph: bool = _of_model(
        True,
        kinds.FLAG,
        "Ignore the .meta beside a checkpoint.",
        flag="--no-graph",
        of={_C.CHECK, _C.CHECKPOINT, _C.RUN, _C.DIFF, *_RUNNING},
        words=Words.READING,
    )
    model: str | None = _of_network(
        None,
        kinds.TEXT,
        "Built-in network of a checkpoint without a graph, such as mobilenet_v2:num_classes=10.",
        metavar="NAME[:k=v,...]",
    )
    builder: str | None = _of_network(
        None,
        kinds.TEXT,
        "Your function(images, is_training) that builds the network.",
        metavar="MOD:FN",
        table=ConfigTable.NONE,  # it imports code
    )
    inputs: str | None = _of_network(
        None, kinds.TEXT, "Tensor that takes the data, if the graph does not tell.", metavar="T"
    )
    outputs: Sequence[str] = _of_network((), kinds.TEXTS, "Output tensor to compare. Repeatable.", metavar="T")
    trust_model: bool = _of_network(
        False,
        kinds.FLAG,
        "Run ops that touch files, the network or Python, and code in Keras files.",
        table=ConfigTable.NONE,
    )
    decay: float | None = _of_model(
        None,
        kinds.SHARE,
        "Decay of the moving averages, such as 0.999, if no file tells it.",
        metavar="D",
        table=ConfigTable.TOP,
        words=Words.READING,
    )
    steps: int | None = _of_model(
        None,
        kinds.WHOLE,
        "Number of updates of the statistics, if no file tells it.",
        metavar="N",
        of=_ALL - {_C.GRAPH, _C.RUN, _C.DIFF},
        words=Words.READING,
    )
    train_ops: Sequence[str] = _of_model(
        (),
        kinds.TEXTS,
        "Name of the train op. Repeatable.",
        flag="--train-op",
        metavar="NAME",
        table=ConfigTable.TOP,
        words=Words.TRAINING,
    )
    engine: str | None = option(
        None,
        kinds.TEXT,
        "Where to run the data: in N local processes [this one], or on a dask cluster that sees the same files.",
        helps={_C.RUN: "Where to judge the checkpoints: in N local processes [one a processor], or on a dask cluster."},
        metavar="local[:N]|dask://HOST:PORT",
        of={_C.RUN, _C.TRAIN_VS_EVAL, _C.REPAIR},
    )
    reference: str | Path | None = _of_model(
        None,
        kinds.PATH,
        "Checkpoint that training started from; for a TFLite or ONNX file, the model it was converted from.",
        of={_C.CHECK, _C.CHECKPOINT, _C.MODEL},
        table=ConfigTable.TOP,
    )

    tolerance: float | None = keyword(None, of=_REPAIR)
    """Change of a layer's statistics below which a repair needs no more batches; None: `population.TOLERANCE`."""
    options: Options | None = keyword(None, of=_REPAIR)
    """Others, all at once."""
    settings: Settings = keyword(Settings())
    """How findings become a verdict."""
    progress: Callable[..., None] = keyword(silent, of=_RUNNING)
    """Hears of what is done: (samples, all of them or None); a gate's of the stage before these; a repair's of (stage,
    samples)."""
    expected: Callable[[float], None] = keyword(silent, of=_RUNNING - {_C.REPAIR})
    """Hears, before synthetic samples go through a graph, about how many seconds they will take."""

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 <= self.decay <= 1:
            raise UsageError(f"decay is {self.decay}: TensorFlow's decay lies between 0 and 1, such as 0.999")
        if self.steps is not None and self.steps < 0:
            raise UsageError(f"steps is {self.steps}: the statistics cannot be updated a negative number of times")


def listed(table: type, command: CommandName | None = None) -> Iterator[tuple[Field[Any], Option, str]]:
    """(field, how it is given, its flag) of each option of a dataclass, or of those that a command takes."""
    for each in fields(table):
        how: Option | None = each.metadata.get("option")
        if how is not None and (command is None or command in how.of):
            yield each, how, how.flag or f"--{each.name.replace('_', '-')}"


def turned(each: Field[Any], value: object) -> object:
    """The value of a field whose flag or key says `value`: a flag turns what is true by default."""
    return not value if each.default is True else value


def given(options: Options) -> Given:
    """The same as words of a command line; how many batches, each command says for itself.

    Data made up say nothing and are not repeated.
    """
    from bncheck.facts.layers import Given  # noqa: PLC0415 - help and the command line need no numpy

    words: dict[Words, list[str]] = {group: [] for group in Words}
    for each, how, flag in listed(Options):
        value = getattr(options, each.name)
        if value != each.default:
            words[how.words] += _spelt(how.kind, flag, value)
    return Given(
        data=None if options.data is None or str(options.data) == SYNTHETIC else str(options.data),
        use_graph=options.use_graph,
        **{group.value: tuple(words[group]) for group in Words if group is not Words.NONE},
    )


def _spelt(kind: ValueKind, flag: str, value: Any) -> Iterator[str]:
    if kind is kinds.FLAG:
        yield flag
        return
    for one in value if kind is kinds.TEXTS else [value]:
        told = kind.told(one)
        yield from (f"{flag}={told}",) if told.startswith("-") else (flag, told)
