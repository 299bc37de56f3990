"""`--debias`: the init share undone in every layer, from what the files say of decay and count. No data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bncheck.facts.errors import UsageError
from bncheck.facts.layers import DecaySource, Facts, Layer, Presence, RunFacts
from bncheck.facts.repairs import LayerLeft
from bncheck.numerics.init_share import InitShare, init_shares
from bncheck.repair.statistics import NewStatistics, Refused, Replacement, debiased, with_predicted_mean
from bncheck.settings.options import Options

_SHOWN = 3


def undo(facts: Facts, options: Options) -> Replacement:
    """The init share undone in every layer that has one. Raises UsageError unless that is possible for all of them."""
    layers = facts.layers if options.decay is None else tuple(_told(layer, options.decay) for layer in facts.layers)
    known = {seen.layer.name: seen for seen in init_shares(layers, facts.run.updates)}
    new: list[NewStatistics] = []
    left: list[LayerLeft] = []
    refused: list[Refused] = []
    for layer in layers:
        reason = _nothing_to_do(layer)
        if reason:
            left.append(LayerLeft(layer=layer.name, reason=reason))
            continue
        try:
            found = debiased(layer, steps=facts.run.updates)
            if found is None:
                left.append(LayerLeft(layer=layer.name, reason="nothing of the initial value is left"))
                continue
            if options.steps is None:
                _check_count(layer, facts.run, known.get(layer.name))
            new.append(with_predicted_mean(layer, found))
        except Refused as error:
            refused.append(error)
    if refused:
        raise UsageError(_refusal(facts, refused))
    if not new:
        reasons = sorted({item.reason for item in left})
        raise UsageError(f"{facts.path}: there is nothing to debias: {'; '.join(reasons)}")
    return Replacement(new=tuple(new), left=tuple(left))


def _told(layer: Layer, decay: float) -> Layer:
    """The layer with the decay that the user gives."""
    return replace(layer, decay=decay, decay_from=DecaySource.OPTION)


def _nothing_to_do(layer: Layer) -> str:
    if all(vector.presence is Presence.ABSENT for vector in layer.statistics):
        return "it has no statistics"
    if layer.moved is False and layer.affine_moved is False:
        return "it was never trained: its statistics, gamma and beta never moved"
    return ""


def _check_count(layer: Layer, run: RunFacts, seen: InitShare | None) -> None:
    """Raises Refused where the values, or the graph, speak against the count of updates that the files give."""
    if layer.updates and not any(update.train_ops for update in layer.updates):
        reason = "no train op runs its updates, so the number of updates is unknown: give --steps"
        raise Refused(layer.name, reason)
    if seen is None:
        raise Refused(
            layer.name,
            f"a stored variance is smaller than {run.updates:,} updates could leave of its initial value: there were "
            "more, so give --steps",
        )
    if not seen.close or seen.doubtful:
        raise Refused(
            layer.name,
            f"no stored variance is near the {seen.share:.3g} that {run.updates:,} updates leave of the initial value, "
            "as if the counter was reset or training started from other statistics: give --steps if it is "
            "right",
        )


def _refusal(facts: Facts, refused: Sequence[Refused]) -> str:
    """One sentence for all layers that stand in the way; the reasons of the first few, those that differ."""
    reasons: dict[str, list[str]] = {}
    for error in refused:
        reasons.setdefault(error.reason, []).append(error.layer)
    shown = [
        f"{layers[0]}{f' and {len(layers) - 1} more' if len(layers) > 1 else ''}: {reason}"
        for reason, layers in list(reasons.items())[:_SHOWN]
    ]
    more = f"; and {len(reasons) - _SHOWN} other reasons" if len(reasons) > _SHOWN else ""
    return (
        f"{facts.path}: cannot be debiased in {len(refused)} of {len(facts.layers)} layers; {'; '.join(shown)}{more}. "
        "--data re-estimates all of them"
    )
