"""How much of the stored statistics is still their initial value, and what that does to a layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from bncheck.facts.layers import DecaySource, Layer, Origin, PerChannel, Role, Update, Vector
from bncheck.facts.record import Record
from bncheck.numerics.channels import finite, median, values_of
from bncheck.numerics.side_by_side import SideBySide

HARMLESS = 0.01
"""Init share below which it no longer matters; a guess, though 0.1 % in each of 52 layers already cost 6 points
(BN103)."""
CONTRADICTION = 1e-3
"""Relative error of float32 averages, far exceeded by values that the counted share rules out."""
SLACK = 3
"""Updates by which a counter may lag, a guess: a channel constant from the start lies exactly at the share of the true
count."""
USUAL_EPSILON = 1e-3
"""TF-slim's, tf.layers' and Keras's default, for layers of a bare checkpoint; the largest that PyTorch's models use."""
TINY = float(np.finfo(np.float64).tiny)
"""Smallest divisor, so that a variance of 0 gives a part of 1 and no warning."""
CLOSE = 2.0
"""A share is seen in the values where the smallest variance lies within this factor of it; a guess."""
PLAUSIBLE = 50.0
"""What a layer normalises has a variance of this order at most, but for raw pixels; a guess. Stored variances that
would need more, for all that a counted share leaves room for, were trained for longer than the counter says."""

DEFAULTS = frozenset({DecaySource.PYTORCH_DEFAULT, DecaySource.FLAX_DEFAULT})
"""Sources of a decay that is only assumed: the file holds none."""


def epsilon_of(layer: Layer) -> float:
    """The layer's own, else its framework's default."""
    if layer.epsilon is not None:
        return layer.epsilon
    return USUAL_EPSILON if layer.default_epsilon is None else layer.default_epsilon


def updates_a_step(layer: Layer, role: Role = Role.VARIANCE) -> int:
    """How many updates of a statistic one step runs: the most that any one train op reaches, at least 1.

    Keras updates a layer wherever it is called.
    """
    return max(len(layer.sites), 1) if layer.origin is Origin.CONFIG else _of_updates(layer.updates, role).a_step


def decay_of(layer: Layer, role: Role) -> float | None:
    """Decay of one statistic: its own where the graph gives each one its own, else the layer's; None unknown."""
    if layer.decay is None or layer.decay_from is not DecaySource.GRAPH:
        return layer.decay
    own = _of_updates(layer.updates, role).decay
    return layer.decay if own is None else own


class _Updates(NamedTuple):
    """What a layer's updates of one statistic tell, in all checkpoints of a graph."""

    a_step: int
    decay: float | None
    rises: bool


@lru_cache(maxsize=1024)
def _of_updates(updates: tuple[Update, ...], role: Role) -> _Updates:
    own = [update for update in updates if update.role is role]
    by_train_op = Counter(op for update in own for op in update.train_ops)
    return _Updates(
        a_step=max(by_train_op.values(), default=1),
        decay=next((update.decay for update in own if update.decay is not None), None),
        rises=any(update.decay_rises for update in own),
    )


def init_share(layer: Layer, updates: int | None, role: Role = Role.VARIANCE) -> float | None:
    """decay**n: the weight that a statistic's initial value still has after n updates, 0 to 1; None where unknown.

    `updates` counts runs of the train op, each of which may update the layer several times; a layer's own counter takes
    precedence. Source: METRICS, "init
    share". 0 where the statistic is zero-debiased, for then nothing of it is left; unknown where the decay rises over
    the run, as `ExponentialMovingAverage(decay, num_updates)` does it. By the counters alone, also where the values
    never moved: `init_shares` leaves out what values rule out.
    """
    if layer.debias is not None and (layer.debias.mean if role is Role.MEAN else layer.debias.variance):
        return 0.0
    if layer.decay_from is not DecaySource.OPTION and _of_updates(layer.updates, role).rises:
        return None
    decay, count = decay_of(layer, role), updates_of(layer, updates, role)
    if decay is None or count is None or not 0 <= decay <= 1 or count <= 0:
        return None
    return float(decay**count)


def updates_of(layer: Layer, steps: int | None, role: Role = Role.VARIANCE) -> int | None:
    """How often a statistic was updated: by the layer's own counter, else in so many steps; None unknown."""
    if layer.counted is not None:
        return layer.counted
    return None if steps is None else steps * updates_a_step(layer, role)


def share_bound(layers: Iterable[Layer]) -> float | None:
    """Upper bound of the init share that these layers have in common: no batch variance is negative, so what is stored
    is at least the share times the initial value. The smallest of stored / initial over all channels; None if unread.
    """
    bounds = [
        lowest / layer.variance.starts_at
        for layer in layers
        if layer.variance.starts_at > 0 and (lowest := _lowest(layer.variance)) is not None
    ]
    return max(0.0, min(bounds)) if bounds else None


def _lowest(variance: Vector) -> float | None:
    """The lowest finite value; None where there is none."""
    if variance.bounds is None or all(map(math.isfinite, variance.bounds)):
        return None if variance.bounds is None else variance.bounds[0]
    known = finite(np.asarray(variance.values))
    return float(known.min()) if known.size else None


