"""What comparing measured: two forms of one model on the same data. Frozen, no verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from bncheck.facts.arrays import PerChannel
from bncheck.facts.ratios import scores_of

if TYPE_CHECKING:
    from bncheck.facts.inputs import InputSummary

GIVEN = "given"
"""In the place of a scheme: the user's own file, quantized as it is."""


class Precision(Enum):
    """The two sides of quantizing, in which a model computes and a file is stored."""

    FLOAT = "float"
    QUANTIZED = "quantized"


class CellStatistics(Enum):
    """With which statistics a cell of the attribution was run."""

    BATCH = "batch"
    STORED = "stored"
    REESTIMATED = "re-estimated"


class Measure(Enum):
    """What a loss is counted in."""

    ACCURACY = "accuracy"
    """Of labels."""
    AGREEMENT = "agreement"
    """Of top classes with the reference's."""
    NMSE = "nmse"
    """Of features."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerDifference:
    """One layer, train mode (reference) against eval mode (test). Formulas: compare/metrics.py."""

    layer: str
    samples: int
    """Elements per channel behind one batch's moments: batch * height * width."""
    mean_shift: PerChannel
    """Per channel (mean_batch - mean_stored) / sqrt(variance_stored + epsilon)."""
    log_variance_ratio: PerChannel
    """Per channel ln((variance_batch + epsilon) / (variance_stored + epsilon))."""
    local_nmse: float
    """This layer's own loss, given the train twin's input: sum e^2 / sum r^2, closed form from the moments."""
    local_floor: float
    """The local NMSE that a batch of this size has by chance, statistics being perfect: as measured between batches, at
    least what independent values make (METRICS.md, noise floor)."""
    cumulative_nmse: float
    """What arrives at this layer's output, all upstream losses included."""
    cumulative_cosine: float
    worst_channels: tuple[int, ...] = ()
    """Channels with the largest share of the local loss, worst first, at most 5."""
    non_finite: int = 0
    """Values of this layer's batch moments or output sums that are NaN or infinite, in either mode."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputDifference:
    """One output of the model, train mode against eval mode, pooled over all samples."""

    name: str
    nmse: float
    cosine: float
    floor: float | None = None
    """NMSE between two train-mode runs of the same samples in other batches: what batch noise alone does."""
    classes: int | None = None
    """Number of classes where the output is scores of classes, else None; what stands below is then known."""
    labelled: bool = False
    """Whether the labels belong to it."""
    read_as: str = ""
    """How: "columns", one score a class; or, two classes in a single column, "probability" or "logit" of the second."""
    agreement: float | None = None
    """Share of samples whose top class is the same in both modes."""
    agreement_floor: float | None = None
    """Agreement of train mode with itself in other batches: what batch noise alone leaves."""
    probability_drift: float | None = None
    """Mean over samples of half the sum of |softmax difference| (total variation)."""
    commonest: float | None = None
    """Share of samples to which the reference gives its most frequent class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Accuracy:
    """Share of labels that the top class meets, in each mode; None without labels or classes."""

    train: float | None = None
    eval: float | None = None
    quantized: float | None = None
    commonest: float | None = None
    """Share of the most frequent label: the accuracy of always naming that."""
    one_lower: float | None = None
    """Train mode's, were every label one lower."""
    one_higher: float | None = None
    """The same, one higher."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DataFacts:
    """What the comparison ran on."""

    description: str
    """"images.npz, 360 images of 64x64x3", or "synthetic noise"."""
    samples: int
    batch_size: int
    batches: int
    synthetic: bool = False
    labelled: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Everything measured in one run."""

    mode: str
    """"train-vs-eval"."""
    data: DataFacts
    input: str
    layers: tuple[LayerDifference, ...]
    """Places where batch norm stands, in forward order: a layer that is shared has several."""
    outputs: tuple[OutputDifference, ...]
    shared: tuple[LayerDifference, ...] = ()
    """Layers that stand in several places, each once: all that reaches it, together, against its stored statistics. In
    `layers` each place is by itself."""
    accuracy: Accuracy = field(default_factory=Accuracy)
    seen: InputSummary | None = None
    """What the data look like; None where nothing is to be held against it."""
    batch_dependence: float | None = None
    """NMSE between f(X)[0] and f(X[:1]) of the graph as it is served; None where it was not probed."""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class OperatorLoss:
    """One operator of a quantized TFLite file against the same operator in float, over all samples.

    Reference r is the float file's output tensor, test t the quantized one, dequantized; e = t - r.
    """

    name: str
    """The batch norm layer that was folded into it, else the operator's own name; unique."""
    layer: str | None
    """Name of that layer among `Facts.layers`; None where none is known."""
    kind: str
    """TFLite's name: "DEPTHWISE_CONV_2D"."""
    tensor: str
    """Output tensor in the quantized file."""
    reference: str
    """The same in the float file."""
    local_nmse: float
    """Own loss: sum e^2 / sum r^2 where the operators of both files are given the float file's input, rounded to the
    type that the quantized one reads; so the rounding of an input counts at the operator that gives it, once."""
    cumulative_nmse: float
    """What arrives at the output, all upstream losses included."""
    cumulative_cosine: float
    rounding_nmse: float
    """Parts of `local_nmse` that add up to it: what is neither clipping nor bias, ..."""
    clipping_nmse: float
    """... elements that lie outside the range of the output's type, ..."""
    bias_nmse: float
    """... and the per-channel mean of the error."""
    rmse_over_scale: float | None
    """sqrt(mean e^2) / scale of the local error; rounding alone gives 0.289. None where the output is no integer."""
    scale: float | None
    """Of the output tensor; None where it is float."""
    zero_point: int | None
    channel_nmse: PerChannel
    """Local, of each output channel against that channel's own signal."""
    weight_nmse: float | None = None
    """Of the dequantized kernel against the float one; None where the operator has no constant kernel."""
    weight_per_channel: bool | None = None
    """Whether the kernel has a scale for each channel; None where it is not quantized."""
    weights_beyond: float | None = None
    """Share of the integer kernel's weights, cut off ones left out, that are further from the float ones than half a
    step: rounding leaves none. None where the kernel is not stored in integers, or the float one is not known."""
    worst_channels: tuple[int, ...] = ()
    """Channels with the largest share of the local loss, worst first, at most 5."""
    non_finite: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Unmatched:
    """A tensor of one file for which the other has no counterpart (BN409)."""

    name: str
    side: Precision
    """The file that has it."""
    why: str
    layer: str | None = None

    @property
    def is_layer(self) -> bool:
        """Whether it is no tensor, but a layer that no operator of the float file has as its own."""
        return self.layer == self.name


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """The model's first output with some statistics in some arithmetic, against batch statistics in float."""

    statistics: CellStatistics
    arithmetic: Precision
    nmse: float | None
    """None where it was not run; `why` tells."""
    agreement: float | None = None
    """Share of samples with the same top class as the reference; None where the output is no classes."""
    accuracy: float | None = None
    why: str = ""

    @property
    def place(self) -> tuple[CellStatistics, Precision]:
        """Where it stands among the others."""
        return self.statistics, self.arithmetic

    def value(self, measure: Measure) -> float | None:
        """What it has of a measure; None where that was not measured."""
        return {Measure.ACCURACY: self.accuracy, Measure.AGREEMENT: self.agreement, Measure.NMSE: self.nmse}[measure]


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """Which step loses what: batch statistics -> stored statistics -> quantized."""

    cells: tuple[Cell, ...]
    """{batch, stored, re-estimated} x {float, quantized}; the first is the reference."""
    measure: Measure
    """What the three below count."""
    statistics: float
    """Lost from batch to stored statistics, both float; points of the measure / 100, or NMSE. What batch noise alone
    does to agreement or NMSE is no loss."""
    quantization: float
    """Lost from stored float to stored quantized, both held against batch statistics; in NMSE that of the one against
    the other."""
    statistics_share: float | None
    """Share of the whole loss that the statistics have, 0 to 1; None where nothing is lost."""


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """How much of a quantized file is quantized."""

    kernels: int
    """Kernels of convolutions and dense layers that are stored in another type than float32."""
    of_kernels: int
    operators: int
    """Operators that compute activations in integers; copies, and conversions of numbers, do not count."""
    of_operators: int

    @property
    def nothing(self) -> bool:
        """Whether all of it is float, as before."""
        return not self.kernels and not self.operators


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedComparison:
    """Float against quantized, both with the stored statistics."""

    scheme: str
    """"int8", "int8-per-tensor", "dynamic", "float16", "int16x8", or `GIVEN` for the user's own file."""
    quantized: str
    """Path of the given file; empty where bncheck converted."""
    data: DataFacts
    input: str
    operators: tuple[OperatorLoss, ...]
    """In execution order."""
    outputs: tuple[OutputDifference, ...]
    """Float (reference) against quantized."""
    accuracy: Accuracy = field(default_factory=Accuracy)
    """`eval` is float with the stored statistics."""
    unmatched: tuple[Unmatched, ...] = ()
    apart: tuple[int, int] | None = None
    """How many numbers a sample, such as classes, the float and the quantized model answer with, where they have no
    output in common."""
    attribution: Attribution | None = None
    """None where there is no train mode to start from (two TFLite files), or where it is no reference: synthetic data,
    too little, too noisy; and of a file that was made from other weights, whose loss is not divided."""
    float_bytes: int = 0
    quantized_bytes: int = 0
    rounded: Rounded | None = None
    local_samples: int = 0
    """Samples behind the local errors, the first of the data; cumulative errors and outputs are of all."""
    seconds: float = 0.0

    @property
    def was_given(self) -> bool:
        """Whether the quantized file is the user's own, not bncheck's conversion."""
        return self.scheme == GIVEN


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldedLayer:
    """One layer of the model and what a TFLite file has in its place (BN407)."""

    layer: str
    operator: str
    """Name of the TFLite operator; empty where none was matched."""
    folded: str
    """Which statistics were baked in: "stored", "initial", "shadow", "reference", "other", or "unmatched"."""
    error: float
    """Largest difference between folded kernel and bias as computed and as in the file, over their largest value."""
    tolerance: float
    """What rounding of the file's types explains."""
    scale_ratio: PerChannel | None = None
    """(channels,): the file's channel scale over gamma / sqrt(variance + epsilon) of the stored statistics."""
    why: str = ""
    """What more there is to say: why it is unmatched or other, or what the converter did besides."""
    weights: str = "stored"
    """Whose kernel it is: "stored", "shadow" (averaged weights), "reference", or "other" where it is none of these."""
    epsilon: float | None = None
    """The one that was folded; None where nothing was matched."""
    epsilon_known: float | None = None
    """The one of the model; None where its files do not tell it."""
    never_moved: bool = False
    """The stored statistics are the initial ones though gamma or beta moved: a faithful fold of a broken model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldProof:
    """Which statistics and epsilon were folded into a TFLite file, layer by layer; static, no data are run."""

    path: str
    """The TFLite file."""
    source: str
    """The checkpoint or Keras file it is held against."""
    layers: tuple[FoldedLayer, ...]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one comparison of an earlier model came to; None where it was not known."""

    data: str
    """Description of the data, as in `DataFacts`, and of how it was quantized."""
    samples: int
    accuracy: float | None = None
    """In eval mode, or quantized."""
    agreement: float | None = None
    """Of its first output that is classes."""
    nmse: float | None = None
    """Of its first output."""


