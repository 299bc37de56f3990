"""With exactly one corrupted layer that layer is named, whatever was done to it; a healthy model names none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained_variants import checkpoint, trained_digits

from bncheck.compare.prepared import Prepared, prepare
from bncheck.compare.train_eval import measure
from bncheck.compare.twins.session import Loaded
from bncheck.compare.twins.twins import Twins, open_twins
from bncheck.facts.findings import Report
from bncheck.facts.layers import Layer, PerChannel
from bncheck.facts.measurements import DataFacts
from bncheck.judge.judge import judge
from bncheck.report.views.comparison import first_bad_layer
from bncheck.settings.options import Options
from bncheck.sources import open_model

pytestmark = pytest.mark.tensorflow

WIRED = Path(checkpoint("wired"))
BATCH, BATCHES = 32, 11

Statistics = tuple[PerChannel, PerChannel]


def scaled(layer: Layer) -> Statistics:
    """Variances four times as large."""
    return values(layer)[0], values(layer)[1] * 4


def shifted(layer: Layer) -> Statistics:
    """Means off by half a deviation."""
    mean, variance = values(layer)
    return mean + 0.5 * np.sqrt(variance), variance


def swapped(layer: Layer) -> Statistics:
    """Channels in reverse order, as a wrong conversion leaves them."""
    mean, variance = values(layer)
    return mean[::-1].copy(), variance[::-1].copy()


def reinitialised(layer: Layer) -> Statistics:
    """Mean 0, variance 1."""
    mean, variance = values(layer)
    return np.zeros_like(mean), np.ones_like(variance)


CORRUPTIONS = (scaled, shifted, swapped, reinitialised)


def values(layer: Layer) -> Statistics:
    """What is stored."""
    assert layer.mean.values is not None
    assert layer.variance.values is not None
    return layer.mean.values, layer.variance.values


class _Overriding(Loaded):
    """A graph in which constants stand for others, so that one load serves all corruptions."""

    instead: dict[str, Any]

    def runner(self, fetches: Any) -> Any:
        return lambda batch: self._session.run(fetches, {self._tensors[0]: batch, **self.instead})


@dataclass
class Healthy:
    """The wired fixture, ready to run, and the digits it was tested on."""

    prepared: Prepared
    twins: Twins
    graph: _Overriding
    batches: list[tuple[Any, Any]]


@pytest.fixture(scope="module")
def healthy() -> Iterator[Healthy]:
    """Loaded once."""
    data = trained_digits()
    images, labels = data.test_images, data.test_labels
    batches = [(images[n : n + BATCH], labels[n : n + BATCH]) for n in range(0, BATCH * BATCHES, BATCH)]
    prepared = prepare(open_model(WIRED, graph=None, use_graph=True), Options())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bncheck.compare.twins.twins.Loaded", _Overriding)
        with open_twins(prepared.forward) as twins:
            graph = twins._loaded
            assert isinstance(graph, _Overriding)
            yield Healthy(prepared=prepared, twins=twins, graph=graph, batches=batches)


def compare(healthy: Healthy, place: int | None, corrupt: Any = None) -> Report:
    """The report with the layer at `place` corrupted."""
    prepared, graph = healthy.prepared, healthy.graph
    layers = list(prepared.layers)
    graph.instead = {}
    if place is not None:
        layer = layers[place]
        mean, variance = corrupt(layer)
        layers[place] = replace(
            layer, mean=replace(layer.mean, values=mean), variance=replace(layer.variance, values=variance)
        )
        site = next(site for site in prepared.forward.sites if site.layer == layer.name)
        name = site.eval_output.removesuffix(":0")
        graph.instead = {
            f"{name}/{part}:0": new.astype(np.float32) for part, new in (("mean", mean), ("variance", variance))
        }
    held = replace(prepared, layers=tuple(layers), facts=replace(prepared.facts, layers=tuple(layers)))

    def describe(samples: int, size: int, count: int) -> DataFacts:
        return DataFacts(description="digits", samples=samples, batch_size=size, batches=count, labelled=True)

    return judge(replace(held.facts, comparison=measure(healthy.twins, held, healthy.batches, describe)))


def test_healthy(healthy: Healthy) -> None:
    """No layer of the healthy model goes wrong, and nothing is found."""
    report = compare(healthy, None)
    assert first_bad_layer(report) is None
    assert report.findings == ()


@pytest.mark.parametrize("place", range(0, 52, 13))
@pytest.mark.parametrize("corrupt", CORRUPTIONS)
def test_some(healthy: Healthy, place: int, corrupt: Any) -> None:
    """Four layers, corrupted in four ways."""
    report = compare(healthy, place, corrupt)
    assert first_bad_layer(report) == healthy.prepared.layers[place].name


@pytest.mark.slow
@pytest.mark.parametrize("place", [n for n in range(52) if n % 5 in (1, 3)])
@pytest.mark.parametrize("corrupt", CORRUPTIONS)
def test_twenty(healthy: Healthy, place: int, corrupt: Any) -> None:
    """Another twenty layers, each in all four ways: every time that layer, and no other, is the first bad one."""
    report = compare(healthy, place, corrupt)
    assert first_bad_layer(report) == healthy.prepared.layers[place].name
    accuracy = report.comparison.accuracy if report.comparison is not None else None
    assert accuracy is not None
    assert accuracy.train is not None
    assert accuracy.eval is not None
    if accuracy.train - accuracy.eval > 0.05:
        assert report.verdict.value == "fail"
