"""BN501 worse-than-before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from one_evidence import only

from bncheck.facts.layers import Facts
from bncheck.facts.measurements import Before, scores
from bncheck.rules.quantization.bn501_worse_than_before import check
from bncheck.testing import classes_compared, compared, difference


def against(model: Facts, **old: Any) -> Facts:
    """The model, held against an earlier one that was measured on the same data."""
    measured = scores(model.comparison)
    assert measured is not None
    return replace(model, before=Before(path="old.ckpt", modes=replace(measured, **old)))


@pytest.mark.parametrize(("samples", "speaks"), [(20, False), (100_000, True)])
def test_few_samples_excuse_what_many_do_not(samples: int, *, speaks: bool) -> None:
    """Six points of accuracy are chance among twenty samples."""
    model = against(compared(difference(), accuracy=(0.95, 0.88)), accuracy=0.94)
    assert model.comparison is not None
    assert model.before is not None
    assert model.before.modes is not None
    data = replace(model.comparison.data, samples=samples)
    before = replace(model.before, modes=replace(model.before.modes, samples=samples))
    model = replace(model, comparison=replace(model.comparison, data=data), before=before)
    assert bool(list(check.check(model))) is speaks


def test_other_data_are_not_held_against_each_other() -> None:
    """Neither other samples nor data of another description."""
    bad = compared(difference(), accuracy=(0.95, 0.5))
    assert list(check.check(against(bad, accuracy=0.94, samples=7))) == []
    assert list(check.check(against(bad, accuracy=0.94, data="others"))) == []


def test_both_numbers_are_told() -> None:
    """Now and before, and on how much."""
    found = only(check, against(compared(difference(), output=classes_compared(0.70)), agreement=0.96))
    assert found.message.startswith("Worse than old.ckpt: agreement of eval mode with train mode 70.0 %, before 96.0 %")