class InitShare(Record, eq=False):
    """A layer's init share and what it does there; all but the share is None where the values were not read."""

    layer: Layer
    share: float
    close: bool = True
    """Whether the smallest variance of all layers lies near the share, as it does early in a run."""
    doubtful: bool = False
    """Whether only implausible batch variances explain what is stored, if so much of it is initial value."""

    @cached_property
    def effect(self) -> float | None:
        """Median over channels of share * initial / (stored + epsilon): what the layer divides too much by. Where the
        variance starts at 0, as averages of tensors do, the share itself: it is stored too small by that much.
        """
        if self._read is None or self._left == 0.0:
            return None if self._read is None else self.share if self.layer.variance.starts_at == 0 else 0.0
        return min(median(self._left / np.maximum(np.maximum(self._read, 0.0) + epsilon_of(self.layer), TINY)), 1.0)

    @cached_property
    def parts(self) -> PerChannel | None:
        """Per channel the init contribution, share * initial / stored (METRICS), 0 to 1; NaN where the variance is."""
        values = values_of(self.layer.variance)
        if self._read is None or values is None:
            return None
        if self.layer.variance.starts_at == 0:
            return np.where(np.isfinite(values), self.share, np.nan)
        return np.where(np.isfinite(values), np.minimum(self._left / np.maximum(values, TINY), 1.0), np.nan)

    @cached_property
    def median(self) -> float | None:
        """Median of the parts."""
        return None if self.parts is None else median(finite(self.parts))

    @cached_property
    def worst(self) -> float | None:
        """The largest of the parts."""
        return None if self.parts is None else float(finite(self.parts).max())

    @property
    def _left(self) -> float:
        return self.share * max(self.layer.variance.starts_at, 0.0)

    @cached_property
    def _read(self) -> PerChannel | None:
        """The finite variances; None where there is none."""
        values = values_of(self.layer.variance)
        return None if values is None or not (read := finite(values)).size else read


def effects(shares: Sequence[InitShare]) -> list[float | None]:
    """`InitShare.effect` of each layer, all of them at once."""
    plain = [
        one
        for one in shares
        if one.layer.variance.bounds is not None
        and all(map(math.isfinite, one.layer.variance.bounds))
        and one._left != 0.0
    ]
    if plain:
        variances = [np.asarray(one.layer.variance.values).reshape(-1) for one in plain]
        side = SideBySide([variance.size for variance in variances])
        left = side.spread(one._left for one in plain)
        epsilon = side.spread(epsilon_of(one.layer) for one in plain)
        parts = left / np.maximum(np.maximum(np.concatenate(variances), 0.0) + epsilon, TINY)
        for one, middle in zip(plain, side.medians(parts).tolist(), strict=True):
            one.__dict__["effect"] = min(middle, 1.0)  # as the cached property would find them, one by one
    return [one.effect for one in shares]


def init_shares(layers: Sequence[Layer], updates: int | None) -> list[InitShare]:
    """Of the layers whose share is known by the counters and not ruled out by the values of the layers it holds for.

    In their order; `updates` as in `init_share`. Kept for the next that asks for those of the same layers.
    """
    return list(_init_shares(tuple(layers), updates))


@lru_cache(maxsize=1)
def _init_shares(layers: tuple[Layer, ...], updates: int | None) -> tuple[InitShare, ...]:
    counted = [(layer, share) for layer in layers if (share := init_share(layer, updates)) is not None]
    groups: dict[float, list[Layer]] = {}
    for layer, share in counted:
        groups.setdefault(share, []).append(layer)
    bounds = {share: share_bound(group) for share, group in groups.items()}
    doubtful = {share for share, group in groups.items() if _is_implausible(group, share)}
    return tuple(
        InitShare(
            layer=layer,
            share=share,
            close=(bound := bounds[share]) is None or bound <= CLOSE * share,
            doubtful=share in doubtful,
        )
        for layer, share in counted
        if not _ruled_out(layer, share, bounds[share])
    )


def _is_implausible(layers: Sequence[Layer], share: float) -> bool:
    """Whether only batch variances above what is plausible explain what is stored, were so much of it initial value."""
    highest = [math.nan if layer.variance.bounds is None else layer.variance.bounds[1] for layer in layers]
    if share < 1 and all(high <= PLAUSIBLE * (1 - share) for high in highest):
        return False
    return (implied_variance(layers, share) or 0.0) > PLAUSIBLE


def implied_variance(layers: Iterable[Layer], share: float) -> float | None:
    """Median of what batch variances must have been if `share` of what is stored is initial value; None if unread."""
    known = [
        (finite(values) - share * layer.variance.starts_at) / (1 - share)
        for layer in layers
        if share < 1 and layer.variance.starts_at > 0 and (values := values_of(layer.variance)) is not None
    ]
    every = np.concatenate(known) if known else np.empty(0)
    return median(every) if every.size else None


def _ruled_out(layer: Layer, share: float, bound: float | None) -> bool:
    """Whether some variance is too small for the share: more updates went in than were counted."""
    return bound is not None and bound < share * (decay_of(layer, Role.VARIANCE) or 0.0) ** SLACK * (1 - CONTRADICTION)


def shrink(effects: Iterable[float]) -> float:
    """By what factor layers in a row shrink a signal together, each dividing by 1 / sqrt(1 - effect) too much."""
    return math.exp(sum(-0.5 * math.log1p(-min(effect, 0.9999)) for effect in effects))
