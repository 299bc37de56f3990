"""What comparing measured: two modes of one model on the same data. Frozen, no verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bncheck.model import PerChannel


def sqnr_db(nmse: float) -> float:
    """`-10 log10(NMSE)` decibels, the reference being the signal: higher is better. No error is +inf."""
    if nmse == 0:
        return math.inf
    return -10 * math.log10(nmse) if nmse > 0 else math.nan


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
    """The local NMSE that a batch of this size has by chance, statistics being perfect (METRICS.md, noise floor)."""
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
    """Number of classes where the output is (N, classes), else None; the three below are then known."""
    agreement: float | None = None
    """Share of samples whose top class is the same in both modes."""
    agreement_floor: float | None = None
    """Agreement of train mode with itself in other batches: what batch noise alone leaves."""
    probability_drift: float | None = None
    """Mean over samples of half the sum of |softmax difference| (total variation)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Accuracy:
    """Share of labels that the top class meets, in each mode; None without labels or classes."""

    train: float | None = None
    eval: float | None = None
    quantized: float | None = None


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
    """In forward order."""
    outputs: tuple[OutputDifference, ...]
    accuracy: Accuracy = field(default_factory=Accuracy)
    batch_dependence: float | None = None
    """NMSE between f(X)[0] and f(X[:1]) of the graph as it is served; None where it was not probed."""
    seconds: float = 0.0
