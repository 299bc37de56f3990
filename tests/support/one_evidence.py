"""What most tests of rules look at: the one thing that a rule says of a model."""

from __future__ import annotations

from bncheck.facts.findings import Evidence
from bncheck.facts.layers import Facts
from bncheck.rules.rule import Rule


def only(rule: Rule, model: Facts) -> Evidence:
    """The one piece of evidence that the rule yields."""
    (evidence,) = rule.check(model)
    return evidence
