"""Variables beside a layer that tell how it was trained: zero-debias, averaged weights, averaged statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from bncheck.facts.layers import Debias, Role, Site, Vector
from bncheck.recognise.stored_vectors import declared
from bncheck.sources.raw import RawTensor

SHADOW = "/ExponentialMovingAverage"
"""How tf.train.ExponentialMovingAverage ends the name of an average."""


class Named(Protocol):
    """Something that holds a checkpoint's tensors by key."""

    @property
    def names(self) -> Mapping[str, RawTensor]:
        """The checkpoint's tensors."""


def debias_of(keys: Mapping[str, RawTensor], mean: str, variance: str) -> Debias | None:
    """Which of the two statistics has a `biased` companion; tf.train doubles the scope: `bn/bn/moving_mean/biased`."""
    found = [any(candidate in keys for candidate in companions(name)) for name in (mean, variance)]
    return Debias(mean=found[0], variance=found[1]) if any(found) else None


def companions(name: str) -> list[str]:
    """Keys that the biased average of a zero-debiased variable may have."""
    scope, _, last = name.rpartition("/")
    return (
        [f"{name}/biased", f"{scope}/{name}/biased", f"{scope}/{scope.rpartition('/')[2]}/{last}/biased"]
        if name
        else []
    )


def averaged_keys(keys: Mapping[str, RawTensor], gamma: str, beta: str, sites: tuple[Site, ...]) -> dict[str, str]:
    """Role ("gamma", "beta") or "kernel" -> key of the exponential moving average of that weight."""
    kernel = next((s.linear.kernel for s in sites if s.linear is not None), "")
    named = {"gamma": gamma, "beta": beta, "kernel": kernel}
    return {role: name + SHADOW for role, name in named.items() if name and name + SHADOW in keys}


def shadow_vectors(stored: Named, mean: str, variance: str) -> dict[str, Vector]:
    """Role ("mean", "variance") -> the moving average of the statistic itself, `declared`, where there is one."""
    roles = {Role.MEAN: mean, Role.VARIANCE: variance}
    return {
        role.value: declared(role, stored.names[name + SHADOW])
        for role, name in roles.items()
        if name and name + SHADOW in stored.names
    }
