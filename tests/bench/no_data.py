"""What files alone tell of wrong statistics: 300 corruptions of six nets, and what each costs on images.

python -m tests.bench.no_data [--only NET,...] [--cache DIR]

Six nets trained right (`_no_data_nets`). Statistics of one layer, four times another, and of all layers are made wrong
in twelve ways; `check` sees the files only, and the accuracy of eval mode on images that nothing else saw says what it
cost. A corruption is named if a warning or an error names a layer that has it, and right if the first layer named is
the first that has it. Nets and costs are kept in the cache, so that a run that was ended goes on where it was. Exits 1
where fewer than 95 % of those that cost more than 5 points are named, fewer than 90 % of these have the first layer
right, or a clean net is warned of.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
from numpy.typing import NDArray

from bncheck.commands.target import Target, read_target
from bncheck.compare.prepared import prepare
from bncheck.facts.findings import Report, Severity
from bncheck.facts.layers import Layer
from bncheck.recognise import recognise
from bncheck.repair.trial_twins import Statistics, TrialTwins, open_trial
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel, RawTensor
from tests.bench._no_data_nets import NETS, TrainedNet, trained

COSTS = 0.05
"""Accuracy lost from which a corruption ought to be named."""
SINGLES = 4
NAMED, FIRST = 0.95, 0.9
BATCH = 60

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Moving mean and variance."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One corruption."""

    net: str
    kind: str
    layers: str
    """The layer, or "all"."""
    lost: float
    codes: tuple[str, ...]
    named: bool
    first: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Around:
    """What a corruption may take from."""

    pairs: Mapping[str, Pair]
    """Layer -> its own statistics."""
    earlier: Mapping[str, Pair]
    random: np.random.Generator


def _other(layer: str, around: Around) -> Pair:
    """Statistics of another layer of as many channels; its own, rolled, where there is none."""
    own = around.pairs[layer]
    fitting = [name for name, (mean, _) in around.pairs.items() if name != layer and mean.shape == own[0].shape]
    return around.pairs[fitting[around.random.integers(len(fitting))]] if fitting else _permuted(layer, around)


def _permuted(layer: str, around: Around) -> Pair:
    mean, variance = around.pairs[layer]
    order = around.random.permutation(len(mean))
    return mean[order], variance[order]


def _of_own(change: Callable[[NDArray[np.float64], NDArray[np.float64]], Pair], layer: str, around: Around) -> Pair:
    return change(*around.pairs[layer])


KINDS: Mapping[str, Callable[[str, Around], Pair]] = {
    "never moved": partial(_of_own, lambda m, v: (0 * m, 1 + 0 * v)),
    "mean never moved": partial(_of_own, lambda m, v: (0 * m, v)),
    "channels in another order": _permuted,
    "another layer's": _other,
    "stayed behind (40 % of the steps)": lambda layer, around: around.earlier[layer],
    "standard deviation for variance": partial(_of_own, lambda m, v: (m, np.sqrt(v))),
    "variances x 10": partial(_of_own, lambda m, v: (m, 10 * v)),
    "variances / 10": partial(_of_own, lambda m, v: (m, v / 10)),
    "variances in another order": lambda layer, around: (around.pairs[layer][0], _permuted(layer, around)[1]),
    "20 % initial value": partial(_of_own, lambda m, v: (0.8 * m, 0.8 * v + 0.2)),
    "20 % initial value in variances": partial(_of_own, lambda m, v: (m, 0.8 * v + 0.2)),
    "mean and variance exchanged": partial(_of_own, lambda m, v: (v, m)),
}


def main() -> int:
    """Prints the table and what falls short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(NETS))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "bncheck-no-data")
    asked = parser.parse_args()
    rows: list[Row] = []
    alarms: dict[str, tuple[str, ...]] = {}
    for name in asked.only.split(","):
        alarms[name], found = _of_net(trained(name, asked.cache), asked.cache / name)
        rows += found
    return _summary(rows, alarms)


def _of_net(net: TrainedNet, folder: Path) -> tuple[tuple[str, ...], list[Row]]:
    """(codes of warnings and errors on the clean net, corruptions)."""
    options = Options()
    target = read_target(net.path, options)
    clean = _loud(target.judged())
    pairs = {layer.name: _pair(layer) for layer in target.facts.layers}
    earlier = {layer.name: _pair(layer, net.earlier) for layer in target.facts.layers}
    costs = _Costs(net, folder / "lost.json")
    rows = []
    for number, (kind, change) in enumerate(KINDS.items()):
        random = np.random.default_rng(number)
        around = Around(pairs=pairs, earlier=earlier, random=random)
        chosen = [[str(one)] for one in random.choice(list(pairs), SINGLES, replace=False)]
        for layers in (*chosen, list(pairs)):
            new = {layer: change(layer, around) for layer in layers}
            told = "all" if len(layers) > 1 else layers[0]
            report = _judged(target, new)
            named = [layer for finding in report.findings if _is_loud(finding.severity) for layer in finding.layers]
            wrong = [layer for layer in layers if not _same(new[layer], pairs[layer])]
            row = Row(
                net=net.name,
                kind=kind,
                layers=told,
                lost=costs(f"{kind}|{told}", new),
                codes=_loud(report),
                named=bool(set(named) & set(wrong)),
                first=_first(list(pairs), named) == _first(list(pairs), wrong),
            )
            print(
                f"{net.name:34} {kind:34} {told[-40:]:40} {row.lost:6.1%} {row.named!s:5} {row.first!s:5} {row.codes}"
            )
            rows.append(row)
    (folder / "rows.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return clean, rows


def _same(one: Pair, other: Pair) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _first(order: list[str], some: list[str]) -> str | None:
    return next((layer for layer in order if layer in some), None)


def _is_loud(severity: Severity) -> bool:
    return severity in (Severity.WARNING, Severity.ERROR)


def _loud(report: Report) -> tuple[str, ...]:
    return tuple(finding.code for finding in report.findings if _is_loud(finding.severity))


def _pair(layer: Layer, other: Mapping[str, NDArray[np.float32]] | None = None) -> Pair:
    """A layer's statistics, or those among variables of that time."""
    vectors = (layer.mean, layer.variance)
    found = [v.values if other is None else other[f"{layer.name}/moving_{v.role.value}"] for v in vectors]
    mean, variance = (np.asarray(values, np.float64).reshape(-1) for values in found)
    return mean, variance


