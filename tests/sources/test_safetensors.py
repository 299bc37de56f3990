"""safetensors, and maps of shards: the format's own validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytorch_writer import batch_norm

from bncheck.facts.errors import Malformed, ReadError, TooLarge, Truncated
from bncheck.sources.safetensors import matches, read_safetensors

TYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64", "uint8": "U8", "bool": "BOOL"}


def written(path: Path, arrays: dict[str, np.ndarray], **changes: Any) -> Path:
    """A file of these arrays; `changes` replace entries of the header."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in arrays.items():
        end = len(data) + array.nbytes
        header[name] = {"dtype": TYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(header | changes).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@given(st.lists(st.sampled_from(sorted(TYPES)), max_size=5))
def test_reads_back(tmp_path_factory: pytest.TempPathFactory, types: list[str]) -> None:
    """Of every element type."""
    arrays = {f"w{place}": np.arange(6).reshape(2, 3).astype(of) for place, of in enumerate(types)}
    path = written(tmp_path_factory.mktemp("s") / "m.safetensors", arrays)
    assert matches(path, path.read_bytes()[:64])
    found = read_safetensors(path).tensors
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].read(), array)
        assert found[name].dtype == array.dtype.name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"a": 1}, "does not describe 'a'"),
        ({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, "does not describe 'a'"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 12]}}, "does not fill bytes 0 to 12"),
        ({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, "does not describe 'a'"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, "begins at byte 4"),
        ({"b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, "begins at byte 0"),
        ({"b": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [8, 8 + (4 << 40)]}}, "tensors need"),
        ({"c": {"dtype": "F32", "shape": [0], "data_offsets": [16, 16]}}, ""),
    ],
)
def test_headers_that_contradict_themselves(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """Holes, overlaps, sizes that differ: refused; an empty tensor is none of these."""
    arrays = {"a": np.ones(2, "f4"), "b": np.ones(2, "f4")}
    path = written(tmp_path / "m.safetensors", arrays, **change)
    if not says:
        assert read_safetensors(path).tensors["c"].read().size == 0
        return
    with pytest.raises(ReadError, match=rf"m\.safetensors.*{says}"):
        read_safetensors(path)


def test_bytes_that_belong_to_none(tmp_path: Path) -> None:
    """Behind the last tensor."""
    path = written(tmp_path / "m.safetensors", {"a": np.ones(2, "f4")})
    path.write_bytes(path.read_bytes() + b"hidden")
    with pytest.raises(Malformed, match="6 bytes behind"):
        read_safetensors(path)


def test_keys_that_stand_twice(tmp_path: Path) -> None:
    """A reader that takes the first and one that takes the last would differ."""
    text = b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(Malformed, match="a key twice"):
        read_safetensors(tmp_path / "m.safetensors")


def test_cut_anywhere(tmp_path: Path) -> None:
    """A named error."""
    whole = written(tmp_path / "m.safetensors", batch_norm("bn")).read_bytes()
    for length in range(9, len(whole), 13):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises((Truncated, Malformed), match=r"cut\.safetensors"):
            read_safetensors(tmp_path / "cut.safetensors")


def test_a_length_that_lies(tmp_path: Path) -> None:
    """No memory is taken for a header above the format's limit."""
    (tmp_path / "m.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(TooLarge, match="header"):
        read_safetensors(tmp_path / "m.safetensors")


def test_shards(tmp_path: Path) -> None:
    """Of a map, each tensor from the file that it names."""
    arrays = batch_norm("bn")
    names = list(arrays)
    written(tmp_path / "one.safetensors", {name: arrays[name] for name in names[:2]})
    written(tmp_path / "two.safetensors", {name: arrays[name] for name in names[2:]})
    where = {name: "one.safetensors" if name in names[:2] else "two.safetensors" for name in names}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert matches(path, path.read_bytes()[:64])
    found = read_safetensors(path).tensors
    assert {name: tensor.read().tolist() for name, tensor in found.items()} == {
        n: a.tolist() for n, a in arrays.items()
    }
