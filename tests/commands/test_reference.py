"""What the checkpoint given with `--reference` tells: whose weights, whose statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncheck.commands.reference import against
from bncheck.facts.errors import UsageError
from bncheck.facts.layers import Linear
from bncheck.testing import batch_norm, facts, unread


def kernel(size: float) -> Linear:
    """What is known of a kernel whose channels are this large."""
    return Linear(name="conv", op="Conv2D", kernel="w", channel_max=np.full(4, size), channel_rms=np.full(4, size / 2))


def test_weights_are_compared_as_far_as_both_have_them() -> None:
    """Gamma, beta and kernel; a layer of which nothing is at hand in both is not compared."""
    here = [replace(batch_norm("a"), linear=kernel(1)), batch_norm("b"), batch_norm("c", gamma=None, beta=None)]
    there = [replace(batch_norm("a"), linear=kernel(2)), batch_norm("b", mean=9.0), batch_norm("c"), batch_norm("d")]
    found = against(facts(*there), facts(*here), repaired=False)
    assert found.reference_weights == {"a": False, "b": True}
    assert set(found.reference or {}) == {"a", "b", "c", "d"}


def test_a_repaired_copy_has_its_sources_weights_by_intent() -> None:
    """Its statistics are new by intent as well."""
    assert against(facts(batch_norm("a")), facts(batch_norm("a")), repaired=True).reference_weights == {}


def test_a_reference_without_statistics() -> None:
    """An error of usage."""
    with pytest.raises(UsageError, match="holds no statistics"):
        against(facts(unread(batch_norm("a"))), facts(batch_norm("a")), repaired=False)