def _judged(target: Target, new: Mapping[str, Pair]) -> Report:
    """The report on the files with these statistics in them."""
    keys: dict[str, RawTensor] = {}
    for layer in target.facts.layers:
        for vector, values in zip((layer.mean, layer.variance), new.get(layer.name, ()), strict=False):
            old = target.raw.tensors[vector.key]
            stored = values.astype(np.float32).reshape(old.shape)
            keys[vector.key] = replace(old, read=partial(np.asarray, stored), crc32c=None)
    changed = _with_tensors(target.raw, keys)
    return target.judged(recognise(changed, target.options))


def _with_tensors(raw: RawModel, new: Mapping[str, RawTensor]) -> RawModel:
    tensors = {**{key: raw.tensors[key] for key in raw.tensors}, **new}
    if raw.keras is None:
        return replace(raw, tensors=tensors)
    by_old = {id(raw.tensors[key]): tensor for key, tensor in new.items()}
    layers = tuple(
        replace(layer, weights=tuple(by_old.get(id(weight), weight) for weight in layer.weights))
        for layer in raw.keras.layers
    )
    return replace(raw, tensors=tensors, keras=replace(raw.keras, layers=layers))


class _Costs:
    """Accuracy that statistics cost, each measured once and kept in a file."""

    def __init__(self, net: TrainedNet, kept: Path) -> None:
        self._net, self._kept = net, kept
        self._known: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
        self._twins: TrialTwins | None = None
        self._open: Any = None

    def __call__(self, key: str, new: Statistics) -> float:
        """Lost against the clean net, 0 to 1."""
        return self._accuracy("clean", {}) - self._accuracy(key, new)

    def _accuracy(self, key: str, new: Statistics) -> float:
        if key not in self._known:
            if self._twins is None:
                from bncheck.sources import open_model

                self._open = open_trial(prepare(open_model(self._net.path)).forward)
                self._twins = self._open.__enter__()
            self._known[key] = true_accuracy(self._twins, self._net, new)
            self._kept.write_text(json.dumps(self._known))
        return self._known[key]


def true_accuracy(twins: TrialTwins, net: TrainedNet, new: Statistics) -> float:
    """Share of the images that are told right; of pixels, of those that show something."""
    images, labels = net.samples.unseen, net.samples.unseen_labels
    classes, right, count = int(net.samples.labels.max()) + 1, 0, 0
    for start in range(0, len(images), BATCH):
        wanted = labels[start : start + BATCH]
        outputs = twins.with_statistics(images[start : start + BATCH], new)
        scores = next(one for one in outputs if one.shape[-1] == classes).reshape(*wanted.shape, classes)
        counted = wanted > 0 if wanted.ndim > 1 else np.ones(wanted.shape, bool)
        right += int(np.sum((scores.argmax(axis=-1) == wanted) & counted))
        count += int(counted.sum())
    return right / count


def _summary(rows: list[Row], alarms: Mapping[str, tuple[str, ...]]) -> int:
    print("\n| corruption | of them | cost over 5 points | named | first layer right | not named |")
    print("|---|---|---|---|---|---|")
    for kind in (*KINDS, ""):
        some = [row for row in rows if kind in ("", row.kind)]
        print(f"| {kind or 'all'} | {' | '.join(_cells(some))} |")
    dear = [row for row in rows if row.lost > COSTS]
    named = [row for row in dear if row.named]
    share = len(named) / max(len(dear), 1)
    right = sum(row.first for row in named) / max(len(named), 1)
    loud = {net: codes for net, codes in alarms.items() if codes}
    print(
        f"\nnamed {share:.1%} of {len(dear)}, first layer right {right:.1%}; alarms on {len(alarms)} clean nets: {loud}"
    )
    return int(share < NAMED or right < FIRST or bool(loud))


def _cells(rows: list[Row]) -> Iterator[str]:
    dear = [row for row in rows if row.lost > COSTS]
    missed = [f"{row.net.split(',')[0]} {row.layers} {100 * row.lost:.0f}" for row in dear if not row.named]
    yield str(len(rows))
    yield str(len(dear))
    yield str(sum(row.named for row in dear))
    yield str(sum(row.first and row.named for row in dear))
    yield "; ".join(missed) or "-"


if __name__ == "__main__":
    sys.exit(main())
