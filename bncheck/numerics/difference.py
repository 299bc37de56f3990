"""Two models layer by layer: whose statistics differ, by how much, and what that makes of the fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from bncheck.facts.findings import ExitCode, Finding, Report, Verdict
from bncheck.facts.layers import Layer, PerChannel, Vector
from bncheck.facts.lite import FoldedOperator
from bncheck.facts.record import Record
from bncheck.numerics.fold import folded, gamma_and_beta

_Part = TypeVar("_Part")
_Told = TypeVar("_Told")
VECTORS = ("mean", "variance", "gamma", "beta")


class ComparedLayer(Record):
    """One layer that both models have."""

    layer: str
    """As the new model calls it."""
    old_layer: str
    channels: tuple[int | None, int | None]
    """Of the old and of the new model, as all pairs here."""
    epsilon: tuple[float | None, float | None]
    decay: tuple[float | None, float | None]
    changed: tuple[str, ...]
    """Vectors ("mean", "variance", "gamma", "beta") of which at least one value differs, or that one model lacks."""
    unread: tuple[str, ...] = ()
    """Vectors of which it is not known."""
    mean_shift: float | None = None
    """Root mean square over the channels of the mean's change, in standard deviations of the old statistics."""
    variance_ratio: float | None = None
    """Geometric mean over the channels of (new variance + epsilon) / (old variance + epsilon)."""
    fold_error: float | None = None
    """NMSE of the old multiplication and addition against the new ones; see `fold_error`."""


class ComparedOperator(Record):
    """One operator that two TFLite files have."""

    operator: str
    old_operator: str
    kernel_change: float | None
    """Squared change of the largest weight of each output channel, over the sum of the squares of the new ones; None
    where they are unread, or of another number."""


class Matched(Record, Generic[_Told]):
    """What two models have in common, matched by name."""

    both: tuple[_Told, ...] = ()
    """In the order of the new model."""
    only_old: tuple[str, ...] = ()
    only_new: tuple[str, ...] = ()
    by_position: bool = False
    """Matched by their places, as no name is in both and all are alike."""


class Difference(Record, eq=False):
    """What a new model has that an old one had not, and the other way round."""

    old: Report
    new: Report
    verdict: Verdict
    """Of the new model, with what the old one had taken for accepted."""
    exit_code: ExitCode
    appeared: tuple[Finding, ...]
    """Findings, or layers of findings, of the new model alone: new, or more severe."""
    same: tuple[Finding, ...]
    disappeared: tuple[Finding, ...]
    layers: Matched[ComparedLayer]
    operators: Matched[ComparedOperator]
    """Of two TFLite files, which have no layers."""

    def __repr__(self) -> str:
        """One line."""
        paths = f"{self.old.target.path!r} -> {self.new.target.path!r}"
        changed = sum(1 for layer in self.layers.both if layer.changed)
        found = f"{len(self.appeared)} appeared, {len(self.disappeared)} disappeared"
        told = f"{changed} of {len(self.layers.both)} layers differ, findings: {found}"
        return f"<Difference {self.verdict.value}: {paths}, {told}>"

    def to_json(self) -> str:
        """The difference as JSON, version 1 (its schema: `bncheck/report/json_v1.schema.json`)."""
        from bncheck.report.wire.difference import dumps  # noqa: PLC0415 - as `Report.to_json`

        return dumps(self)


def matched_layers(old: Sequence[Layer], new: Sequence[Layer]) -> Matched[ComparedLayer]:
    """Layers by name; where no name is in both, and both have the same channels in the same order, by position."""
    return _matched(old, new, _difference, name=lambda layer: layer.name, alike=lambda layer: layer.channels)


def matched_operators(old: Sequence[FoldedOperator], new: Sequence[FoldedOperator]) -> Matched[ComparedOperator]:
    """The same of the operators of two TFLite files; by position where they are of the same kinds and channels."""
    return _matched(
        old, new, _kernel_difference, name=lambda part: part.name, alike=lambda part: (part.kind, part.channels)
    )


