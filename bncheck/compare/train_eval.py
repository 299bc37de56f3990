"""Train mode against eval mode of one model on the same data: sums over batches become a Comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

import numpy as np

from bncheck.compare.data.samples import Batch
from bncheck.compare.mode_sums import ModeSums, summed
from bncheck.compare.outputs import labels_belong
from bncheck.compare.prepared import Prepared
from bncheck.compare.shared_layers import shared
from bncheck.compare.twins.forward import TwinSite
from bncheck.compare.twins.twins import BatchRun, Twins
from bncheck.facts.errors import BncheckError
from bncheck.facts.layers import Layer, PerChannel
from bncheck.facts.measurements import Accuracy, Comparison, DataFacts, LayerDifference, OutputDifference
from bncheck.numerics import metrics
from bncheck.numerics.moments import Moments, split

MODE = "train-vs-eval"
_WORST = 5


def measure(
    twins: Twins,
    prepared: Prepared,
    batches: Iterable[Batch],
    describe: Callable[[int, int, int], DataFacts],
    *,
    progress: Callable[[int], None] = lambda _: None,
    each: Callable[[BatchRun], None] = lambda _: None,
) -> Comparison:
    """Runs every batch through both twins. Memory does not grow with their number.

    `describe(samples, batch_size, batches)` gives the facts of the data once they are known; `progress` hears of the
    samples done, `each` of what every batch tells. Raises BncheckError where the model refuses the data, or there is
    none.
    """
    start = time.perf_counter()
    sums = summed(twins, prepared, batches, progress=progress, each=each)
    return comparison(prepared, sums, describe, start)


def comparison(
    prepared: Prepared, sums: ModeSums, describe: Callable[[int, int, int], DataFacts], start: float
) -> Comparison:
    """What the sums over all batches tell; `start` is when the first of them began. Raises BncheckError of none."""
    if not sums.images:
        raise BncheckError("the data hold no samples")
    places = _layers(prepared, sums)
    return Comparison(
        mode=MODE,
        data=describe(sums.images, sums.batch_size, sums.batches),
        input=prepared.input,
        layers=places,
        shared=shared(places, prepared.layers),
        outputs=_outputs(prepared, sums),
        accuracy=_accuracy(sums),
        seen=None if sums.seen is None else sums.seen.summary(),
        batch_dependence=sums.batch_dependence,
        seconds=time.perf_counter() - start,
    )


def _layers(prepared: Prepared, sums: ModeSums) -> tuple[LayerDifference, ...]:
    layers = {layer.name: layer for layer in prepared.layers}
    assert sums.moments is not None
    assert sums.between is not None
    means, logs = np.split(sums.between.bessel, 2)
    ends = np.cumsum(sums.channels)
    return tuple(
        _layer_difference(site, layers[site.layer], sums, number, moments, (means[start:end], logs[start:end]))
        for number, (site, moments, start, end) in enumerate(
            zip(
                prepared.forward.sites,
                split(sums.moments, sums.channels),
                ends - sums.channels,
                ends,
                strict=True,
            )
        )
    )


def _layer_difference(  # noqa: PLR0917 - one site's share of everything
    site: TwinSite, layer: Layer, sums: ModeSums, number: int, moments: Moments, spread: tuple[PerChannel, PerChannel]
) -> LayerDifference:
    mean, variance = layer.mean.values, layer.variance.values
    assert mean is not None
    assert variance is not None
    epsilon = layer.epsilon or 0.0
    gamma, beta = layer.gamma.values, layer.beta.values
    r2, e2 = metrics.local_sums(moments.mean, moments.variance, mean, variance, gamma, beta, epsilon)
    outputs, samples = sums.sums[number], int(sums.samples[number])
    floor = metrics.local_floor(moments.variance, gamma, beta, epsilon, samples)
    measured = metrics.measured_floor(*spread, moments.variance, gamma, beta, epsilon)
    return LayerDifference(
        layer=site.layer,
        samples=samples,
        mean_shift=metrics.mean_shift(moments.mean, mean, variance, epsilon),
        log_variance_ratio=metrics.log_variance_ratio(moments.variance, variance, epsilon),
        local_nmse=metrics.nmse(float(np.sum(r2)), float(np.sum(e2))),
        local_floor=max(floor, measured) if math.isfinite(measured) else floor,
        cumulative_nmse=metrics.nmse(float(outputs[0]), float(outputs[2])),
        cumulative_cosine=metrics.cosine(*map(float, outputs)),
        worst_channels=tuple(int(c) for c in np.argsort(-np.nan_to_num(e2, nan=np.inf), kind="stable")[:_WORST]),
        non_finite=int(sums.non_finite[number]),
    )


def _outputs(prepared: Prepared, sums: ModeSums) -> tuple[OutputDifference, ...]:
    theirs = labels_belong(sums.outputs)
    for total in sums.outputs:
        total.theirs = total is theirs
    return tuple(
        total.difference(name, floor)
        for name, total, floor in zip(prepared.outputs, sums.outputs, sums.floors, strict=True)
    )


def _accuracy(sums: ModeSums) -> Accuracy:
    """Of the output that the labels belong to."""
    total = labels_belong(sums.outputs)
    if total is None or total.top.accuracy is None:
        return Accuracy()
    train, stored = total.top.accuracy
    lower, higher = (count / total.top.labelled for count in total.top.renumbered)
    return Accuracy(
        train=train,
        eval=stored,
        commonest=max(total.asked.values()) / total.top.labelled,
        one_lower=lower,
        one_higher=higher,
    )
