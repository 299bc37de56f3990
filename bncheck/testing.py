"""Builders of facts in memory, for the examples of rules, for tests, and for authors of new rules."""

from __future__ import annotations

from typing import Any

import numpy as np

from bncheck.model import Facts, Layer, Origin, Presence, Role, RunFacts, Vector

Numbers = float | list[float] | np.ndarray[Any, Any]


def vector(role: Role, values: Numbers | None, *, channels: int = 4, name: str = "", **facts_of_it: Any) -> Vector:
    """A PRESENT vector of these values (a number fills all channels); None: ABSENT by design."""
    if values is None:
        return Vector(role=role, presence=Presence.ABSENT, name=name, **facts_of_it)
    array = np.full(channels, values) if np.isscalar(values) else np.asarray(values, np.float64)
    array = array.astype(np.float64)
    array.setflags(write=False)
    constant = float(array[0]) if bool(np.all(array == array[0])) else None
    known: dict[str, Any] = {
        "presence": Presence.PRESENT,
        "shape": array.shape,
        "dtype": "float32",
        "values": array,
        "constant_checked": True,
        "constant": constant,
    }
    return Vector(role=role, name=name, **(known | facts_of_it))


def batch_norm(
    name: str = "bn",
    *,
    mean: Numbers | None = 0.5,
    variance: Numbers | None = 2.0,
    gamma: Numbers | None = 0.9,
    beta: Numbers | None = 0.1,
    channels: int = 4,
    **facts_of_it: Any,
) -> Layer:
    """A healthy layer of 4 channels unless told otherwise; further keywords are fields of `Layer`."""
    known: dict[str, Any] = {"origin": Origin.GRAPH, "epsilon": 1e-3, "channels": channels}
    return Layer(
        name=name,
        mean=vector(Role.MEAN, mean, channels=channels, name=f"{name}/moving_mean"),
        variance=vector(Role.VARIANCE, variance, channels=channels, name=f"{name}/moving_variance"),
        gamma=vector(Role.GAMMA, gamma, channels=channels, name=f"{name}/gamma"),
        beta=vector(Role.BETA, beta, channels=channels, name=f"{name}/beta"),
        **(known | facts_of_it),
    )


def facts(*layers: Layer, **facts_of_it: Any) -> Facts:
    """A model of these layers, its values at hand; further keywords are fields of `Facts`."""
    known: dict[str, Any] = {
        "path": "model.ckpt",
        "format": "TF1 checkpoint",
        "run": RunFacts(values=True, global_step=1000, updates=1000, updates_from="global_step"),
    }
    return Facts(layers=layers, **(known | facts_of_it))
