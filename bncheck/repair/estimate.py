"""`--data`: population statistics of every layer that the forward pass reaches, whatever is stored now."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from bncheck.compare.data.data import Data, open_data
from bncheck.compare.prepared import Prepared, prepare
from bncheck.facts.errors import UsageError
from bncheck.facts.layers import Facts, Layer, PerChannel, Presence
from bncheck.facts.repairs import LayerLeft, PopulationFacts, Trial
from bncheck.facts.wording import many
from bncheck.numerics.channels import median
from bncheck.numerics.init_share import init_share
from bncheck.numerics.input_range import ALIKE, range_factor
from bncheck.recognise import recognise
from bncheck.repair.few_images import FEW, RESCUED, of_pictures, picture_input, pictures_for
from bncheck.repair.population import TOLERANCE, Population, Run, population_of, run_here
from bncheck.repair.ranges import renewable
from bncheck.repair.splits import Split, gathered, mean_noise, splits
from bncheck.repair.statistics import NewStatistics, Refused, Replacement, reestimated
from bncheck.repair.train_twin import TrainTwin, open_train_twin
from bncheck.repair.trial import candidates, try_out
from bncheck.repair.trial_twins import TrialTwins, open_trial
from bncheck.repair.write_keras import write_keras
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.sources.raw import RawModel, RawTensor

Runs = Callable[[TrainTwin, Data], Iterable[Run]]
_MARKS = 200
"""Numbers that bfloat16 holds exactly, with room to spare."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """New statistics from data, and what the model answers with them."""

    replacement: Replacement
    data: Data
    trial: Trial
    noise: Mapping[str, tuple[float, float]]
    """Layer -> standard errors of its mean, in deviations, and of its log variance."""


def reestimate(
    raw: RawModel, options: Options, progress: Callable[[str, int], None], *, runs: Runs = run_here
) -> Estimate:
    """Population statistics of every layer of the forward pass, tried out before they are written.

    `runs` gives what each batch tells, in the order of the data.
    """
    assert options.data is not None
    prepared = runnable(raw, options)
    with open_train_twin(prepared.forward) as twin:
        data = open_data(options.data, twin.inputs, options)
        counted = count(twin, data, options, lambda done: progress("estimate", done), runs)
    if not _new(prepared.facts, counted.population):
        raise UsageError(f"{raw.path}: the forward pass reaches no batch norm with statistics")
    with open_trial(prepared.forward, ranges_renewed=renewable(raw, prepared.facts)) as twins:
        return tried(twins, prepared, counted, options, lambda done: progress("try", done))


def rescued(raw: RawModel, options: Options, progress: Callable[[str, int], None]) -> Replacement:
    """Statistics of made-up pictures for every layer of the forward pass, where there is no data at all.

    Raises UsageError where the model takes no images, or does not say of which size (`--size`).
    """
    prepared = runnable(raw, options)
    with open_train_twin(prepared.forward) as twin:
        if len(twin.inputs) > 1:
            raise UsageError(
                f"{raw.path}: it takes {len(twin.inputs)} inputs, but made-up pictures can replace only one"
            )
        size, low, high = picture_input(twin.inputs[0], options, str(raw.path))
        progress("estimate", 0)
        moments = of_pictures(twin, size, low, high)
    layers = [layer for layer in prepared.facts.layers if layer.name in moments and _stores(layer)]
    left = [layer for layer in prepared.facts.layers if layer not in layers]
    return Replacement(
        new=tuple(reestimated(layer.name, moments[layer.name]) for layer in layers),
        left=tuple(LayerLeft(layer=layer.name, reason="the forward pass does not reach it") for layer in left),
        notes=(RESCUED,),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Counted:
    """What went through the train twin."""

    data: Data
    population: Population
    cut: tuple[Split, ...]
    mixed: Population | None = None
    """What statistics are made of where the samples are few images."""


def count(
    twin: TrainTwin, data: Data, options: Options, progress: Callable[[int], None], runs: Runs = run_here
) -> Counted:
    """The moments of all data, and of halves of them, made as those of all are."""
    found = population_of(twin, runs(twin, data), tolerance=_tolerance(options), progress=progress)
    if found.samples >= FEW or len(twin.inputs) > 1:
        return Counted(data=data, population=found, cut=splits(twin, data, found))
    samples = gathered(data, found.samples)
    pictures = pictures_for(twin, samples)
    if pictures is None:
        return Counted(data=data, population=found, cut=splits(twin, data, found))
    mixed = replace(found, moments=pictures.mixed(samples, found.moments))
    return Counted(data=data, population=found, cut=splits(twin, data, found, pictures.mixed), mixed=mixed)


def tried(
    twins: TrialTwins, prepared: Prepared, counted: Counted, options: Options, progress: Callable[[int], None]
) -> Estimate:
    """New statistics from what was counted, and what eval mode makes of them."""
    data, found = counted.data, counted.population
    facts = PopulationFacts(
        description=data.description,
        samples=found.samples,
        batches=found.batches,
        batch_size=data.batch_size,
        converged=found.converged,
        change=found.change if np.isfinite(found.change) else 1.0,
    )
    source = counted.mixed or found
    new = tuple(_estimated(name, source) for name in _new(prepared.facts, source))
    reached = [layer for layer in prepared.facts.layers if layer.name in found.moments]
    stored = {
        layer.name: (layer.mean.values, layer.variance.values)
        for layer in reached
        if layer.mean.values is not None and layer.variance.values is not None
    }
    trial = try_out(
        twins,
        candidates(new, counted.cut, stored if len(stored) == len(reached) else None),
        data,
        prepared.kinds,
        declared=options.preprocess,
        labels_output=prepared.labels_output,
        progress=progress,
    )
    left = tuple(_left(layer, found) for layer in prepared.facts.layers if layer.name not in {one.layer for one in new})
    by_name = {layer.name: layer for layer in reached}
    in_order = [by_name[site.layer] for site in prepared.forward.sites]
    return Estimate(
        replacement=Replacement(new=new, left=left, population=facts, notes=(*_notes(facts, options), *_told(counted))),
        data=data,
        trial=replace(trial, range_factor=_range_factor(in_order, found, prepared.facts.run.updates)),
        noise=mean_noise(counted.cut),
    )


def _new(facts: Facts, counted: Population) -> list[str]:
    """Layers that get statistics."""
    return [layer.name for layer in facts.layers if layer.name in counted.moments and _stores(layer)]


def _stores(layer: Layer) -> bool:
    return any(vector.presence is not Presence.ABSENT for vector in layer.statistics)


def _left(layer: Layer, counted: Population) -> LayerLeft:
    reached = layer.name in counted.moments
    reason = "it stores no statistics" if reached else "the forward pass does not reach it"
    return LayerLeft(layer=layer.name, reason=reason)


def _range_factor(reached: Sequence[Layer], counted: Population, updates: int | None) -> float | None:
    """Of the first layer, where the layers behind it, which batch norm shields from the input's range, are not off too.

    None where they are: then the statistics are at fault, whatever the data.
    """
    factors = [
        range_factor(layer, counted.moments[layer.name], init_share(layer, updates) or 0.0)
        for layer in dict.fromkeys(reached)
    ]
    behind = [abs(math.log(factor)) for factor in factors[1:] if factor is not None]
    return None if behind and median(np.array(behind)) > ALIKE else factors[0]


def _tolerance(options: Options) -> float:
    return TOLERANCE if options.tolerance is None else options.tolerance


def _estimated(layer: str, counted: Population) -> NewStatistics:
    try:
        return reestimated(layer, counted.moments[layer])
    except Refused as error:
        raise UsageError(str(error)) from None


def _told(counted: Counted) -> tuple[str, ...]:
    """What few images were mixed with, as a note."""
    if counted.mixed is None:
        return ()
    note = (
        f"{many(counted.population.samples, 'image')} make noisy statistics: those of made-up pictures were "
        f"mixed in, which count as one image more. {FEW} images need no such help"
    )
    return (note,)


def _notes(facts: PopulationFacts, options: Options) -> tuple[str, ...]:
    if facts.converged or _tolerance(options) <= 0:
        return ()
    note = (
        f"the data ended before the statistics converged: the last of {facts.batches} batches still changed a layer "
        f"by {facts.change:.2g}; more samples make them surer"
    )
    return (note,)


def runnable(raw: RawModel, options: Options) -> Prepared:
    """The model in train mode, ready to run, whatever its stored statistics are: missing, NaN or all alike."""
    if raw.keras is None:
        stand_ins = _stand_ins(recognise(raw, options))
        whole = replace(raw, tensors={**{key: raw.tensors[key] for key in raw.tensors}, **stand_ins})
        prepared = prepare(whole if stand_ins else raw, options)
        return replace(prepared, facts=recognise(raw, options)) if stand_ins else prepared
    with tempfile.TemporaryDirectory(prefix="bncheck-") as folder:
        return _marked(raw, options, Path(folder) / raw.path.name)


def _stand_ins(facts: Facts) -> dict[str, RawTensor]:
    """Tensors for statistics that the file lacks, so that twins can be made; the train twin does not look at them."""
    found: dict[str, RawTensor] = {}
    for layer in facts.layers:
        for vector in layer.statistics:
            if vector.presence is Presence.MISSING and vector.name:
                values = np.full(_channels(layer), vector.role.conventional_initial, np.float32)
                read = partial(np.asarray, values)
                found[vector.name] = RawTensor(name=vector.name, dtype="float32", shape=values.shape, read=read)
    return found


def _channels(layer: Layer) -> int:
    """Of any of its vectors. Raises UsageError where nothing tells."""
    for vector in (layer.mean, layer.variance, layer.gamma, layer.beta):
        if vector.shape is not None:
            return int(np.prod(vector.shape, dtype=np.int64))
    if layer.channels is not None:
        return layer.channels
    raise UsageError(f"{layer.name}: its number of channels is unknown, as none of its vectors is stored")


def _marked(raw: RawModel, options: Options, copy: Path) -> Prepared:
    """A Keras model whose layers can be told apart in the graph that Keras makes of it, where names are lost.

    In a copy every layer gets statistics of its own (its number), by which `prepare` finds it again.
    """
    facts = recognise(raw, options)
    marks: dict[str, PerChannel] = {}
    for number, layer in enumerate(facts.layers):
        for vector, mark in ((layer.mean, number % _MARKS), (layer.variance, number // _MARKS)):
            if vector.key in raw.tensors:
                marks[vector.key] = np.full(_channels(layer), 1.0 + mark)
    write_keras(raw, copy, marks)
    return replace(prepare(open_model(copy), options), facts=facts)
