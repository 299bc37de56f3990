"""The array that facts are made of."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

PerChannel: TypeAlias = NDArray[np.float64]
"""(channels,), float64, read-only."""
