"""From what people name to a checkpoint, and one clear sentence where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import chunk, table, write_bundle

from bncheck.facts.errors import NoModel, NotFound, ReadError, UnknownFormat, Unreadable
from bncheck.sources import run_dir
from bncheck.sources.bundle.checkpoint import read_checkpoint

ONE = {"w": np.ones(2, np.float32)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A directory with two checkpoints of one run and no `checkpoint` file."""
    write_bundle(tmp_path / "run" / "model.ckpt-300", ONE)
    write_bundle(tmp_path / "run" / "model.ckpt-1000", ONE)
    return tmp_path / "run"


@pytest.mark.parametrize("named", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_any_file_of_a_prefix(run: Path, named: str) -> None:
    """Prefix, index, data file and MetaGraph all mean the same checkpoint."""
    (run / "model.ckpt-300.meta").write_bytes(b"")
    model = read_checkpoint(run / f"model.ckpt-300{named}")
    assert model.path == run / "model.ckpt-300"
    assert list(model.tensors) == ["w"]


@pytest.mark.parametrize("named", [".index", ".data-00000-of-00001", ""])
def test_empty_basename(tmp_path: Path, named: str) -> None:
    """Files that are nothing but their suffix (`export/.index`) are a checkpoint too."""
    write_bundle(f"{tmp_path}/export/", ONE)
    model = read_checkpoint(tmp_path / "export" / named)
    assert model.path == tmp_path / "export" / ".index"
    assert model.tensors["w"].read().tolist() == [1, 1]


@pytest.mark.parametrize(
    "written",
    [
        "model.ckpt-300",
        "./model.ckpt-300",
        "/home/author/models/run/model.ckpt-300",
        "C:\\\\Users\\\\author\\\\run\\\\model.ckpt-300",
        "elsewhere/model.ckpt-300",
        "model.ckpt-\\063\\060\\060",
    ],
)
def test_directory_names_one(run: Path, written: str) -> None:
    """The `checkpoint` file decides, whatever path of whatever machine it holds."""
    (run / "checkpoint").write_text(f'model_checkpoint_path: "{written}"\nall_model_checkpoint_paths: "model.ckpt-1"\n')
    model = read_checkpoint(run)
    assert model.path.name == "model.ckpt-300"
    assert model.notes == ("`checkpoint` names model.ckpt-300",)
    assert read_checkpoint(run / "checkpoint").path == model.path


def test_directory_names_a_subdirectory(run: Path) -> None:
    """A relative path is one below the directory before it is a name beside the file."""
    write_bundle(run / "best" / "model.ckpt-300", {"v": np.ones(1)})
    (run / "checkpoint").write_text('model_checkpoint_path: "best/model.ckpt-300"\n')
    assert list(read_checkpoint(run).tensors) == ["v"]


def test_directory_names_an_absent_one(run: Path) -> None:
    """A checkpoint that is named and not there is not replaced by another; the others are offered."""
    (run / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-2000"\n')
    with pytest.raises(NotFound, match=r"names model.ckpt-2000.*it holds model.ckpt-300, model.ckpt-1000"):
        read_checkpoint(run)


def test_directory_without_a_name(run: Path) -> None:
    """Without a `checkpoint` file the last step is taken, and said."""
    model = read_checkpoint(run)
    assert model.path.name == "model.ckpt-1000"
    assert model.notes == ("model.ckpt-1000 is the newest of 2 checkpoints in the directory, which names none itself",)


def test_only_one(tmp_path: Path) -> None:
    """The only checkpoint of a directory needs no note."""
    write_bundle(tmp_path / "weights", ONE)
    assert read_checkpoint(tmp_path).notes == ()


def test_newest_by_time(tmp_path: Path) -> None:
    """Where names have no number, the time of writing orders them."""
    for age, name in ((100, "b"), (300, "a"), (200, "c")):
        os.utime(write_bundle(tmp_path / name, ONE), (1_000_000 - age, 1_000_000 - age))
    assert [path.name for path in run_dir(tmp_path)] == ["a", "c", "b"]
    assert read_checkpoint(tmp_path).path.name == "b"


def test_run_in_step_order(run: Path) -> None:
    """Checkpoints of a run come by their step, not by their spelling."""
    write_bundle(run / "model.ckpt-20", ONE)
    assert run_dir(run) == [run / "model.ckpt-20", run / "model.ckpt-300", run / "model.ckpt-1000"]


def test_run_without_checkpoints(tmp_path: Path) -> None:
    """A run needs a directory, and checkpoints in it."""
    with pytest.raises(NoModel, match="no checkpoint in this directory"):
        run_dir(tmp_path)
    with pytest.raises(NotFound, match="no such directory"):
        run_dir(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFound, match="a file, not a directory"):
        run_dir(tmp_path / "file")


def test_prefix_beside_a_directory(tmp_path: Path) -> None:
    """An empty directory does not hide the checkpoint of the same name beside it."""
    write_bundle(tmp_path / "model", ONE)
    (tmp_path / "model").mkdir()
    assert list(read_checkpoint(tmp_path / "model").tensors) == ["w"]


def test_empty_directory(tmp_path: Path) -> None:
    """An empty directory holds no model."""
    with pytest.raises(NoModel, match=r"no checkpoint in this directory$"):
        read_checkpoint(tmp_path)


def test_directory_of_runs(tmp_path: Path) -> None:
    """A directory whose folders hold checkpoints names them."""
    write_bundle(tmp_path / "first" / "model", ONE)
    (tmp_path / "first" / "checkpoint").write_text('model_checkpoint_path: "model"\n')
    (tmp_path / "logs").mkdir()
    with pytest.raises(NoModel, match=r"\(it holds folders that have one: first\)"):
        run_dir(tmp_path)


def test_directory_of_something_else(tmp_path: Path) -> None:
    """A directory with other models says which."""
    (tmp_path / "model.h5").write_bytes(b"")
    with pytest.raises(NoModel, match=r"it holds model\.h5"):
        read_checkpoint(tmp_path)


def test_variables_without_their_saved_model(tmp_path: Path) -> None:
    """A SavedModel that lost its graph points to its variables."""
    write_bundle(tmp_path / "variables" / "variables", ONE)
    with pytest.raises(NoModel, match="give variables/variables"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model.ckpt-9", "no such file or checkpoint$"),
        ("model.ckpt", r"no such file or checkpoint \(beside it: model.ckpt-1000, model.ckpt-300\)"),
        ("lost", "lost.data-00000-of-00001 is there, but its index lost.index is not"),
        ("graph", "graph.meta is there: it holds the graph, but no values"),
        ("graph.index", "graph.meta is there: it holds the graph, but no values"),
        ("graph.meta", "its index graph.index is not beside it"),
        ("absent/model", "absent does not exist"),
        ("graph.meta/model", "graph.meta is a file"),
    ],
)
def test_wrong_paths(run: Path, name: str, says: str) -> None:
    """A path that is not there says what is."""
    (run / "lost.data-00000-of-00001").write_bytes(b"")
    (run / "graph.meta").write_bytes(b"")
    with pytest.raises(NotFound, match=says):
        read_checkpoint(run / name)


@pytest.mark.parametrize("name", ["model.ckpt-300", "nameless", "v1-00000-of-00001"])
def test_v1_alone_in_a_directory(tmp_path: Path, name: str) -> None:
    """A run whose checkpoints are V1 is read, by its content, and not the graph that lies beside them."""
    (tmp_path / name).write_bytes(table([(b"", chunk(1, b""))]))
    (tmp_path / f"{name}.meta").write_bytes(b"")
    prefix = tmp_path / name.removesuffix("-00000-of-00001")
    assert run_dir(tmp_path) == [prefix]
    assert read_checkpoint(tmp_path).path == prefix
    for other in (b"no table", write_bundle(tmp_path / "two", ONE).read_bytes()):
        (tmp_path / name).write_bytes(other)
        (tmp_path / "two.index").unlink(missing_ok=True)
        with pytest.raises(NoModel, match=rf"no checkpoint in this directory \(it holds {name}.meta\)"):
            run_dir(tmp_path)


@pytest.mark.parametrize("name", ["v1.ckpt", "v1.ckpt-00000-of-00001"])
def test_v1(tmp_path: Path, name: str) -> None:
    """A V1 checkpoint is told by its content, or by the names of its shards."""
    (tmp_path / name).write_bytes(table([(b"", chunk(1, b""))]))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "v1.ckpt"\n')
    for path in (tmp_path / "v1.ckpt", tmp_path / name, tmp_path):
        found = read_checkpoint(path)
        assert (found.path, dict(found.tensors)) == (tmp_path / "v1.ckpt", {})


def test_v1_without_a_shard(tmp_path: Path) -> None:
    """Which of its files are there is said."""
    (tmp_path / "v1.ckpt-00001-of-00002").write_bytes(table([(b"", chunk(1, b""))]))
    with pytest.raises(NotFound, match="1 of the 2 files of this V1 checkpoint are there"):
        read_checkpoint(tmp_path / "v1.ckpt")


def test_renamed_index(tmp_path: Path) -> None:
    """An index under another name is recognised, and asked to be renamed."""
    write_bundle(tmp_path / "m", ONE).rename(tmp_path / "m.idx")
    with pytest.raises(UnknownFormat, match=r"under another name \(rename it back"):
        read_checkpoint(tmp_path / "m.idx")


def test_other_file(tmp_path: Path) -> None:
    """A file that is nothing of a checkpoint is called that."""
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UnknownFormat, match="neither a prefix nor a file of one"):
        read_checkpoint(tmp_path / "notes.txt")


