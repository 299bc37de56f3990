"""What most tests of rules look at: what a rule says of a model, and how severe it is."""

from __future__ import annotations

from bncheck.facts.findings import Evidence, Severity
from bncheck.facts.layers import Facts
from bncheck.rules.rule import Rule


def only(rule: Rule, model: Facts) -> Evidence:
    """The one piece of evidence that the rule yields."""
    (evidence,) = rule.check(model)
    return evidence


def severities(rule: Rule, model: Facts) -> list[Severity]:
    """Severity of each, the rule's own where it has none."""
    return [evidence.severity or rule.severity for evidence in rule.check(model)]
