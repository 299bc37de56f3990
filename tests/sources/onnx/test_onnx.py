"""ONNX models as bytes: weights in every field, beside the model, and what must not be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_writer import model, statistics, written

from bncheck.facts.errors import Malformed, ReadError
from bncheck.sources.onnx.messages import TensorProto
from bncheck.sources.onnx.onnx import matches, raw_tensor, read_onnx

PLACE = Path("m.onnx")


def test_reads_back(tmp_path: Path) -> None:
    """Initialisers by their names."""
    vectors = statistics()
    path = written(tmp_path / "m.onnx", model({"a": vectors}))
    assert matches(path, path.read_bytes()[:64])
    found = read_onnx(path).tensors
    np.testing.assert_array_equal(found["a.bn.running_var"].read(), vectors["running_var"].astype("f4"))


@pytest.mark.parametrize(
    ("kind", "field", "stored", "values"),
    [
        (1, "float_data", [1.5, 2], [1.5, 2]),
        (11, "double_data", [1.5, 2], [1.5, 2]),
        (7, "int64_data", [1, -2], [1, -2]),
        (6, "int32_data", [1, -2], [1, -2]),
        (3, "int32_data", [1, -2], [1, -2]),
        (9, "int32_data", [1, 0], [True, False]),
        (10, "int32_data", [0x3C00, 0xC000], [1, -2]),
        (16, "int32_data", [0x3F80, 0xC000], [1, -2]),
        (12, "uint64_data", [1, 4000000000], [1, 4000000000]),
    ],
)
def test_elements_in_fields(kind: int, field: str, stored: list[Any], values: list[Any]) -> None:
    """Without raw bytes, each type has its field."""
    tensor = TensorProto(name="w", dims=[2], data_type=kind, **{field: stored})
    assert raw_tensor(PLACE, tensor, {}).read().tolist() == values


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(name="w", dims=[3], data_type=1, raw_data=b"\0" * 8),
        TensorProto(name="w", dims=[3], data_type=1, float_data=[1, 2]),
        TensorProto(name="w", dims=[-1], data_type=1),
        TensorProto(name="w", dims=[1 << 40, 1 << 40], data_type=1),
        TensorProto(name="w", dims=[1 << 50], data_type=1),
        TensorProto(name="w", dims=[2], data_type=17, raw_data=b"\0\0"),
    ],
)
def test_tensors_that_lie(tensor: Any) -> None:
    """A named error, and no memory taken."""
    with pytest.raises(ReadError, match=r"m\.onnx"):
        raw_tensor(PLACE, tensor, {}).read()


def external(**told: str) -> Any:
    """A tensor that lies beside the model."""
    tensor = TensorProto(name="w", dims=[2], data_type=1, data_location=1)
    for key, value in told.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_beside_the_model(tmp_path: Path) -> None:
    """At its offset."""
    (tmp_path / "weights.bin").write_bytes(b"1234" + np.array([3, 4], "<f4").tobytes())
    tensor = external(location="weights.bin", offset="4", length="8")
    assert raw_tensor(tmp_path / "m.onnx", tensor, {}).read().tolist() == [3, 4]


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"location": "../w"},
        {"location": "/etc/hostname"},
        {"location": "a/../../w"},
        {"location": "w\0"},
        {"location": "absent"},
        {"location": "weights.bin", "offset": "-1"},
        {"location": "weights.bin", "offset": "9" * 30},
        {"location": "weights.bin", "length": "4"},
        {"location": "weights.bin", "offset": "100"},
    ],
)
def test_elsewhere(tmp_path: Path, told: dict[str, str]) -> None:
    """Is refused, as is what is not there."""
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    with pytest.raises(ReadError):
        raw_tensor(tmp_path / "m.onnx", external(**told), {}).read()


def test_a_link_out_of_the_folder(tmp_path: Path) -> None:
    """Is refused."""
    (tmp_path / "secret").write_bytes(bytes(8))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w").symlink_to(tmp_path / "secret")
    with pytest.raises(ReadError, match="leads out"):
        raw_tensor(tmp_path / "model" / "m.onnx", external(location="w"), {}).read()


def test_damaged(tmp_path: Path) -> None:
    """Cut anywhere, a named error or a model of whole tensors."""
    whole = written(tmp_path / "m.onnx", model({"a": statistics()})).read_bytes()
    for length in range(4, len(whole), 23):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        with pytest.raises(Malformed, match=r"cut\.onnx"):
            read_onnx(tmp_path / "cut.onnx")
