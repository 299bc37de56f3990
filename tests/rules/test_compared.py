"""What the rules on a comparison share: when layers can be judged, and the output can not."""

from __future__ import annotations

import math

import pytest

from bncheck.rules import bn302_layer_diverges
from bncheck.rules._compared import diverging, judged_output, layer_limit, too_few, too_small
from bncheck.testing import classes_compared, compared, difference


def test_layers_are_judged_where_the_output_is_too_noisy() -> None:
    """Train mode that does not agree with itself is no reference at the output; moments over many values still are."""
    noisy = classes_compared(0.3, agreement_floor=0.4)
    model = compared(difference("a"), difference("b", local=0.25), output=noisy)
    assert model.comparison is not None
    assert too_small(model.comparison).startswith("Train mode, the reference, is too noisy")
    assert not too_few(model.comparison)
    assert judged_output(model.comparison) is None
    (found,) = bn302_layer_diverges.check.check(model)
    assert found.layers == ("b",)
    assert found.severity is not None
    assert found.severity.value == "warning"


@pytest.mark.parametrize(("floor", "limit"), [(7e-4, 0.01), (0.11, 0.03), (math.inf, 0.01)])
def test_what_batches_differ_by_is_no_divergence(floor: float, limit: float) -> None:
    """Three times the chance of eleven batches together is the limit, where that is more."""
    layer = difference("a", local=0.02, local_floor=floor)
    comparison = compared(layer).comparison
    assert comparison is not None
    assert layer_limit(comparison, layer) == pytest.approx(limit, rel=1e-3)
    assert diverging(comparison) == ([] if limit > 0.02 else [layer])
