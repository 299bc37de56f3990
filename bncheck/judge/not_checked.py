"""What was not judged and why: as much a part of the answer as the findings."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bncheck.facts.findings import NotChecked, StageName, not_run
from bncheck.facts.formats import FileKind
from bncheck.facts.layers import Facts, Layer, Origin, Presence
from bncheck.facts.wording import many, percent
from bncheck.numerics.init_share import DEFAULTS, init_share, init_shares
from bncheck.numerics.variance_floor import variance_floor
from bncheck.rules.rule import Needs
from bncheck.rules.shared import fixes

NEGLIGIBLE = 0.05
"""Init share that harms no layer by itself, as in BN103."""


def not_checked(facts: Facts, lacking: Sequence[tuple[str, Needs]], left_out: Sequence[str]) -> tuple[NotChecked, ...]:
    """One entry for each kind of evidence that is lacking, with the codes that it would have decided.

    `lacking` are the rules that could not run with what each lacks, `left_out` those that the user deselected.
    A need that does not apply to the target (TFLite rules on a checkpoint) is no entry.
    """
    statistics = _codes(lacking, Needs.VALUES)
    wiring = tuple(sorted({*_codes(lacking, Needs.GRAPH), *_codes(lacking, Needs.SITES)}))
    entries: list[NotChecked] = []
    if facts.lite is not None and not facts.layers:
        entries += _of_lite(facts, statistics + wiring)
    else:
        entries += [_statistics(facts, statistics)] if statistics else []
        entries += [_values(facts)] if facts.run.index_only and not statistics else []
        entries += _written_out(facts)
        entries += [_unread(facts)] if unjudged_layers(facts) and not statistics else []
        entries += [_wiring(facts, wiring)] if wiring else []
        entries += _against_weights(facts, _codes(lacking, Needs.PREDICTIONS))
        entries += _init_share(facts)
        entries += _train_vs_eval(facts, _codes(lacking, Needs.COMPARISON))
    entries += _quantized(facts)
    if left_out:
        count = len(left_out)
        what = f"{count} rule{'s' if count > 1 else ''}"
        entries.append(NotChecked(what=what, why="left out by --select or --ignore", codes=tuple(left_out)))
    return tuple(entries)


def _train_vs_eval(facts: Facts, codes: tuple[str, ...]) -> list[NotChecked]:
    if facts.comparison is None:
        if facts.format.inspected_only:
            return [not_run(StageName.MODES, "bncheck inspects such files, but does not run them", codes=codes)]
        if not facts.run.values:
            return [not_run(StageName.MODES, "needs the values, and data", codes=codes)]
        runs = facts.graph is not None or facts.format.kind is FileKind.KERAS
        how = fixes.compare(facts, *([] if runs else ["--model", "NAME"]))
        return [not_run(StageName.MODES, "needs data", how, codes=codes)]
    if facts.comparison.data.synthetic:
        return [_made_up("whether eval mode is junk")]
    return []


def _against_weights(facts: Facts, codes: tuple[str, ...]) -> list[NotChecked]:
    """That no layer's statistics could be held against the weights before it, where they moved and no run did."""
    moved = any(layer.mean.moved and layer.variance.moved for layer in facts.layers)
    if not codes or not moved or facts.comparison is not None:
        return []
    joined = facts.graph is not None or (not facts.format.is_pytorch and any(layer.sites for layer in facts.layers))
    why = "they predict no layer's statistics" if joined else "no file tells which layer each feeds"
    return [NotChecked(what="weights", why=f"{why}: statistics of other weights would pass", codes=codes)]


def _init_share(facts: Facts) -> list[NotChecked]:
    """That nothing tells how much of the statistics is initial value, where they moved and no run showed them good."""
    moved = [layer for layer in facts.layers if layer.variance.values is not None and layer.moved is True]
    measured = facts.comparison is not None and not facts.comparison.data.synthetic
    if not moved or measured:
        return []
    if any(init_share(layer, facts.run.updates) is not None for layer in moved):
        return _by_default(facts, moved) if all(layer.decay_from in DEFAULTS for layer in moved) else []
    lacking = [
        *(["decay"] if all(layer.decay is None for layer in moved) else []),
        *([] if facts.run.updates else ["number of updates"]),
    ]
    if not lacking:
        return []
    options = " ".join(f"--{'decay D' if one == 'decay' else 'steps N'}" for one in lacking)
    return [NotChecked(what="init share", why=f"no file tells the {' or the '.join(lacking)}", how=options)]


def _by_default(facts: Facts, moved: Sequence[Layer]) -> list[NotChecked]:
    """That the init share rests on an assumed decay, unless the smallest variance leaves no room for another."""
    if not init_shares(moved, facts.run.updates):
        why = "the framework's default decay, which was assumed, does not fit the values"
        return [NotChecked(what="init share", why=why, how="--decay D")]
    floor = variance_floor(moved)
    if floor is None or floor.bound <= NEGLIGIBLE:
        return []
    why = f"no file tells the decay: with another than the framework's default it may be up to {percent(floor.bound)}"
    return [NotChecked(what="init share", why=why, how="--decay D")]


