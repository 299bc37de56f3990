"""The fold proof: which statistics and epsilon a TFLite file has folded in, layer by layer, from the files alone.

An operator is found by its kernel, which a fold only multiplies by one number a channel (fold_fit.py), not by its name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bncheck.errors import UsageError
from bncheck.measured import FoldedLayer, FoldProof
from bncheck.model import Facts
from bncheck.recognise.fold_explain import Explanation, Match, explain, matches
from bncheck.recognise.fold_lite import Place, places
from bncheck.recognise.fold_source import Source, Unit, source_of
from bncheck.sources.raw import RawModel


def prove(
    source: RawModel, lite: RawModel, *, facts: Facts | None = None, reference: RawModel | None = None
) -> FoldProof:
    """Holds every batch norm layer of `source` against the operators of the TFLite file `lite`.

    `facts` are those of `source` where they are at hand. `reference` is another checkpoint of the same model, whose
    weights and statistics are tried where those of `source` do not fit. Raises ReadError where a file is damaged,
    UsageError where `lite` is no TFLite file.
    """
    if lite.lite is None:
        raise UsageError(f"{lite.path}: {lite.format}, not a TFLite file")
    model = source_of(source, facts, reference)
    done = _Proof(source=model, places=places(lite.lite))
    _by_kernel(done)
    return FoldProof(
        path=str(lite.path),
        source=str(source.path),
        layers=tuple(_told(done, unit) for unit in model.units),
    )


@dataclass(kw_only=True, eq=False)
class _Proof:
    source: Source
    places: tuple[Place, ...]
    found: dict[int, list[Explanation]] = field(default_factory=lambda: defaultdict(list))
    """Unit -> operators that hold it and what was folded."""
    unexplained: dict[int, list[Match]] = field(default_factory=lambda: defaultdict(list))
    """Unit -> operators that hold its kernel with something else folded in."""
    taken: set[int] = field(default_factory=set)
    """Operators that hold a layer."""


def _by_kernel(done: _Proof) -> None:
    """Finds operators by the layers' kernels; of operators with one kernel, each goes to the layer it fits best."""
    by_size: dict[tuple[int, int], list[Place]] = defaultdict(list)
    for place in done.places:
        by_size[place.channels, place.channels * place.fan_in].append(place)
    wanted: dict[tuple[int, int], list[Unit]] = defaultdict(list)
    for unit in done.source.units:
        for kernel in {id(w.kernel): w.kernel for w in unit.weights if w.kernel is not None}.values():
            size = int(np.prod(kernel.tensor.shape, dtype=np.int64))
            if unit not in wanted[unit.channels, size]:
                wanted[unit.channels, size].append(unit)
    for key, units in wanted.items():
        _assign(done, units, by_size.get(key, ()))


def _assign(done: _Proof, units: Sequence[Unit], candidates: Sequence[Place]) -> None:
    pairs: list[tuple[int, int, int, Explanation]] = []
    for place in candidates:
        helds = place.read()
        for unit in units:
            best: Explanation | None = None
            holding: list[Match] = []
            for match in matches(unit, place, helds):
                holding.append(match)
                found = explain(match)
                if found is not None and (best is None or found.rank < best.rank):
                    best = found
            if best is not None:
                pairs.append((best.rank, unit.number, place.index, best))
            elif holding and holding[0].bounds.telling:
                done.unexplained[unit.number].append(holding[0])
    for _, number, index, best in sorted(pairs, key=lambda pair: pair[:3]):
        if index not in done.taken and (number not in done.found or best.rank == 0):
            done.taken.add(index)
            done.found[number].append(best)


def _told(done: _Proof, unit: Unit) -> FoldedLayer:
    found = done.found.get(unit.number)
    name = unit.layer.name
    if found:
        best = found[0]
        return FoldedLayer(
            layer=name,
            operator=best.match.place.name,
            folded=best.folded,
            error=best.fit.error,
            tolerance=best.fit.tolerance,
            why=best.why,
        )
    return FoldedLayer(layer=name, operator="", folded="unmatched", error=np.nan, tolerance=0, why="todo")
