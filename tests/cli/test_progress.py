"""Bars of what takes long: on a terminal alone, and gone when it is done."""

from __future__ import annotations

import io
import re
import time

import pytest

from bncheck.cli.progress import progress_shown


class _Terminal(io.StringIO):
    """A stream that claims to be one."""

    def isatty(self) -> bool:
        return True


def test_terminal_shows_the_stage_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bar a stage, with the samples done; the next stage takes its place."""
    monkeypatch.setenv("TERM", "xterm")
    stream = _Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with progress_shown() as hear:
        hear("train vs eval", 32, 64)
        hear("train vs eval", 64, 64)
        hear("float vs quantized", 7)
    shown = stream.getvalue()
    assert "train vs eval" in shown
    last = shown.rpartition("train vs eval")[2]
    assert "float vs quantized" in last
    assert "7 samples" in last


def test_time_left_is_told_from_the_first_batch_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar stands before it, so that what the first batch took tells how long the others will."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = _Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with progress_shown() as hear:
        hear("train vs eval", 0, 640)
        time.sleep(0.5)
        hear("train vs eval", 1, 640)
        time.sleep(0.2)
    assert re.search(r"about [0-9.]+ (s|min) left", stream.getvalue())


def test_quiet_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on a terminal."""
    stream = _Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with progress_shown(quiet=True) as hear:
        hear("train vs eval", 1, 2)
    assert stream.getvalue() == ""


def test_pipe_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does it load rich."""
    with progress_shown() as hear:
        hear("train vs eval", 1, None)
    assert capsys.readouterr().err == ""