def _codes(lacking: Sequence[tuple[str, Needs]], need: Needs) -> tuple[str, ...]:
    silent = Needs.LITE | Needs.CONVERTED | Needs.REFERENCE | Needs.QUANTIZED | Needs.FOLD | Needs.BEFORE
    return tuple(code for code, needs in lacking if need in needs and not needs & silent)


def _of_lite(facts: Facts, codes: tuple[str, ...]) -> list[NotChecked]:
    lost = NotChecked(
        what="statistics and wiring",
        why="a TFLite file no longer holds them",
        how="inspect the checkpoint or model it was converted from",
        codes=codes,
    )
    if facts.quantized is not None:
        why = "a TFLite file has no train mode, so whether the model was broken before is unknown"
        how = "bncheck compare float-vs-quantized CHECKPOINT --quantized FILE.tflite --data images/"
        return [lost, not_run(StageName.MODES, why, how)]
    how = "bncheck compare float-vs-quantized SOURCE --quantized " + shlex.quote(facts.path) + " --data images/"
    return [lost, NotChecked(what="quantized vs float", stage=StageName.QUANTIZED, why="needs data", how=how)]


def _quantized(facts: Facts) -> list[NotChecked]:
    if facts.quantized is None or not facts.quantized.data.synthetic:
        return []
    return [_made_up("whether the quantized output is junk")]


def _made_up(what: str) -> NotChecked:
    return NotChecked(what=what, why="the data are synthetic noise", how="give real data: --data images/")


def _written_out(facts: Facts) -> list[NotChecked]:
    """Statistics of batch norm of which an ONNX model has scale and shift alone; none where its source is known."""
    left = [] if facts.graph is None else [one for one in facts.graph.leftovers if one.named]
    if not left or facts.fold is not None:
        return []
    what = f"statistics of {many(len(left), 'batch norm')}"
    how = f"bncheck inspect model {shlex.quote(facts.path)} --reference model.pt"
    return [NotChecked(what=what, why="the exporter kept only what they come to", how=how)]


_GIVE_SHARDS = "put the data shards beside the index"


def _statistics(facts: Facts, codes: tuple[str, ...]) -> NotChecked:
    if facts.run.keys is not None or facts.graph is None:
        return NotChecked(
            what="statistics",
            why="neither their values nor conclusive checksums were given",
            how=_GIVE_SHARDS if facts.run.index_only else "",
            codes=codes,
        )
    return NotChecked(
        what="statistics",
        why="no checkpoint was given",
        how="bncheck inspect checkpoint CKPT --graph " + shlex.quote(facts.path),
        codes=codes,
    )


def unjudged_layers(facts: Facts) -> tuple[Layer, ...]:
    """Layers of a file that should hold statistics of which none could be read, nor any update be judged instead."""
    if not facts.run.values:
        return ()
    return tuple(
        layer
        for layer in facts.layers
        if any(vector.presence is Presence.UNREAD for vector in layer.statistics)
        and not any(vector.constant_checked for vector in layer.statistics)
        and not layer.updates
    )


def _unread(facts: Facts) -> NotChecked:
    layers = unjudged_layers(facts)
    why = next((vector.reason for layer in layers for vector in layer.statistics if vector.reason), "they are missing")
    return NotChecked(what=f"statistics of {len(layers)} of {many(len(facts.layers), 'layer')}", why=why)


def _values(facts: Facts) -> NotChecked:
    decided = any(v.constant_checked for layer in facts.layers for v in layer.statistics)
    why = "only the index was given" + (", whose checksums only show whether a statistic moved" if decided else "")
    return NotChecked(what="sizes of the statistics", why=why, how=_GIVE_SHARDS)


def _wiring(facts: Facts, codes: tuple[str, ...]) -> NotChecked:
    what = "wiring" if any(layer.sites for layer in facts.layers) else "wiring and modes"
    if facts.graph is not None:
        return NotChecked(what=what, why="no batch norm was found in the graph", codes=codes)
    if any(layer.origin is Origin.CONFIG for layer in facts.layers) or facts.format.kind is FileKind.KERAS:
        return NotChecked(what=what, why="a Keras file holds no training graph", codes=codes)
    if facts.format.kind is FileKind.TF2_CHECKPOINT:
        how = "run `bncheck inspect model` on the exported SavedModel"
        return NotChecked(what=what, why="a TF2 checkpoint comes without a graph", how=how, codes=codes)
    if not facts.format.is_checkpoint:
        return NotChecked(what=what, why=f"a {facts.format} holds no graph", codes=codes)
    if not facts.given.use_graph:
        return NotChecked(what=what, why="--no-graph was given", codes=codes)
    return NotChecked(what=what, why="only a checkpoint was given", how="--graph META", codes=codes)
