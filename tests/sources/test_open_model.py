"""Which reader answers for a path: by content, and one sentence where none does."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from bundle_writer import write_bundle
from keras_writer import archive, batch_norm, sequential

from bncheck.facts.errors import NoModel, NotFound, ReadError, UnknownFormat, Unreadable, UsageError
from bncheck.sources import open_checkpoint, open_model
from bncheck.sources.graph import protos

ONE = {"w": np.ones(2, np.float32)}


def meta_graph() -> bytes:
    """A MetaGraph of one node."""
    message = protos.MetaGraphDef()
    message.meta_info_def.tensorflow_version = "1.15.0"
    message.graph_def.node.add(name="x", op="Placeholder")
    return bytes(message.SerializeToString())


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A checkpoint with its MetaGraph."""
    write_bundle(tmp_path / "run" / "model.ckpt-7", ONE)
    (tmp_path / "run" / "model.ckpt-7.meta").write_bytes(meta_graph())
    return tmp_path / "run" / "model.ckpt-7"


@pytest.mark.parametrize("named", ["", ".index", ".data-00000-of-00001"])
def test_checkpoint_with_its_graph(prefix: Path, named: str) -> None:
    """A checkpoint comes with the MetaGraph of the same prefix."""
    model = open_model(prefix.with_name(prefix.name + named))
    assert model.format.label == "TF1 checkpoint"
    assert list(model.tensors) == ["w"]
    assert [graph.graph_def.node[0].name for graph in model.graphs] == ["x"]


def test_without_its_graph(prefix: Path) -> None:
    """`use_graph=False` leaves the MetaGraph out."""
    assert open_model(prefix, use_graph=False).graphs == ()


def test_with_a_given_graph(prefix: Path) -> None:
    """A graph that is given is read wherever it lies, and has to be there."""
    elsewhere = prefix.with_name("other.pb")
    prefix.with_name("model.ckpt-7.meta").rename(elsewhere)
    assert len(open_model(prefix, graph=elsewhere).graphs) == 1
    with pytest.raises(ReadError):
        open_model(prefix, graph=prefix.with_name("absent.meta"))


def test_directory(prefix: Path) -> None:
    """A directory with a checkpoint is that checkpoint."""
    model = open_model(prefix.parent)
    assert (model.path, len(model.graphs)) == (prefix, 1)


def test_empty_basename(tmp_path: Path) -> None:
    """The graph of `export/.index` is `export/.meta`."""
    write_bundle(f"{tmp_path}/export/", ONE)
    (tmp_path / "export" / ".meta").write_bytes(meta_graph())
    assert len(open_model(tmp_path / "export").graphs) == 1


def test_graph_alone(prefix: Path) -> None:
    """A MetaGraph by itself is a graph without values; `open_checkpoint` takes it for its checkpoint."""
    meta = prefix.with_name("model.ckpt-7.meta")
    assert dict(open_model(meta).tensors) == {}
    model = open_checkpoint(meta)
    assert (list(model.tensors), len(model.graphs)) == (["w"], 1)


def test_damaged_graph_beside(prefix: Path) -> None:
    """Where the MetaGraph that was found, not given, cannot be read, the error tells how to do without."""
    meta = prefix.with_name("model.ckpt-7.meta")
    meta.write_bytes(meta_graph()[:-1])
    with pytest.raises(ReadError, match=r"--no-graph leaves it out\)$") as found:
        open_model(prefix)
    assert found.value.path == str(meta)
    with pytest.raises(ReadError) as given:
        open_model(prefix, graph=meta)
    assert "--no-graph" not in str(given.value)


def test_saved_model_directory(tmp_path: Path) -> None:
    """A directory with a saved_model.pb is a SavedModel with its variables, and so is the file itself."""
    message = protos.SavedModel(saved_model_schema_version=1)
    message.meta_graphs.add().ParseFromString(meta_graph())
    (tmp_path / "saved_model.pb").write_bytes(message.SerializeToString())
    write_bundle(tmp_path / "variables" / "variables", ONE)
    for path in (tmp_path, tmp_path / "saved_model.pb"):
        model = open_model(path)
        assert (model.format.label, list(model.tensors)) == ("SavedModel", ["w"])


