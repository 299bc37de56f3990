"""BN210 statistics-trained-or-regularised."""

from __future__ import annotations

from typing import Any

import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Mode
from bncheck.rules.wiring import (
    bn210_statistics_trained_or_regularised,
)
from bncheck.testing import (
    batch_norm,
    wired,
    with_graph,
)

WEIGHTS = bn210_statistics_trained_or_regularised.check
OPTIMISED = {"bn/moving_variance": ("Adam/update_bn/moving_variance/ApplyAdam",)}
DECAYED = {"bn/moving_variance": ("L2Loss",)}


@pytest.mark.parametrize(
    ("mode", "graph", "severity"),
    [
        (Mode.EVAL, {"optimized": OPTIMISED}, Severity.ERROR),
        (Mode.TRAIN, {"optimized": OPTIMISED}, Severity.ERROR),
        (Mode.SWITCHED, {"optimized": OPTIMISED}, Severity.WARNING),
        (Mode.SWITCHED, {"optimized": OPTIMISED, "regularised": DECAYED}, Severity.ERROR),
        (Mode.TRAIN, {"regularised": DECAYED}, Severity.WARNING),
        (Mode.TRAIN, {"trainable": frozenset(DECAYED)}, Severity.INFO),
        (Mode.TRAIN, {"regularised": {"bn/gamma": ("L2Loss",)}}, Severity.INFO),
    ],
)
def test_statistics_as_weights_are_weighed(mode: Mode, graph: dict[str, Any], severity: Severity) -> None:
    """Written by an optimizer is worst, unless its gradient is zero in training; listed only is a note (facenet)."""
    assert only(WEIGHTS, with_graph(wired(batch_norm("bn"), mode=mode), **graph)).severity is severity
