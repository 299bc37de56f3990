"""BN111 low-precision-statistics."""

from __future__ import annotations

import numpy as np
from one_evidence import only, severities

from bncheck.facts.findings import Severity
from bncheck.rules.statistics.bn111_low_precision_statistics import check
from bncheck.testing import batch_norm, facts


def test_half_precision_needs_all_layers_on_the_grid() -> None:
    """One layer on the float16 grid beside one that is not tells nothing."""
    fine = np.linspace(0.3, 2.9, 20) ** 1.7
    coarse = fine.astype(np.float16).astype(np.float64)
    on = batch_norm("a", mean=coarse, variance=coarse, channels=20)
    off = batch_norm("b", mean=fine, variance=fine, channels=20)
    assert severities(check, facts(on)) == [Severity.INFO]
    assert list(check.check(facts(on, off))) == []


def test_bfloat16_grid() -> None:
    """float32 values whose lower 16 bits are zero are bfloat16 numbers."""
    fine = np.linspace(0.3, 900, 40).astype(np.float32)
    coarse = (fine.view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64)
    evidence = only(check, facts(batch_norm("bn", mean=coarse, variance=coarse, channels=40)))
    assert "bfloat16" in evidence.message