def test_unpacked_keras_directory(tmp_path: Path) -> None:
    """A directory with the members of a .keras archive is that model, not a directory of checkpoints."""
    with zipfile.ZipFile(archive(tmp_path / "m.keras", sequential(batch_norm("bn")), {})) as file:
        file.extractall(tmp_path / "unpacked")
    assert "Keras" in open_model(tmp_path / "unpacked").format.label


def test_content_decides(tmp_path: Path, prefix: Path) -> None:
    """A suffix does not: an HDF5 file called .pb is an HDF5 file, a .npz called .dat a NumPy archive."""
    with h5py.File(tmp_path / "weights.pb", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense").attrs["weight_names"] = [b"kernel:0"]
        file["dense"]["kernel:0"] = np.ones((2, 2))
    assert "Keras" in open_model(tmp_path / "weights.pb").format.label
    content = io.BytesIO()
    np.savez(content, **{"bn/gamma": np.ones(3)})
    (tmp_path / "weights.dat").write_bytes(content.getvalue())
    assert open_model(tmp_path / "weights.dat").format.label == "NumPy archive"
    (tmp_path / "weights.txt").write_bytes(prefix.with_name("model.ckpt-7.meta").read_bytes())
    assert len(open_model(tmp_path / "weights.txt").graphs) == 1


def test_graph_for_no_checkpoint(tmp_path: Path) -> None:
    """A graph cannot be given with anything but a checkpoint."""
    np.savez(tmp_path / "w.npz", w=np.ones(1))
    with pytest.raises(UsageError, match="not a checkpoint"):
        open_model(tmp_path / "w.npz", graph=tmp_path / "g.meta")


@pytest.mark.parametrize("name", ["model.meta", "notes.txt", "model.ckpt"])
def test_text_file(tmp_path: Path, name: str) -> None:
    """A text file is called that, whatever its name."""
    (tmp_path / name).write_text("once upon a time\nthere was no model\n" * 50)
    with pytest.raises(UnknownFormat, match="a text file, not a model"):
        open_model(tmp_path / name)


def test_text_file_called_index(tmp_path: Path) -> None:
    """A text file in the place of an index is no index."""
    (tmp_path / "m.index").write_text("once upon a time")
    with pytest.raises(UnknownFormat, match="does not end as a checkpoint index"):
        open_model(tmp_path / "m.index")


@pytest.mark.parametrize(("content", "says"), [(b"", "an empty file"), (b"\x7fELF\0\1\2\3" * 9, "of no format")])
def test_unknown_content(tmp_path: Path, content: bytes, says: str) -> None:
    """Empty files and unknown bytes are told apart."""
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(UnknownFormat, match=says):
        open_model(tmp_path / "model")


def test_git_lfs_pointer(tmp_path: Path) -> None:
    """A pointer that Git LFS has not fetched says what to run."""
    (tmp_path / "model.h5").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UnknownFormat, match="git lfs pull"):
        open_model(tmp_path / "model.h5")


def test_shard_alone(tmp_path: Path) -> None:
    """A data file without its index says what is lacking."""
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"\x0a\x05abc" * 9)
    with pytest.raises(NotFound, match=r"its index m.index is not beside it"):
        open_model(tmp_path / "m.data-00000-of-00001")


def test_nothing_there(tmp_path: Path) -> None:
    """Wrong paths, empty directories and dangling links end in a sentence."""
    with pytest.raises(NotFound, match="no such file or checkpoint"):
        open_model(tmp_path / "absent")
    with pytest.raises(NoModel):
        open_model(tmp_path)
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(NotFound, match="a symbolic link to gone"):
        open_model(tmp_path / "link")


def test_fifo_and_device(tmp_path: Path) -> None:
    """A FIFO or a device is refused at once, not waited for."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unreadable, match="a FIFO, not a file"):
        open_model(tmp_path / "pipe")
    with pytest.raises(Unreadable, match="a device, not a file"):
        open_model("/dev/zero")
