"""Ranges of input, and numbers that are said to be of one."""

from __future__ import annotations

import pytest

from bncheck.facts.inputs import ends, lies_in


def test_ends_are_those_of_bytes() -> None:
    """0 and 255, as the range makes them, over all channels."""
    assert ends("-1..1") == (-1, 1)
    assert ends("imagenet-mean") == pytest.approx((-123.68, 255 - 103.939))


@pytest.mark.parametrize(
    ("low", "high", "said", "fits"),
    [
        (-1.0, 1.0, "-1..1", True),
        (-1.0, -0.2, "-1..1", True),
        (0.0, 1.0, "-1..1", False),
        (0.0, 1.0, "0..1", True),
        (-0.01, 1.01, "0..1", True),
        (0.0, 0.4, "0..1", True),
        (-1.0, 1.0, "0..1", False),
        (0.0, 255.0, "0..1", False),
        (0.0, 1.0, "0..255", False),
        (0.0, 90.0, "0..255", True),
        (0.0, 255.0, "0..255", True),
        (-116.0, 140.0, "imagenet-mean", True),
        (-2.0, 2.5, "imagenet-standard", True),
        (-1.0, 1.0, "imagenet-standard", False),
    ],
)
def test_numbers_lie_in_the_narrowest_range_that_holds_them(low: float, high: float, said: str, *, fits: bool) -> None:
    """Dark images fill a part of theirs; what a narrower range holds is hardly of a wider one."""
    assert lies_in(low, high, said) is fits
