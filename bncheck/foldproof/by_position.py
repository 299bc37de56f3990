"""Which operator stands in the place of a layer whose kernel none holds: by shape and forward order, or by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from bncheck.foldproof.kernel_places import KernelPlace
from bncheck.foldproof.source_units import Unit

Order = tuple[int, int]
Size = tuple[int, int]
"""(channels, weights a channel)."""


def by_order(
    units: Sequence[Unit], placed: Mapping[int, Order], free: Sequence[KernelPlace], *, ordered: bool
) -> dict[int, KernelPlace]:
    """Unit number -> operator. `units` were not found, `placed` says where others are, `free` hold none of them.

    Between two layers that were found, as many operators of a shape as layers of that shape go to them in order.
    Without a forward order, and where the numbers differ, an operator is recognised by its name.
    """
    found: dict[int, KernelPlace] = {}
    groups: dict[tuple[tuple[Order, Order], Size], list[Unit]] = defaultdict(list)
    for unit in units:
        size = size_of(unit)
        if size is not None:
            groups[_window(unit, placed, ordered=ordered), size].append(unit)
    for ((after, before), size), members in groups.items():
        fitting = [p for p in free if (p.channels, p.fan_in) == size and after < p.order < before]
        if len(fitting) == len(members) and (ordered or len(members) == 1):
            found.update({unit.number: place for unit, place in zip(members, fitting, strict=True)})
            continue
        for unit in members:
            named = [place for place in fitting if is_named(place, unit)]
            if len(named) == 1:
                found[unit.number] = named[0]
    return found


def size_of(unit: Unit) -> Size | None:
    """(channels, weights a channel) of a layer's kernel; None where it is not known."""
    kernel = unit.weights[0].kernel if unit.weights else None
    if kernel is None or not unit.channels:
        return None
    return unit.channels, int(np.prod(kernel.tensor.shape, dtype=np.int64)) // unit.channels


def is_named(place: KernelPlace, unit: Unit) -> bool:
    """Whether the operator's name holds that of the layer or of the linear layer before it."""
    names = [unit.layer.name] + ([unit.linear.name] if unit.linear is not None else [])
    return any(f"/{name}/" in f"/{place.name}/" for name in names if name)


def exchanged(units: Sequence[Unit], placed: Mapping[int, KernelPlace]) -> dict[int, Unit]:
    """Unit number -> the layer with which it changed places: each stands where the other's name and turn are.

    Names alone may be given anew, and parallel branches in any order; both at once, and mutually, is no accident.
    """
    found: dict[int, Unit] = {}
    groups: dict[tuple[int, int], list[Unit]] = defaultdict(list)
    for unit in units:
        if unit.number in placed:
            groups[placed[unit.number].channels, placed[unit.number].fan_in].append(unit)
    for members in groups.values():
        strangers = [unit for unit in members if not is_named(placed[unit.number], unit)]
        for one in strangers:
            for other in strangers:
                here, there = placed[one.number], placed[other.number]
                turned = one.number < other.number and here.order > there.order
                if turned and is_named(here, other) and is_named(there, one):
                    found[one.number], found[other.number] = other, one
    return found


_FIRST, _LAST = (-1, -1), (1 << 30, 0)


def _window(unit: Unit, placed: Mapping[int, Order], *, ordered: bool) -> tuple[Order, Order]:
    """Orders of the operators between which a layer belongs."""
    if not ordered:
        return _FIRST, _LAST
    before = [number for number in placed if number < unit.number]
    behind = [number for number in placed if number > unit.number]
    first = placed[max(before)] if before else _FIRST
    last = placed[min(behind)] if behind else _LAST
    return (first, last) if first < last else (_FIRST, _LAST)
