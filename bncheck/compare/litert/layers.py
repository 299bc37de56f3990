"""Which operator of a float TFLite file has which batch norm folded into it: by the numbers, not by names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bncheck.compare.litert.net import Net
from bncheck.facts.layers import Layer, PerChannel
from bncheck.numerics.fold import folded, gamma_and_beta
from bncheck.recognise.lite.values import real
from bncheck.sources.raw import RawLiteOperator

CLOSE = 1e-3
"""Largest difference, over the largest value, up to which two vectors of float32 arithmetic are the same."""
_LEFTOVERS = frozenset({"MUL", "ADD", "SUB"})


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldedInto:
    """Where the layers are."""

    operators: Mapping[int, str]
    """Operator -> layer folded into it, or of which it is the arithmetic that was not folded."""
    missing: Mapping[str, str]
    """Layer that was not found -> why."""


def folded_layers(wiring: Net, layers: Sequence[Layer]) -> FoldedInto:
    """Finds each layer by its addend `beta - mean * scale` and its scale `gamma / sqrt(variance + epsilon)`.

    The addend is the folded operator's bias, and the scale times the unfolded kernel's largest value that of the
    folded kernel, channel by channel; arithmetic that was left has them as constants of its MUL and ADD. Layers that
    are alike are told by names in the file, then by their forward order.
    """
    sights = [sight for operator in wiring.graph.operators if (sight := _sight(wiring, operator)) is not None]
    found: dict[int, str] = {}
    missing: dict[str, str] = {}
    for layer in layers:
        if layer.mean.values is None or layer.variance.values is None:
            missing[layer.name] = "its statistics are unknown"
            continue
        expected = _expected(layer)
        free = [s for s in sights if s.operator.index not in found and s.channels == expected.addend.size]
        ranked = [(rank, s) for s in free if (rank := _rank(s, expected)) is not None]
        if not ranked:
            missing[layer.name] = _why_missing(expected.addend.size, free, sights, found)
            continue
        _, best = min(ranked, key=lambda pair: (pair[0], layer.name not in pair[1].name, pair[1].operator.index))
        found[best.operator.index] = layer.name
        before = _multiplier_before(sights, best, expected)
        if before is not None:
            found.setdefault(before, layer.name)
    return FoldedInto(operators=found, missing=missing)


def _why_missing(channels: int, free: Sequence[_Sight], sights: Sequence[_Sight], found: Mapping[int, str]) -> str:
    unclaimed = (s for s in sights if s.operator.kind == "FULLY_CONNECTED" and s.operator.index not in found)
    if any(s.fan_in % channels == 0 for s in unclaimed):
        return "the converter takes a layer that it cannot fold backwards into the dense layer behind it"
    if free:
        return "no operator of the float file has its folded kernel or bias"
    return f"the float file has no operator of {channels} channels left for it"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Expected:
    """What folding a layer gives."""

    scale: PerChannel
    addend: PerChannel
    largest: PerChannel | None
    """max |folded kernel| per channel; None where the kernel is not known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sight:
    """What one operator shows."""

    operator: RawLiteOperator
    name: str
    channels: int
    fan_in: int = 0
    bias: PerChannel | None = None
    largest: PerChannel | None = None
    multiplier: PerChannel | None = None
    addend: PerChannel | None = None


def _expected(layer: Layer) -> _Expected:
    mean, variance = layer.mean.values, layer.variance.values
    assert mean is not None
    assert variance is not None
    gamma, beta = gamma_and_beta(layer.gamma.values, layer.beta.values, mean)
    scale, addend = folded(gamma, beta, mean, variance, layer.epsilon or 0.0)
    known = None if layer.linear is None else layer.linear.channel_max
    with np.errstate(all="ignore"):
        largest = None if known is None or known.size != mean.size else np.asarray(known * np.abs(scale))
    return _Expected(scale=scale, addend=addend, largest=largest)


def _sight(wiring: Net, operator: RawLiteOperator) -> _Sight | None:
    name = wiring.tensor(operator.outputs[0]).name if operator.outputs else ""
    kernel = wiring.kernel(operator)
    if kernel is not None:
        bias = wiring.bias(operator)
        return _Sight(
            operator=operator,
            name=name,
            channels=len(kernel),
            fan_in=kernel.shape[1],
            bias=np.zeros(len(kernel)) if bias is None else bias,
            largest=np.max(np.abs(kernel), axis=1, initial=0.0),
        )
    if operator.kind not in _LEFTOVERS:
        return None
    constant = next((found for n in operator.inputs if (found := wiring.source(n)) is not None), None)
    numbers = None if constant is None else real(constant)
    if numbers is None:
        return None
    values = numbers.reshape(-1)
    if operator.kind == "MUL":
        return _Sight(operator=operator, name=name, channels=values.size, multiplier=values)
    return _Sight(
        operator=operator, name=name, channels=values.size, addend=-values if operator.kind == "SUB" else values
    )


def _rank(sight: _Sight, expected: _Expected) -> int | None:
    """0 certain, then ever less; None: not this layer."""
    if sight.addend is not None:
        return 0 if _close(sight.addend, expected.addend) and np.any(expected.addend) else None
    if sight.multiplier is not None:
        return 3 if _close(sight.multiplier, expected.scale) else None
    assert sight.bias is not None
    assert sight.largest is not None
    same_bias = _close(sight.bias, expected.addend)
    if expected.largest is None:
        return 1 if same_bias else None
    same_kernel = _close(sight.largest, expected.largest)
    if same_bias and same_kernel:
        return 0
    # A convolution's own bias moves the folded one; a bias of zeros alone is no evidence.
    return 1 if same_kernel else 2 if same_bias and np.any(expected.addend) else None


def _close(found: PerChannel, expected: PerChannel) -> bool:
    with np.errstate(all="ignore"):
        limit = CLOSE * float(np.max(np.abs(expected), initial=0.0)) + 1e-12
        return bool(np.all(np.abs(found - expected) <= limit))


def _multiplier_before(sights: Sequence[_Sight], addition: _Sight, expected: _Expected) -> int | None:
    """The MUL whose output an ADD of the same layer reads."""
    if addition.addend is None:
        return None
    for sight in sights:
        if (
            sight.multiplier is not None
            and sight.operator.outputs[0] in addition.operator.inputs
            and _close(sight.multiplier, expected.scale)
        ):
            return sight.operator.index
    return None
