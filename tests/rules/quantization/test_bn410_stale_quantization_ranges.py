"""BN410: where a range begins to misfit, and what it says then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncheck.facts.fake_quant import Bound, FakeQuantFacts, RecordedRange, Rounds
from bncheck.facts.findings import Evidence, Severity
from bncheck.numerics.fake_quant import extent, rounding_noise
from bncheck.rules.quantization.bn410_stale_quantization_ranges import check
from bncheck.testing import batch_norm, facts, untouched

WEIGHTS = np.random.default_rng(1).normal(scale=0.2, size=(3, 3, 16, 24))


def _recorded(times: float) -> RecordedRange:
    """A range `times` as wide as the weights are."""
    low, high = extent(WEIGHTS, per_channel=False)
    least, noise = (
        rounding_noise(WEIGHTS, low * factor, high * factor, bits=8, narrow=True) for factor in (1.0, times)
    )
    return RecordedRange(
        name="conv/weights_quant/FakeQuantWithMinMaxVars",
        rounds=Rounds.WEIGHTS,
        low=Bound(name="conv/weights_quant/min", key="conv/weights_quant/min", values=low * times, initial=-6.0),
        high=Bound(name="conv/weights_quant/max", key="conv/weights_quant/max", values=high * times, initial=6.0),
        bits=8,
        narrow=True,
        layer="bn",
        extent=(low, high),
        noise=noise,
        least_noise=least,
    )


def _found(*ranges: RecordedRange) -> list[Evidence]:
    return list(check.check(facts(batch_norm("bn"), fake_quant=FakeQuantFacts(ranges=ranges, folded=1))))


@pytest.mark.parametrize("times", [0.9, 0.97, 1.0, 1.1, 2.0, 3.0])
def test_what_a_step_of_training_moves_is_no_fault(times: float) -> None:
    """A tenth cut off, or three times too wide, leaves the weights nearly what they were."""
    assert not _found(_recorded(times))


@pytest.mark.parametrize(("times", "severity"), [(0.1, Severity.ERROR), (0.3, Severity.ERROR), (60.0, Severity.ERROR)])
def test_a_range_of_other_statistics_is_an_error(times: float, severity: Severity) -> None:
    """Weights cut off, or few levels left."""
    (evidence,) = _found(_recorded(times))
    assert evidence.severity is severity
    assert evidence.layers == ("bn",)
    assert ("clips them" in evidence.message) == (times < 1)


def test_between_the_two_it_warns() -> None:
    """Twelve times too wide: a hundredth of the energy."""
    (evidence,) = _found(_recorded(12.0))
    assert evidence.severity is Severity.WARNING


def test_untrained_weights_have_no_ranges_to_miss() -> None:
    """A checkpoint of step 0."""
    bound = Bound(name="conv/act_quant/min", values=np.array(-6.0), initial=-6.0)
    above = replace(bound, name="conv/act_quant/max", values=np.array(6.0), initial=6.0)
    recorded = RecordedRange(name="q", rounds=Rounds.ACTIVATIONS, low=bound, high=above, bits=8, narrow=False)
    known = FakeQuantFacts(ranges=(recorded,), folded=1)
    fresh = untouched("bn", gamma=1.0, beta=0.0)
    assert not list(check.check(facts(fresh, fake_quant=known)))
    assert len(list(check.check(facts(batch_norm("bn"), fake_quant=known)))) == 1
