"""The demo: its story, what it needs, where it leaves its files."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from bncheck.cli.demo import demo
from bncheck.facts.errors import BncheckError, UsageError


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_short_run_tells_all_four_chapters(tmp_path: Path) -> None:
    """Six steps are enough to forget: inspection finds BN201, both modes are measured, the repair is written."""
    pytest.importorskip("tf_slim")
    pytest.importorskip("sklearn")
    from bncheck import inspect_checkpoint
    from bncheck.demo import tell

    stream = io.StringIO()
    heard: list[tuple[str, int, int]] = []

    @contextmanager
    def stage(name: str, of: int) -> Iterator[Callable[[int], None]]:
        yield lambda done: heard.append((name, done, of))

    told = tell(tmp_path, stream, steps=6, stage=stage)
    story = stream.getvalue()
    assert [line[0] for line in story.splitlines() if line[1:3] == ". "] == ["1", "2", "3", "4"]
    assert "BN201 update-not-wired" in story
    assert story.count("is_training=False  (statistics of the checkpoint)") == 2
    assert "BN201" in told.codes
    assert all(0 <= share <= 1 for share in (told.train_mode, told.eval_mode, told.repaired))
    assert heard[:6] == [("train", step, 6) for step in range(1, 7)]
    assert {name for name, _, _ in heard} == {"train", "compare", "estimate", "compare again"}
    assert not any(
        f.code in ("BN101", "BN103") for f in inspect_checkpoint(tmp_path / "fixed.ckpt", use_graph=False).findings
    )


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits are the only thing that comes from there, and no dependency of the package."""
    pytest.importorskip("tensorflow")
    from bncheck.demo import load_digits

    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(BncheckError, match=r"pip install .*scikit-learn"):
        load_digits()


def test_a_folder_that_exists_is_not_written_into(tmp_path: Path) -> None:
    """`--keep` takes a new folder, as every command that writes takes a new place."""
    result = CliRunner().invoke(demo, ["--keep", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "already exists" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
