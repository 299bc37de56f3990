"""The facts of a TFLite file: operators into which batch norm may have been folded, and what was not folded."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.arrays import PerChannel

_BATCH_NORM = re.compile(r"batch_?norm", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldedOperator:
    """One TFLite convolution or dense operator, into which batch norm may have been folded."""

    name: str
    kind: str
    channels: int
    weight_scales: PerChannel | None
    """Of an integer kernel: one entry (per tensor) or one a channel; None for float."""
    channel_max: PerChannel | None
    """max |real weight| per output channel."""
    bias: NDArray[np.int64] | None
    """Integer bias as stored; None for float or absent."""
    bias_bits: int | None = None
    bias_scales: PerChannel | None = None
    """What one step of the integer bias is worth: one entry or one a channel (input scale times weight scale)."""
    tensor: str = ""
    """Name of its output tensor, as the file has it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Leftover:
    """Arithmetic of a batch norm that a converter did not fold; a rule weighs how surely it is one."""

    name: str
    operators: tuple[str, ...]
    channels: int
    after: str
    """Kind of the operator before it, with its fused activation ("CONV_2D + RELU"); "" for the graph's input."""
    multiplier: PerChannel | None
    """All steps as one: `multiplier * x + addend`. Both None: it normalises with the moments of the batch at hand."""
    addend: PerChannel | None
    """None: nothing is added."""
    feeds: str | None = None
    """Kind of the operator that reads it; "" for the graph's output; None: several, or unknown."""
    multiplier_rounding: PerChannel | None = None
    """How far `multiplier` may lie from what was quantized; 0 for floats, None unknown."""
    addend_rounding: PerChannel | None = None

    @property
    def named(self) -> bool:
        """Whether the converter's names say batch norm."""
        return _BATCH_NORM.search(self.name) is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class LiteFacts:
    """What a TFLite file holds of batch norm."""

    folded: tuple[FoldedOperator, ...]
    leftovers: tuple[Leftover, ...]
    integer: bool
    """Some kernel is stored in integers: full integer, 16x8, or dynamic range."""
    operators: int
    named: bool = True
    """Whether some name in the file is of batch norm, as converters leave those of the operations that they fused."""

    def shows_batch_norm(self, *, compared: bool) -> bool:
        """Whether there is some to judge: left over, named, or known of what the file is `compared` with."""
        return bool(self.leftovers) or (bool(self.folded) and (self.named or compared))
