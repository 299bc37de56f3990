"""What people report, in other hands: each kind of fault and its healthy twin, written in at least three ways."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


def test_other_hands(tmp_path: Path) -> None:
    """In every variant the root causes are found, and nothing else is said."""
    import other_hands

    wrong = {}
    count = 0
    for count, variant in enumerate(other_hands.variants(), 1):
        folder = tmp_path / str(count)
        folder.mkdir()
        found, report = other_hands.causes(variant, folder)
        if found != set(variant.codes.split()):
            wrong[variant.name] = [f"{f.code} {f.severity.value}: {f.message}" for f in report.findings]
    assert not wrong
    assert count >= 60