def test_dangling_link(tmp_path: Path) -> None:
    """A link to nothing is told apart from nothing."""
    (tmp_path / "m.index").symlink_to(tmp_path / "gone")
    with pytest.raises(NotFound, match=r"a symbolic link to .*gone, which does not exist"):
        read_checkpoint(tmp_path / "m")


def test_link_to_itself(tmp_path: Path) -> None:
    """A link that leads in a circle is an error, not a crash."""
    (tmp_path / "m").symlink_to(tmp_path / "m")
    with pytest.raises(NotFound, match="leads back to itself"):
        read_checkpoint(tmp_path / "m")


def test_strange_paths(tmp_path: Path) -> None:
    """Paths that no operating system takes end in a sentence."""
    for path in (tmp_path / ("x" * 5000), Path("a\0b")):
        with pytest.raises(ReadError):
            read_checkpoint(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(run: Path) -> None:
    """A file without permission says so."""
    (run / "model.ckpt-300.index").chmod(0)
    with pytest.raises(Unreadable, match="Permission denied"):
        read_checkpoint(run / "model.ckpt-300")


def test_permission_is_a_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operating system refuses becomes Unreadable with its own words."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(Unreadable, match=r"model.ckpt-300.index: .*Permission denied"):
        read_checkpoint(run / "model.ckpt-300")


def test_fifo_as_shard(tmp_path: Path) -> None:
    """A FIFO in the place of a data file counts as absent; nothing waits for it."""
    write_bundle(tmp_path / "m", ONE, data=False)
    os.mkfifo(tmp_path / "m.data-00000-of-00001")
    assert read_checkpoint(tmp_path / "m").tensors["w"].unavailable is not None
