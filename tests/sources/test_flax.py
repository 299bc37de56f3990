"""Flax's variables, as `flax.serialization.to_bytes` packs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import bncheck
from bncheck.facts.errors import Malformed, ReadError, Unsupported
from bncheck.facts.formats import FileKind
from bncheck.sources import open_model

FIXTURES = Path(__file__).parents[2] / "fixtures" / "flax"


def array(values: Any, dtype: str = "float32", *, shape: Any = None, code: int = 1) -> msgpack.ExtType:
    """An array as Flax packs it; bfloat16 as the upper halves of float32."""
    held = np.asarray(values)
    wide = held.astype("<f4").view("<u4") >> 16
    content = wide.astype("<u2").tobytes() if dtype == "bfloat16" else held.astype(dtype).tobytes()
    return msgpack.ExtType(code, msgpack.packb((held.shape if shape is None else shape, dtype, content)))


def written(path: Path, tree: Any) -> Path:
    """The file."""
    path.write_bytes(msgpack.packb(tree))
    return path


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int32", "uint8", "bool"])
def test_arrays_of_every_type(tmp_path: Path, dtype: str) -> None:
    """Shape and values, by their path; numbers are scalars."""
    values = np.arange(6).reshape(2, 3) % 2
    model = open_model(written(tmp_path / "m", {"params": {"a": array(values, dtype)}, "step": 7}))
    assert model.format.kind is FileKind.FLAX
    found = model.tensors["params/a"]
    assert (found.dtype, found.shape) == (dtype, (2, 3))
    np.testing.assert_array_equal(found.read(), values)
    assert model.tensors["step"].read() == 7


def test_an_array_in_chunks(tmp_path: Path) -> None:
    """As Flax packs what is above a gigabyte."""
    parts = {"0": array([0, 1, 2, 3]), "1": array([4, 5])}
    chunked = {"__msgpack_chunked_array__": True, "shape": {"0": 3, "1": 2}, "chunks": parts}
    found = open_model(written(tmp_path / "m", {"a": chunked, "step": array(3, "int32", code=3)}))
    np.testing.assert_array_equal(found.tensors["a"].read(), [[0, 1], [2, 3], [4, 5]])
    assert found.tensors["step"].shape == ()


@pytest.mark.parametrize(
    "tree",
    [
        {"a": array([1, 2], shape=(3,))},
        {"a": array([1, 2], shape=(-2,))},
        {"a": array([1, 2], shape=("x",))},
        {"a": msgpack.ExtType(1, b"\x93")},
        {"a": msgpack.ExtType(1, msgpack.packb(7))},
        {"a": msgpack.ExtType(9, b"")},
        {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"1": array([1])}}},
        {"a": 7},
    ],
)
def test_what_is_no_tree_of_arrays(tmp_path: Path, tree: Any) -> None:
    """A named error that tells the file."""
    with pytest.raises((Malformed, Unsupported), match=r"m: "):
        open_model(written(tmp_path / "m", tree))


def test_nested_without_end(tmp_path: Path) -> None:
    """Neither a crash nor a traceback."""
    (tmp_path / "m").write_bytes(b"\x81\xa1a" * 100_000 + b"\x01")
    with pytest.raises(Malformed):
        open_model(tmp_path / "m")


def test_cut_anywhere(tmp_path: Path) -> None:
    """A named error at every length."""
    content = (FIXTURES / "params_alone" / "model.msgpack").read_bytes()
    for length in range(1, len(content), 97):
        (tmp_path / "m").write_bytes(content[:length])
        with pytest.raises(ReadError):
            open_model(tmp_path / "m")


def test_orbax_is_named(tmp_path: Path) -> None:
    """With what to do instead."""
    (tmp_path / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(Unsupported, match="to_bytes"):
        open_model(tmp_path)


def test_a_decay_that_does_not_fit(tmp_path: Path) -> None:
    """Flax's default is only assumed: where the values rule it out, the share counts as not judged."""
    layer = {"scale": array(np.linspace(1.01, 1.2, 64)), "bias": array(np.linspace(-1, 1, 64))}
    variance = np.linspace(0.4, 4.0, 64)
    statistics = {"mean": array(np.linspace(-1, 1, 64)), "var": array(variance)}
    tree = {"params": {"BatchNorm_0": layer}, "batch_stats": {"BatchNorm_0": statistics}, "step": 3}
    report = bncheck.inspect_model(written(tmp_path / "m", tree))
    assert [finding.code for finding in report.findings if finding.severity.value != "info"] == []
    assert "init share" in [one.what for one in report.not_checked]
    report = bncheck.inspect_model(tmp_path / "m", decay=0.6)
    assert "init share" not in [one.what for one in report.not_checked]
