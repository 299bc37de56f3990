"""BN303: what to do depends on what there is too little of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bncheck.facts.layers import Given
from bncheck.rules.modes.bn303_batch_too_small_to_judge import check
from bncheck.testing import classes_compared, compared, difference, features_compared

NOISY = classes_compared(0.4, agreement_floor=0.5)


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        ({"samples": 8}, "at least 32"),
        ({"output": NOISY}, "--labels y --batch-size 64"),
        ({"places": [difference(samples=2)]}, "--labels y --batch-size 256"),
        ({"output": features_compared(floor=None)}, "--batch-size 16 --labels y --outputs TENSOR"),
    ],
)
def test_the_remedy_fits(measured: dict[str, Any], says: str) -> None:
    """The user's own command, with larger batches in the place of those that were too small."""
    places = measured.pop("places", [difference()])
    model = compared(*places, **measured)
    model = replace(model, given=Given(data="d.npz", running=("--batch-size", "16", "--labels", "y")))
    (found,) = check.check(model)
    assert says in found.fix
