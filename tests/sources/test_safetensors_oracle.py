"""safetensors files against the library of that name: every type, shape and order; what it refuses is refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from bncheck.facts.errors import ReadError
from bncheck.sources import open_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
library = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
pytestmark = pytest.mark.torch

TYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
FILES = 200


def test_equal_to_the_library(tmp_path: Path) -> None:
    """Names, types, shapes and values of drawn files."""
    draw = random.Random(0)  # noqa: S311 - reproducible, not secret
    path = tmp_path / "m.safetensors"
    for _ in range(FILES):
        shapes = [tuple(draw.randrange(4) for _ in range(draw.randrange(4))) for _ in range(draw.randrange(1, 9))]
        saved = {
            f"layer{n}.weight": (torch.randn(shape) * 50).to(getattr(torch, draw.choice(TYPES)))
            for n, shape in enumerate(shapes)
        }
        library.save_file(saved, path, metadata={"format": "pt"} if draw.random() < 0.5 else None)
        wanted, found = library.load_file(path), open_model(path).tensors
        assert sorted(found) == sorted(wanted)
        for name, tensor in wanted.items():
            wide = tensor.to(torch.float32) if tensor.dtype is torch.bfloat16 else tensor
            assert (f"torch.{found[name].dtype}", found[name].shape) == (str(tensor.dtype), tuple(tensor.shape))
            np.testing.assert_array_equal(found[name].read(), wide.numpy())


def test_refuses_what_the_library_refuses(tmp_path: Path) -> None:
    """Files with one byte of their header changed: an error where the library has one, else the same values."""
    draw = random.Random(1)  # noqa: S311 - as above
    path, whole = tmp_path / "m.safetensors", tmp_path / "whole.safetensors"
    library.save_file({"bn.running_mean": torch.arange(4.0), "bn.running_var": torch.ones(4)}, whole)
    content = whole.read_bytes()
    refused = 0
    for _ in range(FILES):
        changed = bytearray(content)
        changed[draw.randrange(8 + int.from_bytes(content[:8], "little"))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            wanted = library.load_file(path)
        except Exception:  # noqa: BLE001 - its own errors of many kinds
            refused += 1
            with pytest.raises(ReadError):
                {name: tensor.read() for name, tensor in open_model(path).tensors.items()}
            continue
        found = open_model(path).tensors
        assert sorted(found) == sorted(wanted)
        for name, tensor in wanted.items():
            np.testing.assert_array_equal(found[name].read(), tensor.numpy())
    assert FILES / 4 < refused < FILES
