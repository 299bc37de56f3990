"""Sums of outputs against the formulas over all samples at once, and samples that are no number."""

from __future__ import annotations

import numpy as np
import pytest

from bncheck.compare.output_sums import ClassSums, ErrorSums
from bncheck.numerics import metrics

RANDOM = np.random.default_rng(0)
FIRST = RANDOM.normal(size=(50, 4))
SECOND = FIRST + RANDOM.normal(scale=0.5, size=FIRST.shape)
LABELS = RANDOM.integers(0, 4, 50)


def test_batches_add_up() -> None:
    """Error, cosine, agreement and accuracy of five batches are those of all samples."""
    errors, top = ErrorSums(), ClassSums()
    for part in np.split(np.arange(50), 5):
        errors.add(FIRST[part], SECOND[part])
        top.add(FIRST[part], SECOND[part], LABELS[part])
    assert errors.nmse == pytest.approx(np.sum((SECOND - FIRST) ** 2) / np.sum(FIRST**2))
    assert errors.cosine == pytest.approx(np.vdot(FIRST, SECOND) / np.linalg.norm(FIRST) / np.linalg.norm(SECOND))
    assert top.agreement == metrics.agreement(FIRST, SECOND)
    assert top.accuracy == (metrics.top1(FIRST, LABELS), metrics.top1(SECOND, LABELS))
    assert top.renumbered == tuple(round(50 * metrics.top1(FIRST, LABELS + by)) for by in (-1, 1))


def test_what_is_no_number_agrees_with_nothing() -> None:
    """A sample with NaN in both forms is not the same class, nor right; infinite squares warn of nothing."""
    broken = FIRST.copy()
    broken[0] = np.nan
    top = ClassSums()
    chosen, _ = top.add(broken, broken, np.zeros(50, int))
    assert chosen[0] == -1
    assert top.agreeing == 49
    errors = ErrorSums()
    errors.add(np.array([1e200]), np.array([-1e200]))
    assert errors.e2 == np.inf


def test_nothing_was_added() -> None:
    """No agreement and no accuracy, rather than 0."""
    assert ClassSums().agreement is None
    assert ClassSums().accuracy is None
