"""Amounts with and without units."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bncheck.settings.amounts import MEGABYTES, SECONDS, amount


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("90", SECONDS, 90.0),
        ("1e-6", SECONDS, 1e-6),
        (" 1.5 m ", SECONDS, 90.0),
        ("10min", SECONDS, 600.0),
        ("1H", SECONDS, 3600.0),
        ("2000.5", MEGABYTES, 2000.5),
        ("2GB", MEGABYTES, 2000.0),
        ("1 GiB", MEGABYTES, 1073.741824),
    ],
)
def test_amounts(text: str, units: Mapping[str, float], value: float) -> None:
    """A bare number is in the smallest unit; case and blanks do not count."""
    assert amount(text, units) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["", "soon", "5 weeks", "0", "-1", "nan", "inf", "1e999", "2GB"])
def test_no_amounts(text: str) -> None:
    """Whatever else it is, it is refused with a sentence."""
    with pytest.raises(ValueError, match=r"is no number|not greater than 0"):
        amount(text, SECONDS)
