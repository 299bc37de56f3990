"""Where repaired copies go: never over anything, never half, whatever kills the process."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import write_bundle

from bncheck.facts.errors import ReadError, UsageError
from bncheck.repair.publish import publish, workshop
from bncheck.repair.write import Written, destination
from bncheck.sources import open_model
from bncheck.sources.bundle.checkpoint import read_checkpoint

FIXTURES = Path(__file__).parents[2] / "fixtures"
NEW = {"bn/moving_mean": np.array([1.0, 2.0]), "bn/moving_variance": np.array([3.0, 4.0])}
TENSORS = {
    "bn/moving_mean": np.zeros(2, np.float32),
    "bn/moving_variance": np.ones(2, np.float32),
    "w": np.arange(6, dtype=np.float32),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint with a `.meta`, alone in a folder."""
    prefix = tmp_path / "run" / "model.ckpt-7"
    write_bundle(prefix, TENSORS)
    prefix.with_name("model.ckpt-7.meta").write_bytes(b"a graph")
    return prefix


def write(source: Path, output: Path) -> Written:
    """The checkpoint with NEW in it."""
    return destination(open_model(source, use_graph=False), output).write(NEW, {}, "{}\n")


def hashes(folder: Path) -> dict[str, str]:
    """Every file below, by its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_checkpoint_comes_whole(source: Path, tmp_path: Path) -> None:
    """Data, index, the copied `.meta`, provenance and, in a folder without one, a `checkpoint` file; nothing else."""
    before = hashes(source.parent)
    out = tmp_path / "fixed"
    out.mkdir()
    written = write(source, out / "fixed.ckpt")
    assert (
        {path.name for path in written.files}
        == {path.name for path in out.iterdir()}
        == {
            "checkpoint",
            "fixed.ckpt.bncheck.json",
            "fixed.ckpt.data-00000-of-00001",
            "fixed.ckpt.index",
            "fixed.ckpt.meta",
        }
    )
    assert written.notes == ()
    assert (out / "fixed.ckpt.meta").read_bytes() == b"a graph"
    assert read_checkpoint(out).path == out / "fixed.ckpt"
    assert read_checkpoint(out).tensors["bn/moving_variance"].read().tolist() == [3.0, 4.0]
    assert hashes(source.parent) == before


def test_a_folder_gets_the_sources_name(source: Path, tmp_path: Path) -> None:
    """`-o folder/` keeps the basename."""
    out = tmp_path / "fixed"
    out.mkdir()
    write(source, out)
    assert (out / "model.ckpt-7.index").is_file()


def test_a_training_runs_own_checkpoint_file_stays(source: Path) -> None:
    """Beside the source, the state file still names what training would resume from, and a note says so."""
    state = source.parent / "checkpoint"
    state.write_text('model_checkpoint_path: "model.ckpt-7"\n')
    written = write(source, source.parent / "fixed.ckpt")
    assert state.read_text() == 'model_checkpoint_path: "model.ckpt-7"\n'
    assert state not in written.files
    assert "restore by prefix" in written.notes[0]


@pytest.mark.parametrize("name", ["model.ckpt-7", "model.ckpt-7.index", "../run/model.ckpt-7", ""])
def test_the_source_itself_is_refused(source: Path, name: str) -> None:
    """By any of its names, or as the folder that it lies in."""
    with pytest.raises(UsageError, match="never changes"):
        destination(open_model(source, use_graph=False), source.parent / name)


def test_the_source_behind_a_link_is_refused(source: Path, tmp_path: Path) -> None:
    """A folder that is a link to the source's."""
    (tmp_path / "link").symlink_to(source.parent, target_is_directory=True)
    with pytest.raises(UsageError, match="never changes"):
        destination(open_model(source, use_graph=False), tmp_path / "link" / source.name)


@pytest.mark.parametrize(
    ("taken", "reason"),
    [
        ("out.index", "not overwritten"),
        ("out.data-00000-of-00002", "without an index"),
        ("out.meta", "without an index"),
        ("out.bncheck.json", "without an index"),
    ],
)
def test_what_exists_is_never_overwritten(source: Path, tmp_path: Path, taken: str, reason: str) -> None:
    """Any file that would belong to the output, or be taken for a part of it."""
    (tmp_path / taken).write_bytes(b"precious")
    with pytest.raises(UsageError, match=reason):
        destination(open_model(source, use_graph=False), tmp_path / "out")
    assert (tmp_path / taken).read_bytes() == b"precious"


