"""Completion in shells, asked as a shell asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bncheck.cli.completion import SHELLS
from bncheck.cli.main import main
from bncheck.rules import RULES

ROOT = Path(__file__).parents[2]


def _completed(line: str, folder: Path) -> list[str]:
    """What bash is offered behind a line, as `type,value`."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_BNCHECK_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    command = [sys.executable, "-c", "import sys; from bncheck.cli.main import main; sys.exit(main([]))"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each shell gets its own; where the shell is at hand it accepts it."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_BNCHECK_COMPLETE" in script
    if shutil.which(shell):
        option = "--no-execute" if shell == "fish" else "-n"
        subprocess.run([shell, option], input=script, text=True, check=True, timeout=60)


def test_prefixes_of_checkpoints(tmp_path: Path) -> None:
    """A checkpoint is offered once, by its prefix, beside folders and other files; its parts are not."""
    for file in (ROOT / "bncheck" / "sample").iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "mine.keras").touch()
    offered = ["plain,mine.keras", "plain,model.ckpt-100", "plain,more/"]
    assert _completed("bncheck check m", tmp_path) == offered
    assert _completed("bncheck repair m", tmp_path) == offered
    assert _completed("bncheck check mi", tmp_path) == ["file,mi"]


def test_codes(tmp_path: Path) -> None:
    """Of `explain`, and behind a comma."""
    codes = [f"plain,{code}" for code in RULES.codes if code.startswith("BN2")]
    assert _completed("bncheck explain BN2", tmp_path) == codes
    assert _completed("bncheck check x --ignore BN101,bn40", tmp_path) == [
        f"plain,BN101,{code}" for code in RULES.codes if code.startswith("BN40")
    ]
    assert "plain,check" in _completed("bncheck ch", tmp_path)
