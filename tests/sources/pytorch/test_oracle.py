"""PyTorch's files against PyTorch's own reader: every tensor, of any type, stride and container."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.sources import open_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.torch

TYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64")
FEW, MANY = 40, 2000


def drawn(draw: random.Random) -> dict[str, Any]:
    """A state dict of views: transposed, stepped, shared, expanded, empty, scalar."""
    base = torch.arange(draw.randrange(24, 200)).to(getattr(torch, draw.choice(TYPES)))
    state: dict[str, Any] = {}
    for number in range(draw.randrange(1, 8)):
        if draw.random() < 0.5:
            base = torch.arange(draw.randrange(24, 200)).to(getattr(torch, draw.choice(TYPES)))
        view = base[draw.randrange(4) :][: draw.choice((6, 12, 18))]
        kind = draw.randrange(6)
        if kind == 1:
            view = view.reshape(-1, 3).t()
        elif kind == 2:
            view = view[:: draw.randrange(1, 4)]
        elif kind == 3:
            view = view[:3].expand(4, 3)
        elif kind == 4:
            view = view[:0]
        elif kind == 5:
            view = torch.nn.Parameter(view[0].clone(), requires_grad=False)
        state[f"layer{number}.weight"] = view
    return state


def differing(path: Path, draw: random.Random) -> list[str]:
    """Names of the tensors that are not what PyTorch reads."""
    state = drawn(draw)
    saved = {"state_dict": state} if draw.random() < 0.5 else state
    torch.save(saved, path, _use_new_zipfile_serialization=draw.random() < 0.6)
    wanted = torch.load(path, weights_only=True)
    before = "state_dict/" if "state_dict" in wanted else ""
    wanted = wanted.get("state_dict", wanted)
    found = {name.removeprefix(before): tensor for name, tensor in open_model(path).tensors.items()}
    assert sorted(found) == sorted(wanted)
    return [name for name, tensor in wanted.items() if not _same(tensor, found[name])]


def _same(wanted: Any, found: Any) -> bool:
    wide = wanted.detach().to(torch.float32) if wanted.dtype is torch.bfloat16 else wanted.detach()
    values = found.read()
    return (
        str(wanted.dtype) == f"torch.{found.dtype}"
        and bool(np.array_equal(values, wide.numpy()))
        and (values.shape == tuple(wanted.shape))
    )


@pytest.mark.parametrize("part", range(4))
def test_equal_to_torch_load(tmp_path: Path, part: int) -> None:
    """Some state dicts."""
    draw = random.Random(part)  # noqa: S311 - reproducible, not secret
    assert [bad for _ in range(FEW // 4) for bad in differing(tmp_path / "m.pt", draw)] == []


@pytest.mark.slow
def test_many_equal_to_torch_load(tmp_path: Path) -> None:
    """Two thousand of them."""
    draw = random.Random("many")  # noqa: S311 - reproducible, not secret
    assert [bad for _ in range(MANY) for bad in differing(tmp_path / "m.pt", draw)] == []
