"""The averaged weights of a checkpoint as a target of their own, beside the raw ones."""

from __future__ import annotations

from dataclasses import replace

from bncheck.commands.target import Target
from bncheck.facts.errors import UsageError
from bncheck.facts.wording import listing, many
from bncheck.recognise.averaged_weights import sharing_statistics, with_averages


def averages_of(target: Target) -> Target | None:
    """The model that the averages make; None without any."""
    raw = with_averages(target.raw)
    return None if raw is None else replace(target, raw=raw, options=replace(target.options, weights="ema"))


def both_or_refused(target: Target) -> Target | None:
    """As `averages_of`. Raises UsageError where both copies share statistics, which can belong to one of them only."""
    averaged = averages_of(target)
    shared = () if averaged is None else sharing_statistics(averaged.facts.layers)
    if shared:
        raise UsageError(
            f"{target.path} holds raw weights and averages of them, with one set of statistics for both in "
            f"{many(len(shared), 'layer')} ({listing(shared)}): choose the one that is served with --weights raw or "
            "--weights ema"
        )
    return averaged