def test_what_appears_meanwhile_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    """A file that came after the check stops the output, and what was named already is taken back."""
    place = destination(open_model(source, use_graph=False), tmp_path / "out")
    (tmp_path / "out.index").write_bytes(b"precious")
    with pytest.raises(UsageError, match="not overwritten"):
        place.write(NEW, {}, "{}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.index", "run"]
    assert (tmp_path / "out.index").read_bytes() == b"precious"


def test_no_folder_to_write_to_is_said_so(source: Path, tmp_path: Path) -> None:
    """Folders are not made on the way."""
    with pytest.raises(UsageError, match="no such folder"):
        destination(open_model(source, use_graph=False), tmp_path / "none" / "out")


def test_a_file_system_without_hard_links_is_served(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are renamed there, and still overwrite nothing."""

    def refuse(*_: object) -> None:
        raise PermissionError("no hard links")

    monkeypatch.setattr(os, "link", refuse)
    write(source, tmp_path / "out")
    assert read_checkpoint(tmp_path / "out").tensors["w"].read().tolist() == list(range(6))
    with workshop(tmp_path / "x") as folder:
        (folder / "a").write_bytes(b"new")
        (tmp_path / "a").write_bytes(b"precious")
        with pytest.raises(UsageError, match="not overwritten"):
            publish([(folder / "a", tmp_path / "a")])
    assert (tmp_path / "a").read_bytes() == b"precious"


def test_a_failure_leaves_nothing(source: Path, tmp_path: Path) -> None:
    """A vector that does not fit: no file, no workshop."""
    out = tmp_path / "fixed"
    out.mkdir()
    place = destination(open_model(source, use_graph=False), out / "out")
    with pytest.raises(UsageError, match="no room for"):
        place.write({"w": np.zeros(7)}, {}, "{}\n")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("tiny/bn406_not_folded/broken", "convert again"),
        ("tiny/bn205_served_in_train_mode/clean_frozen", "freeze or export again"),
    ],
)
def test_folded_and_frozen_statistics_are_refused(path: str, hint: str, tmp_path: Path) -> None:
    """A TFLite file, a frozen graph: the checkpoint is what to repair."""
    model = next(p for p in sorted((FIXTURES / path).rglob("*")) if p.name.endswith((".tflite", "frozen.pb")))
    with pytest.raises(ReadError, match=hint):
        destination(open_model(model), tmp_path / "out")


def test_a_saved_model_comes_whole(tmp_path: Path) -> None:
    """Every file of the folder, other variables bit-identical, the old fingerprint left out; the source as it was."""
    source = FIXTURES / "tiny" / "healthy" / "keras_export" / "model"
    before = hashes(source)
    raw = open_model(source)
    key = next(key for key, tensor in raw.tensors.items() if tensor.dtype == "float32" and len(tensor.shape) == 1)
    written = destination(raw, tmp_path / "out").write({key: np.full(raw.tensors[key].shape, 0.25)}, {}, "{}\n")
    assert [path.name for path in written.files] == ["out", "out.bncheck.json"]
    assert "fingerprint.pb" in written.notes[0]
    after = hashes(tmp_path / "out")
    assert set(after) == set(before) - {"fingerprint.pb"}
    assert {name for name in after if after[name] != before[name]} == {
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
    }
    found = open_model(tmp_path / "out").tensors
    assert set(found[key].read().tolist()) == {0.25}
    for other, tensor in raw.tensors.items():
        if other != key:
            assert found[other].read().tolist() == tensor.read().tolist()
    assert hashes(source) == before
    with pytest.raises(UsageError, match="not overwritten"):
        destination(raw, tmp_path / "out")
    with pytest.raises(UsageError, match="never changes"):
        destination(raw, source)
    with pytest.raises(UsageError, match="choose a place outside"):
        destination(raw, source / "variables" / "out")