@dataclass(frozen=True, kw_only=True)
class Before:
    """An earlier model that this one must not be worse than (`gate --against`)."""

    path: str
    """Of the model or of its report."""
    modes: Scores | None = None
    """Train mode against eval mode; None where it was not measured, or on synthetic data."""
    quantized: Scores | None = None
    """Float against quantized; None likewise."""


def scores(comparison: Comparison | QuantizedComparison | None) -> Scores | None:
    """What a comparison came to; None where there is none, or its data are synthetic."""
    if comparison is None or comparison.data.synthetic:
        return None
    accuracy = comparison.accuracy
    scheme = comparison.scheme if isinstance(comparison, QuantizedComparison) else ""
    return Scores(
        data=what_ran(comparison.data.description, scheme),
        samples=comparison.data.samples,
        accuracy=accuracy.quantized if scheme else accuracy.eval,
        agreement=None if (judged := scores_of(comparison.outputs)) is None else judged.agreement,
        nmse=comparison.outputs[0].nmse if comparison.outputs else None,
    )


def what_ran(data: str, scheme: str) -> str:
    """On which data, and quantized in which scheme if at all."""
    return f"{data}, {scheme}" if scheme else data


def same_data(one: Scores, other: Scores) -> bool:
    """Whether two models were measured on the same data, as far as their reports tell."""
    return (one.data, one.samples) == (other.data, other.samples)
