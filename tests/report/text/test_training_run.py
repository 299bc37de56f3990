"""The story of a run as text."""

from __future__ import annotations

import io

import html_examples as examples

from bncheck.report.text import text
from bncheck.report.text.training_run import sparkline


def test_sparkline_keeps_the_largest_of_each_column() -> None:
    """A single peak among many checkpoints is seen; what is unknown is blank."""
    values = [None] * 10 + [0.0] * 89 + [8.0]
    assert sparkline(values, 10) == " ▁▁▁▁▁▁▁▁█"
    assert sparkline([0.0, 0.0], 10) == "▁▁"


def test_a_run_begins_with_its_story() -> None:
    """What happened stands before the table; a cause is told once, with its window."""
    stream = io.StringIO()
    text.write_run(examples.run(), stream)
    shown = stream.getvalue()
    assert shown.startswith("FAIL  runs · 4 checkpoints · steps 100 to 400 · 52 batch norm layers")
    assert shown.index("is the first good checkpoint") < shown.index("verdict ")
    assert shown.count("BN103 init-share-too-high: in 2 of 4 checkpoints") == 1
