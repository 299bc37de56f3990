"""What statistics tell that are held against the weights before their layers."""

from __future__ import annotations

from bncheck.facts.findings import Measurement
from bncheck.facts.record import Record

SURE = 6.0
"""Standard errors from which chance is out of the question."""


class AgainstWeights(Record):
    """What the means, or the variances, of some layers tell, held against the weights before them."""

    bad: tuple[str, ...] = ()
    """Layers, in forward order."""
    message: str = ""
    location: str = ""
    """The tensor of the worst of them."""
    sure: bool = False
    measurements: tuple[Measurement, ...] = ()
