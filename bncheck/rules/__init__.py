"""The registry of rules, in code order, and nothing else. A rule that is not listed here does not exist."""

from __future__ import annotations

from bncheck.rules import bn101_never_moved, bn405_bias_saturated, bn406_not_folded
from bncheck.rules._rule import Rule

RULES: tuple[Rule, ...] = (
    bn101_never_moved.check,
    bn405_bias_saturated.check,
    bn406_not_folded.check,
)
