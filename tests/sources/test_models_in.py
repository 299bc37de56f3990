"""Which models paths, globs and folders mean."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import write_bundle

from bncheck.facts.errors import NoModel, NotFound
from bncheck.sources.models_in import models_in

ROOT = Path(__file__).parents[2]
KERAS = next((ROOT / "fixtures" / "tiny").rglob("*.keras"))
LITE = next((ROOT / "fixtures" / "tiny").rglob("*.tflite"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _bundle(prefix: Path) -> None:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(prefix, {"bn/moving_mean": np.zeros(3, np.float32)})


def _found(*paths: str) -> list[str]:
    return [one.path.as_posix() for one in models_in(paths)]


def test_checkpoints_come_in_step_order_and_once(folder: Path) -> None:
    """Parts of a checkpoint are one model: 20 comes before 100; what is no model is left out."""
    for step in (100, 20):
        _bundle(folder / "logs" / f"model.ckpt-{step}")
        shutil.copy(ROOT / "bncheck" / "sample" / "model.ckpt-100.meta", folder / "logs" / f"model.ckpt-{step}.meta")
    (folder / "logs" / "events.out.tfevents").write_bytes(b"\x00" * 40)
    (folder / "logs" / "label_map.pbtxt").write_text("item { name: 'cat' }")
    expected = ["logs/model.ckpt-20", "logs/model.ckpt-100"]
    assert _found("logs") == expected
    assert sorted(_found("logs/model.ckpt-*")) == sorted(expected)
    assert _found("logs/model.ckpt-20", "logs/model.ckpt-20.index", "logs/model.ckpt-20.meta") == expected[:1]


def test_a_single_path_stays_as_it_was_typed(folder: Path) -> None:
    """The report names what the user named."""
    _bundle(folder / "m.ckpt-1")
    assert _found("m.ckpt-1.index") == ["m.ckpt-1.index"]
    assert _found("nothing/there") == ["nothing/there"]


def test_folders_are_searched_for_models_of_all_kinds(folder: Path) -> None:
    """Keras, TFLite, SavedModels (whose inside is no model of its own) and graphs without a checkpoint."""
    (folder / "a" / "b").mkdir(parents=True)
    shutil.copy(KERAS, folder / "a" / "m.keras")
    shutil.copy(LITE, folder / "a" / "b" / "m.tflite")
    shutil.copy(ROOT / "bncheck" / "sample" / "model.ckpt-100.meta", folder / "a" / "graph.meta")
    saved = next((ROOT / "fixtures" / "tiny").rglob("saved_model.pb")).parent
    shutil.copytree(saved, folder / "a" / "export")
    assert _found("a") == ["a/graph.meta", "a/m.keras", "a/export", "a/b/m.tflite"]
    assert _found("a/export") == ["a/export"]
    assert _found("a/export/saved_model.pb", "a/export") == ["a/export/saved_model.pb"]


def test_hidden_ignored_and_linked_folders_are_left_out(folder: Path) -> None:
    """As git leaves them out, nested files and exceptions included; what is named itself is always judged."""
    for name in ("kept", "runs/old", "runs/new", ".cache", "build", "deep/x"):
        _bundle(folder / name / "m.ckpt-1")
    (folder / ".git").mkdir()
    (folder / ".gitignore").write_text("build/\nruns/*\n!runs/new\n")
    (folder / "deep" / ".gitignore").write_text("*.index\n")
    (folder / "linked").symlink_to(folder / "kept", target_is_directory=True)
    assert _found(".") == ["kept/m.ckpt-1", "runs/new/m.ckpt-1"]
    assert _found("build") == ["build/m.ckpt-1"]
    assert _found("build/m.ckpt-1") == ["build/m.ckpt-1"]
    assert _found("linked") == ["linked/m.ckpt-1"]
    with pytest.raises(NoModel, match=r"\.gitignore"):
        models_in(["deep"])


def test_nothing_to_find(folder: Path) -> None:
    """An empty folder, a glob that matches nothing, one that matches no model: each its own sentence."""
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(NoModel, match="holds no model"):
        models_in(["empty"])
    with pytest.raises(NotFound, match="no file matches"):
        models_in(["*.keras"])
    with pytest.raises(NoModel, match="none of 1 files"):
        models_in(["*.txt"])


def test_names_with_wildcards_are_names_where_they_exist(folder: Path) -> None:
    """`model[1].keras` is a file if it is there."""
    shutil.copy(KERAS, folder / "model[1].keras")
    assert _found("model[1].keras") == ["model[1].keras"]


@pytest.mark.skipif(not (ROOT.parent / "shared" / "real").is_dir(), reason="../shared/real is absent")
def test_real_models() -> None:
    """Every model of ../shared/real is found by its folder, none twice; a `.npz` must be named."""
    root = ROOT.parent / "shared" / "real"
    found = {os.path.relpath(one.path, root) for one in models_in([str(root)])}
    files = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix in (".h5", ".hdf5", ".tflite")}
    prefixes = {p.relative_to(root).as_posix()[:-6] for p in root.rglob("*.index") if p.parent.name != "variables"}
    saved = {p.parent.relative_to(root).as_posix() for p in root.rglob("saved_model.pb")}
    assert found == {*files, *prefixes, *saved}
    assert json.loads((root / "facts.json").read_text())
