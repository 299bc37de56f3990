"""Reports as bytes, for processes that judge for another: rules by their codes, of a run the values of each layer."""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.arrays import PerChannel
from bncheck.facts.findings import Report
from bncheck.facts.layers import Layer, Linear, Vector
from bncheck.facts.predicted import Predicted
from bncheck.facts.record import replace
from bncheck.numerics.side_by_side import SideBySide
from bncheck.rules import RULES
from bncheck.rules.rule import Rule


class _Differing(NamedTuple):
    """What differs between the layers of two checkpoints of one graph and layout."""

    first: int
    """Place of the report whose layers these are but for their values."""
    numbers: NDArray[Any]
    """Of all vectors, kernels and predictions that have any, one behind the other; of float32 or float64."""
    constants: tuple[float | None, ...]
    """Of all vectors."""


def packed(reports: Sequence[Report], like: Sequence[object]) -> bytes:
    """As `unpacked` takes them, on a machine with the same bncheck; `like` are the reports' `Facts.like`."""
    sent: list[tuple[Report, _Differing | None]] = []
    first: dict[object, int] = {}
    for place, (report, token) in enumerate(zip(reports, like, strict=True)):
        base = place if token is None else first.setdefault(token, place)
        values = None if base == place else _values(report.layers, base, reports[base].layers)
        sent.append((report if values is None else replace(report, layers=()), values))
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=5)
    pickler.dispatch_table = {**copyreg.dispatch_table, Rule: _by_code}
    pickler.dump(sent)
    return stream.getvalue()


def unpacked(sent: bytes) -> list[Report]:
    """Only for bytes of a process that this one started, or of a cluster that the user named."""
    parts: list[tuple[Report, _Differing | None]] = pickle.loads(sent)  # noqa: S301 - see above
    layouts: dict[int, SideBySide] = {}

    def whole(report: Report, values: _Differing | None) -> Report:
        if values is None:
            return report
        known = parts[values.first][0].layers
        if values.first not in layouts:
            layouts[values.first] = SideBySide([one.size for of in known for one in _arrays(of) if one is not None])
        return replace(report, layers=tuple(_filled(known, values, layouts[values.first])))

    return [whole(*part) for part in parts]


def _values(layers: Sequence[Layer], first: int, known: Sequence[Layer]) -> _Differing | None:
    """None where more differs than the values."""
    mine, theirs = (list(chain.from_iterable(map(_vectors, of))) for of in (layers, known))
    if [(one.initial, one.constant_checked) for one in mine] != [(one.initial, one.constant_checked) for one in theirs]:
        return None
    arrays = list(chain.from_iterable(map(_arrays, layers)))
    if [_size(one) for one in arrays] != [_size(one) for of in known for one in _arrays(of)]:
        return None
    numbers = [one.reshape(-1) for one in arrays if one is not None]
    every = _narrow(np.concatenate(numbers)) if numbers else np.empty(0)
    return _Differing(first, every, tuple([one.constant for one in mine]))


def _narrow(numbers: PerChannel) -> NDArray[Any]:
    """In half the bytes where nothing is lost, bit for bit: most files hold them so."""
    with np.errstate(all="ignore"):
        narrow = numbers.astype(np.float32)
        same = narrow.astype(np.float64).view(np.int64) == numbers.view(np.int64)
    return narrow if same.all() else numbers


def _vectors(layer: Layer) -> tuple[Vector, ...]:
    return (layer.mean, layer.variance, layer.gamma, layer.beta, *layer.shadow_statistics.values())


def _arrays(layer: Layer) -> Iterator[PerChannel | None]:
    for vector in _vectors(layer):
        yield vector.values
    for site in layer.sites:
        if site.linear is not None:
            yield from (site.linear.channel_max, site.linear.channel_rms, site.linear.channel_mean)
    if layer.predicted is None:
        yield from (None, None)
    else:
        yield from (layer.predicted.mean, layer.predicted.variance)


def _size(array: PerChannel | None) -> int | None:
    return None if array is None else array.size


def _filled(known: Sequence[Layer], values: _Differing, side: SideBySide) -> Iterator[Layer]:
    numbers = values.numbers.astype(np.float64, copy=False)
    numbers.setflags(write=False)
    parts = side.parts(numbers)
    bounded = all(part.size for part in parts)
    lowest, highest = (of(numbers).tolist() if bounded else parts for of in (side.smallest, side.largest))
    every, constants = iter(zip(parts, lowest, highest, strict=True)), iter(values.constants)

    def next_of(array: PerChannel | None) -> PerChannel | None:
        return None if array is None else next(every)[0].reshape(array.shape)

    def vector(of: Vector) -> Vector:
        if of.values is None:
            return replace(of, constant=next(constants))
        part, low, high = next(every)
        found = replace(of, values=part.reshape(of.values.shape), constant=next(constants))
        if bounded:
            found.__dict__["bounds"] = (low, high)  # as the cached property would find them, one by one
        return found

    def linear(of: Linear | None) -> Linear | None:
        if of is None or (of.channel_max is None and of.channel_rms is None and of.channel_mean is None):
            return of
        largest, rms, mean = (next_of(one) for one in (of.channel_max, of.channel_rms, of.channel_mean))
        return replace(of, channel_max=largest, channel_rms=rms, channel_mean=mean)

    def predicted(of: Predicted | None) -> Predicted | None:
        if of is None:
            return None
        return replace(
            of, mean=next(every)[0].reshape(of.mean.shape), variance=next(every)[0].reshape(of.variance.shape)
        )

    for layer in known:
        mean, variance, gamma, beta = map(vector, (layer.mean, layer.variance, layer.gamma, layer.beta))
        shadows = {role: vector(one) for role, one in layer.shadow_statistics.items()}
        linears = [(site, linear(site.linear)) for site in layer.sites]
        yield replace(
            layer,
            mean=mean,
            variance=variance,
            gamma=gamma,
            beta=beta,
            shadow_statistics=shadows,
            sites=tuple([site if now is site.linear else replace(site, linear=now) for site, now in linears]),
            linear=next((now for site, now in linears if site.linear is layer.linear), layer.linear),
            predicted=predicted(layer.predicted),
        )


def _by_code(rule: Rule) -> tuple[Any, ...]:
    """A rule's function is known to its registry alone."""
    return _rule, (rule.code,)


def _rule(code: str) -> Rule:
    return RULES.rule(code)
