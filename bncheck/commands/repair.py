"""The repair of one model: read, inspect, find new statistics, write them, inspect and compare again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.commands.averages import averages_of, both_or_refused
from bncheck.commands.before_and_after import Side, judged
from bncheck.commands.target import Target, in_network, read_target, refuse_two_networks, with_chosen_weights
from bncheck.compare.data.first_look import look_at
from bncheck.engine.shards import require_engine
from bncheck.facts.errors import NoModel, UsageError
from bncheck.facts.findings import Meaning, Report
from bncheck.facts.layers import Layer, PerChannel, Presence, Vector
from bncheck.facts.repairs import LayerRepair, RepairJudgement, RepairReport, RepairVerdict
from bncheck.judge.repair_verdict import JUDGED_BY_NOTHING, judge_repair, refused_by_files, with_averages
from bncheck.repair.estimate import Estimate, Runs, reestimate, rescued
from bncheck.repair.population import run_here
from bncheck.repair.provenance import beside, provenance
from bncheck.repair.ranges import NewRanges, new_ranges, of_both_copies
from bncheck.repair.statistics import NewStatistics
from bncheck.repair.undo import undo
from bncheck.repair.write import Destination, destination
from bncheck.repair.write_checkpoint import rounded
from bncheck.rules import RULES
from bncheck.settings.keywords import takes
from bncheck.settings.options import SYNTHETIC, CommandName, Options, silent
from bncheck.sources.raw import RawModel


@takes(Options, CommandName.REPAIR)
def repair(path: str | Path, output: str | Path, options: Options) -> RepairReport:
    """Writes a copy of a model with right batch norm statistics; the source is only read.

    From `data` (population statistics of every layer with batch statistics in all layers, `population`), by `debias`
    (undoes decay**steps exactly, `statistics.debiased`) or, as a last resort, by `rescue` (statistics of made-up
    pictures). `decay`, `steps` and `train_ops` supply what the
    files do not say. `progress` hears of the stage ("estimate", "record ranges", "compare before", "compare after") and
    of its samples.

    Raises UsageError for what cannot be served (`output` exists or is the source; a layer whose statistics cannot be
    known), ReadError where a file cannot be read (Unsupported for formats whose statistics are folded or frozen),
    NoModel where there is no batch norm, BncheckError where the model cannot be run. Nothing is written then.
    """
    options = _all_at_once(options)
    progress, method = options.progress, _method(options)
    debias = method == "debias"
    require_engine(options.engine)
    look_at(options)
    refuse_two_networks(options)
    files = read_target(path, options)
    place = destination(files.raw, Path(output))
    if not files.facts.layers:
        raise NoModel(path, "no batch norm was found to repair")
    refused = refused_by_files(files.judged())
    if refused:
        return _not_written(files, output, None, RepairJudgement(verdict=RepairVerdict.REFUSED, reasons=refused))
    estimate: Estimate | None = None
    target = files if debias else with_chosen_weights(in_network(files))
    if debias:
        found = undo(files.facts, options)
    elif method == "rescue":
        found = rescued(target.raw, options, progress)
    else:
        estimate = reestimate(target.raw, options, progress, runs=_runs(target))
        found = estimate.replacement
    opened = None if estimate is None else estimate.data
    other = None if estimate is None or options.weights is not None else both_or_refused(target)
    of_averages = None if other is None else reestimate(other.raw, options, progress, runs=_runs(other))
    before = judged(
        files if debias else with_chosen_weights(files),
        target,
        opened,
        options.settings,
        lambda done: progress("compare before", done),
    )
    judgement = _judgement((target, estimate), (other, of_averages), before)
    if judgement.verdict is RepairVerdict.REFUSED:
        return _not_written(files, output, before, judgement, estimate)
    facts = target.facts
    layers = {layer.name: layer for layer in facts.layers}
    noise = {} if estimate is None else estimate.noise
    repaired, replaced, added = _changes(target.raw, place, layers, found.new, noise)
    ranges = new_ranges(target.raw, found.new, options, opened, lambda done: progress("record ranges", done))
    averaged: tuple[LayerRepair, ...] = ()
    if other is not None and of_averages is not None:
        averaged, more, of_theirs = _of_averages(other, of_averages, place)
        replaced, ranges = replaced | more, of_both_copies(ranges, of_theirs)
    replaced |= ranges.replaced
    known_decay = next((layer.decay for layer in facts.layers if layer.decay is not None), None)
    text = provenance(
        source=Path(path),
        hashed=place.hashed,
        output=place.path,
        method=method,
        repaired=repaired,
        left=found.left,
        decay=known_decay,
        steps=facts.run.updates,
        population=found.population,
        ranges=ranges.told,
        averaged=averaged,
        statistics=_read_again(target.raw, repaired, {**replaced, **added}),
        trial=None if estimate is None else estimate.trial,
        judgement=judgement,
    )
    averages_before = None if other is None else judged(other, other, opened, options.settings, silent)
    made = place.write(replaced, added, text)
    written = read_target(place.path, options)
    written = written if debias else with_chosen_weights(written)
    by_counters = () if found.left else tuple(rule.code for rule in RULES if Meaning.BY_COUNTERS in rule.meaning)
    then = replace(options.settings, ignore=(*options.settings.ignore, *by_counters))
    of_data = written if debias else with_chosen_weights(in_network(written))
    averages = None if other is None else averages_of(of_data)
    averages_after = None if averages is None else judged(averages, averages, opened, then, silent)
    after = judged(written, of_data, opened, then, lambda done: progress("compare after", done))
    return RepairReport(
        source=str(path),
        output=str(place.path),
        format=files.raw.format.label,
        method=method,
        repaired=repaired,
        left=found.left,
        files=tuple(str(file) for file in made.files),
        provenance=str(beside(place.path)),
        before=before.report,
        after=_worse(after, averages_after),
        ranges=ranges.told,
        averaged=averaged,
        averaged_before=None if averages_before is None else averages_before.comparison,
        averaged_after=None if averages_after is None else averages_after.comparison,
        population=found.population,
        decay=known_decay,
        steps=facts.run.updates,
        compared_before=before.comparison,
        compared_after=after.comparison,
        notes=(*found.notes, *([_unmeasured(place.path)] if debias else []), *before.notes, *made.notes),
        trial=None if estimate is None else estimate.trial,
        judgement=judgement,
        allow_unverified=options.allow_unverified,
    )


def _runs(target: Target) -> Runs:
    """Where the data are run: in this process, or by the engine that the options name."""
    if target.options.engine is None:
        return run_here
    from bncheck.commands.data_blocks import moments_in_blocks  # noqa: PLC0415 - with an engine only

    return lambda _twin, _data: moments_in_blocks(target)


def _method(options: Options) -> str:
    """Which of "data", "debias" and "rescue" is asked for. Raises UsageError unless it is just one."""
    asked = {"data": options.data is not None, "debias": options.debias, "rescue": options.rescue}
    chosen = [name for name, wanted in asked.items() if wanted]
    if len(chosen) != 1:
        given = f"{' and '.join(f'--{name}' for name in chosen)} were given" if chosen else "none was given"
        raise UsageError(f"a repair takes one of --data, --debias and --rescue: {given}")
    if str(options.data) == SYNTHETIC:
        raise UsageError("synthetic data say nothing about what the model sees: give data as in training with --data")
    return chosen[0]


def _judgement(
    raw: tuple[Target, Estimate | None], averages: tuple[Target | None, Estimate | None], before: Side
) -> RepairJudgement:
    """On the raw weights, and on their averages where they are repaired too."""
    (target, estimate), (other, of_averages) = raw, averages
    if estimate is None:
        return JUDGED_BY_NOTHING
    judgement = judge_repair(estimate.trial, target.facts, doubted=before.doubts)
    if other is None or of_averages is None:
        return judgement
    return with_averages(judgement, judge_repair(of_averages.trial, other.facts))


def _not_written(
    files: Target, output: str | Path, before: Side | None, judgement: RepairJudgement, estimate: Estimate | None = None
) -> RepairReport:
    """The report of a repair that would make nothing better: there is no copy."""
    report = files.judged() if before is None else before.report
    return RepairReport(
        source=files.path,
        output=str(output),
        format=files.raw.format.label,
        method=_method(files.options),
        repaired=(),
        left=(),
        files=(),
        provenance="",
        before=report,
        after=report,
        population=None if estimate is None else estimate.replacement.population,
        compared_before=None if before is None else before.comparison,
        notes=() if before is None else before.notes,
        trial=None if estimate is None else estimate.trial,
        judgement=judgement,
    )


def _all_at_once(options: Options) -> Options:
    """With those that were given together, as `options`, where they are not given by themselves."""
    if options.options is None:
        return options
    own = {each.name for each in fields(Options) if getattr(options, each.name) != each.default}
    return replace(options.options, **{name: getattr(options, name) for name in own - {"options"}})


def _of_averages(
    other: Target, estimate: Estimate, place: Destination
) -> tuple[tuple[LayerRepair, ...], dict[str, PerChannel], NewRanges]:
    """(what is told of each layer, key -> vector to replace, ranges) of the averaged weights."""
    by_name = {layer.name: layer for layer in other.facts.layers}
    new, options = estimate.replacement.new, other.options
    averaged, replaced, _ = _changes(other.raw, place, by_name, new, estimate.noise)
    progress = partial(options.progress, "record ranges")
    return averaged, replaced, new_ranges(other.raw, new, options, estimate.data, progress)


def _read_again(
    raw: RawModel, repaired: Sequence[LayerRepair], values: Mapping[str, PerChannel]
) -> dict[str, NDArray[Any]]:
    """Key -> values as the type that they are stored in rounds them."""
    keys = [key for layer in repaired for key in (layer.mean, layer.variance)]
    types = {key: raw.tensors[key].dtype if key in raw.tensors else "float32" for key in keys}
    return {key: rounded(values[key], types[key], key=key) for key in keys}


def _worse(after: Side, averages: Side | None) -> Report:
    """Of the raw weights, unless the averaged ones came out worse."""
    if averages is None or averages.report.exit_code <= after.report.exit_code:
        return after.report
    return averages.report


def _unmeasured(output: Path) -> str:
    return (
        "not run: these averages are of the whole training, during which the weights moved; whether they fit the last "
        f"ones, bncheck compare train-vs-eval {shlex.quote(str(output))} --data images/ tells"
    )


def _changes(
    raw: RawModel,
    place: Destination,
    layers: dict[str, Layer],
    new: Sequence[NewStatistics],
    noise: Mapping[str, tuple[float, float]],
) -> tuple[tuple[LayerRepair, ...], dict[str, PerChannel], dict[str, PerChannel]]:
    """(what is told of each layer, key -> vector to replace, key -> vector to add)."""
    replaced: dict[str, PerChannel] = {}
    added: dict[str, PerChannel] = {}
    repaired = []
    for statistics in new:
        layer = layers[statistics.layer]
        keys, fresh = [], []
        for vector, values in ((layer.mean, statistics.mean), (layer.variance, statistics.variance)):
            stored = _as_stored(vector, values)
            if vector.key in raw.tensors:
                replaced[vector.key] = stored
                keys.append(vector.key)
            elif vector.presence is Presence.MISSING and place.can_add and vector.name:
                added[vector.name] = stored
                keys.append(vector.name)
                fresh.append(vector.name)
            else:
                raise UsageError(f"{layer.name}: {_no_place(vector)}")
        of_mean, of_variance = noise.get(layer.name, (None, None))
        repaired.append(
            LayerRepair(
                layer=layer.name,
                mean=keys[0],
                variance=keys[1],
                variance_ratio=_ratio(layer, statistics),
                share=statistics.share,
                clipped=statistics.clipped,
                added=tuple(fresh),
                from_weights=statistics.from_weights,
                mean_noise=of_mean,
                variance_noise=of_variance,
            )
        )
    return tuple(repaired), replaced, added


def _as_stored(vector: Vector, values: PerChannel) -> PerChannel:
    """In the shape that the file has it in; all others are (channels,)."""
    return values if vector.shape is None else values.reshape(vector.shape)


def _no_place(vector: Vector) -> str:
    what = f"its moving {vector.role.value}"
    if vector.presence is Presence.MISSING:
        return f"{what} is not in the file ({vector.reason}), and bncheck can add tensors to TF1 checkpoints only"
    return f"{what} is {vector.presence.value}: {vector.reason or 'a constant of the graph'}"


def _ratio(layer: Layer, statistics: NewStatistics) -> float | None:
    old, epsilon = layer.variance.values, layer.epsilon or 0.0
    if old is None or old.shape != statistics.variance.shape:
        return None
    below, above = old + epsilon, statistics.variance + epsilon
    known = np.isfinite(below) & (below > 0) & (above > 0)
    return float(np.exp(np.mean(np.log(above[known] / below[known])))) if np.any(known) else None
