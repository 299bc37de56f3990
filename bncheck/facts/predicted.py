"""What the weights before a batch norm predict to arrive at it."""

from __future__ import annotations

from bncheck.facts.arrays import PerChannel
from bncheck.facts.record import Record


class Predicted(Record, eq=False):
    """Moments of a batch norm's input, from the batch norms and kernels before it, without data."""

    mean: PerChannel
    """(channels,): as near as its channels are normal, and their means the same at all places."""
    variance: PerChannel
    """(channels,): a guess, for it takes covariances that weights do not tell."""
    rough: bool = False
    """Whether the mean is a guess too: behind a gate, a max pooling, a function of what is itself a guess; or of a
    kernel so large against its map that means differ from place to place."""
    spread_known: bool = True
    """Whether the spread of what the kernel sees is known: not behind an average pooling."""
    least: bool = False
    """Whether the variance may be several times as large: the kernel fills its map, or that is of one place, so that it
    sees the same few places of all channels, whose sum varies as one."""
    taps: int = 1
    """Places that the kernel sees at a time: neighbours vary together, by how much is not known."""
    fitted: int = 0
    """Numbers that were fitted to the stored mean: what feeds the layer is no batch norm, and its means not known."""
