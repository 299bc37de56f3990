"""Maps of shards: one model of several files, which lie beside the map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pytorch_writer import batch_norm, state_of, write_archive

import bncheck
from bncheck.facts.errors import Malformed, ReadError
from bncheck.sources import open_model
from bncheck.sources.models_in import models_in
from bncheck.sources.pytorch.pytorch import read_pytorch
from bncheck.sources.safetensors import read_safetensors
from bncheck.sources.shards import json_object, shard_names


def shard(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A file of PyTorch's."""
    write_archive(path, state_of(arrays), {str(i): array.tobytes() for i, array in enumerate(arrays.values())})


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The map of a model in two files, as Hugging Face's libraries name them."""
    arrays = batch_norm("a") | batch_norm("b")
    for number, of in enumerate("ab", 1):
        shard(
            tmp_path / f"pytorch_model-0000{number}-of-00002.bin",
            {name: array for name, array in arrays.items() if name.startswith(of)},
        )
    where = {name: f"pytorch_model-0000{1 + (name[0] == 'b')}-of-00002.bin" for name in arrays}
    path = tmp_path / "pytorch_model.bin.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 160}, "weight_map": where}))
    return path


def test_one_model_of_all_its_files(whole: Path) -> None:
    """With the tensors of each, and nothing of a file that it does not name."""
    expected = batch_norm("a") | batch_norm("b")
    found = open_model(whole).tensors
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].read(), array)
    assert [layer.name for layer in bncheck.check(whole).layers] == ["a", "b"]


def test_a_folder_holds_it_once(whole: Path) -> None:
    """Its shards are no models of their own, other files beside it are."""
    shard(whole.with_name("other.bin"), batch_norm("c"))
    (whole.parent / "vocabulary.bin").write_bytes(bytes(100))
    (whole.parent / "weights.bin").write_bytes(b"\x81\xa4abcd" + bytes(100))  # as msgpack begins
    assert [one.path.name for one in models_in([str(whole.parent)])] == ["other.bin", whole.name]


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", "no\0.safetensors"])
@pytest.mark.parametrize("of", ["model.safetensors", "pytorch_model.bin"])
def test_shards_elsewhere(tmp_path: Path, name: str, of: str) -> None:
    """Are refused: a map leads to the files beside it alone."""
    path = tmp_path / f"{of}.index.json"
    path.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ReadError):
        (read_safetensors if "safetensors" in of else read_pytorch)(path)


def test_a_map_that_lies(tmp_path: Path) -> None:
    """Of a tensor that its file has not."""
    shard(tmp_path / "one.bin", batch_norm("a"))
    path = tmp_path / "model.bin.index.json"
    path.write_text(json.dumps({"weight_map": {"a.bias": "one.bin", "b": "one.bin"}}))
    with pytest.raises(Malformed, match="'b' lies in one"):
        read_pytorch(path)


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"a": 1, "a": 2}'])
def test_a_map_that_is_none(tmp_path: Path, text: str) -> None:
    """Is an error of whoever reads it, and names no shards to whoever searches a folder."""
    path = tmp_path / "model.bin.index.json"
    path.write_text(text)
    assert shard_names(path) == frozenset()
    with pytest.raises(Malformed):
        read_pytorch(path)


def test_errors_name_the_place(tmp_path: Path) -> None:
    """Where in the file the JSON began."""
    with pytest.raises(Malformed) as caught:
        json_object(tmp_path / "m", b"{", 8)
    assert caught.value.offset == 8
