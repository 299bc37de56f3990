"""What `.gitignore` leaves out, as git itself says it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bncheck.sources.gitignored import ignored_by

PATTERNS = "*.ckpt\n/top.keras\nbuild/\n!kept.ckpt\nlogs/**/tmp\n# a comment\n\\#odd\n"
NAMES = ("a.ckpt", "kept.ckpt", "top.keras", "sub/top.keras", "build/x", "logs/a/tmp", "#odd", "sub/b.ckpt", "plain")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_as_git_does(tmp_path: Path) -> None:
    """Patterns, exceptions and a nested file, for names of files and of folders."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text(PATTERNS)
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / ".gitignore").write_text("!b.ckpt\nplain2\n")
    ignored = ignored_by(tmp_path)
    told = {name for name in NAMES if ignored(tmp_path / name) or ignored((tmp_path / name).parent)}
    asked = subprocess.run(["git", "check-ignore", *NAMES], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told == {line.strip('"') for line in asked.stdout.splitlines()}


def test_an_ignored_folder_that_is_named_is_searched(tmp_path: Path) -> None:
    """Whoever types it means it."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("logs/\n*.keras\n")
    (tmp_path / "logs").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "logs" / "m.keras").touch()
    (tmp_path / "src" / "m.keras").touch()
    assert not ignored_by(tmp_path / "logs")(tmp_path / "logs" / "m.keras")
    assert ignored_by(tmp_path / "src")(tmp_path / "src" / "m.keras")