def fold_error(old: Layer, new: Layer) -> float | None:
    """NMSE that the new layer would have with the old one's statistics, gamma, beta and epsilon.

    Batch norm is `s x + t`, s = gamma / sqrt(variance + epsilon), t = beta - mean s. With inputs of the new statistics,
    x of mean m and variance v, the squared error of a channel is `((s' - s) m + t' - t)^2 + (s' - s)^2 v`, the signal
    `(s m + t)^2 + s^2 v`; both are summed over the channels. None where a part is unread or of another shape.
    """
    before, after = _fold_parts(old), _fold_parts(new)
    mean, variance = new.mean.values, new.variance.values
    if before is None or after is None or mean is None or variance is None:
        return None
    (old_scale, old_addend), (scale, addend) = before, after
    if not old_scale.shape == scale.shape == mean.shape == variance.shape or not scale.size:
        return None
    with np.errstate(all="ignore"):
        wrong = old_scale - scale
        error = (wrong * mean + old_addend - addend) ** 2 + wrong**2 * variance
        signal = (scale * mean + addend) ** 2 + scale**2 * variance
        if not error.any():
            return 0.0
        return float(error.sum() / signal.sum())


def _fold_parts(layer: Layer) -> tuple[PerChannel, PerChannel] | None:
    mean, variance = layer.mean.values, layer.variance.values
    if mean is None or variance is None or layer.epsilon is None or mean.shape != variance.shape:
        return None
    gamma, beta = gamma_and_beta(layer.gamma.values, layer.beta.values, variance)
    if not gamma.shape == beta.shape == mean.shape:
        return None
    return folded(gamma, beta, mean, variance, layer.epsilon)


def _matched(
    old: Sequence[_Part],
    new: Sequence[_Part],
    told: Callable[[_Part, _Part], _Told],
    *,
    name: Callable[[_Part], str],
    alike: Callable[[_Part], Any],
) -> Matched[_Told]:
    of_old = {name(part): part for part in old}
    of_new = {name(part): part for part in new}
    if of_old.keys().isdisjoint(of_new) and [*map(alike, old)] == [*map(alike, new)]:
        return Matched(both=tuple(map(told, old, new)), by_position=bool(old))
    return Matched(
        both=tuple(told(of_old[known], part) for known, part in of_new.items() if known in of_old),
        only_old=tuple(known for known in of_old if known not in of_new),
        only_new=tuple(known for known in of_new if known not in of_old),
    )


def _difference(old: Layer, new: Layer) -> ComparedLayer:
    told = [(role, _differ(getattr(old, role), getattr(new, role))) for role in VECTORS]
    return ComparedLayer(
        layer=new.name,
        old_layer=old.name,
        channels=(old.channels, new.channels),
        epsilon=(old.epsilon, new.epsilon),
        decay=(old.decay, new.decay),
        changed=tuple(role for role, differ in told if differ),
        unread=tuple(role for role, differ in told if differ is None),
        mean_shift=_mean_shift(old, new),
        variance_ratio=_variance_ratio(old, new),
        fold_error=fold_error(old, new),
    )


def _differ(old: Vector, new: Vector) -> bool | None:
    """Whether two vectors hold other values; None where that is not known."""
    if old.values is not None and new.values is not None:
        return not np.array_equal(old.values, new.values, equal_nan=True)
    if old.presence is not new.presence:
        # read in one, merely unread in the other: the checksum of an index may still tell
        return None if "unread" in (old.presence.value, new.presence.value) else True
    if old.constant is not None and new.constant is not None:
        return old.constant != new.constant
    return False if old.presence.value == "absent" else None


def _both(old: Layer, new: Layer) -> tuple[PerChannel, ...] | None:
    """(old mean, new mean, old variance + epsilon, new variance + epsilon); None where one is unread or not alike."""
    vectors = (old.mean.values, new.mean.values, old.variance.values, new.variance.values)
    known = [vector for vector in vectors if vector is not None and vector.size]
    if len(known) < len(vectors) or len({vector.shape for vector in known}) != 1:
        return None
    return known[0], known[1], known[2] + (old.epsilon or 0.0), known[3] + (new.epsilon or 0.0)


def _mean_shift(old: Layer, new: Layer) -> float | None:
    found = _both(old, new)
    if found is None:
        return None
    before, after, variance, _ = found
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.mean((after - before) ** 2 / variance)))


def _variance_ratio(old: Layer, new: Layer) -> float | None:
    found = _both(old, new)
    if found is None:
        return None
    with np.errstate(all="ignore"):
        return float(np.exp(np.mean(np.log(found[3] / found[2]))))


def _kernel_difference(old: FoldedOperator, new: FoldedOperator) -> ComparedOperator:
    return ComparedOperator(
        operator=new.name, old_operator=old.name, kernel_change=_kernel_change(old.channel_max, new.channel_max)
    )


def _kernel_change(old: PerChannel | None, new: PerChannel | None) -> float | None:
    if old is None or new is None or old.shape != new.shape or not new.size:
        return None
    with np.errstate(all="ignore"):
        return 0.0 if np.array_equal(old, new) else float(((old - new) ** 2).sum() / (new**2).sum())
