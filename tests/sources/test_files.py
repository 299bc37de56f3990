"""Files and folders as they are opened and listed."""

from __future__ import annotations

import os
from pathlib import Path

from bncheck.sources.files import names


def test_a_listing_follows_what_changes(tmp_path: Path) -> None:
    """A folder that was left alone for long is listed once, and anew after anything in it came or went."""
    for name in ("a.index", "a.meta", "ab.index", "b.index"):
        (tmp_path / name).touch()
    for seconds in (1_000_000_000, 1_000_000_001):
        os.utime(tmp_path, (seconds, seconds))
        assert names(tmp_path, "a.") == ["a.index", "a.meta"]
        assert names(tmp_path) == ["a.index", "a.meta", "ab.index", "b.index"]
    (tmp_path / "a.data").touch()
    assert names(tmp_path, "a.") == ["a.data", "a.index", "a.meta"]
    (tmp_path / "a.meta").unlink()
    assert names(tmp_path, "a.") == ["a.data", "a.index"]
    assert names(tmp_path, "c") == []
