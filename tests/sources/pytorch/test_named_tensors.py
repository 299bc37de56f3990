"""Where people keep their state dicts, and what their tensors are then called."""

from __future__ import annotations

from typing import Any

import pytest

from bncheck.sources.pytorch.named_tensors import held_by, plain_attributes
from bncheck.sources.pytorch.values import Built, Storage, Strided


def names_of(saved: Any) -> list[str]:
    """Of its tensors."""
    return list(held_by(saved).tensors)


def leaf() -> Strided:
    """Any tensor."""
    return Strided(Storage("0", "float32", 0, 4), 0, (4,), (1,), "float32")


def state(before: str = "") -> dict[str, Strided]:
    """A state dict of one layer."""
    return {f"{before}bn.running_mean": leaf(), f"{before}bn.weight": leaf(), f"{before}conv.weight": leaf()}


NORM = Built("bn", {"_buffers": {"running_mean": leaf()}, "_parameters": {"weight": leaf()}})
CONV = Built("conv", {"_parameters": {"weight": leaf(), "bias": None}})
NAMES = ["bn.running_mean", "bn.weight", "conv.weight"]


@pytest.mark.parametrize(
    "saved",
    [
        state(),
        {"state_dict": state()},
        {"epoch": 3, "model": state("module.")},
        {"a": {"b": [state("_orig_mod.module.")]}},
        state("model."),
        Built("net", {"_modules": {"bn": NORM, "conv": CONV}}),
    ],
)
def test_one_model_needs_no_place(saved: Any) -> None:
    """Its names are those of its modules."""
    assert sorted(names_of(saved)) == NAMES


def test_several_models_keep_their_places() -> None:
    """Of weights and their average."""
    found = names_of({"model": state(), "ema": state()})
    assert sorted(found) == sorted(f"{place}/{name}" for place in ("model", "ema") for name in NAMES)


def test_the_optimizer_keeps_its_names() -> None:
    """Which shorten nothing."""
    found = names_of({"state_dict": state(), "optimizer": {"state": {0: {"exp_avg": leaf()}}}})
    assert sorted(found) == sorted([*NAMES, "optimizer/state/0/exp_avg"])


def test_what_holds_itself_ends() -> None:
    """And what stands in many places is gone into once."""
    loop: dict[str, Any] = {"bn.running_mean": leaf()}
    loop["again"] = loop
    assert names_of(loop) == ["bn.running_mean"]
    doubling: Any = {"w": leaf()}
    for _ in range(60):
        doubling = [doubling, doubling]
    assert len(names_of(doubling)) == 1


def test_tied_weights_have_all_their_names() -> None:
    """A tensor is no container."""
    tied = leaf()
    assert names_of({"a.weight": tied, "b.weight": tied}) == ["a.weight", "b.weight"]


def test_modules_tell_their_settings() -> None:
    """Those with running statistics, by the path of their module; tensors and other objects are no settings."""
    norm = Built("bn", {"_buffers": {"running_mean": leaf()}, "momentum": None, "eps": 1e-3, "hooks": {}})
    net = Built("net", {"_modules": {"bn": norm, "conv": CONV}, "training": True})
    found = held_by({"model": net}).modules
    assert {name: plain_attributes(module) for name, module in found.items()} == {"bn": {"momentum": None, "eps": 1e-3}}
