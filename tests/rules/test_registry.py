"""Looking rules up without importing them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bncheck.rules import RULES
from bncheck.rules.registry import Registry
from bncheck.rules.rule import Needs, Rule


def test_codes_and_names_are_those_of_the_rules() -> None:
    """What a file's name tells is what its rule declares."""
    assert RULES.slugs == {rule.code: rule.slug for rule in RULES}
    assert RULES.codes == tuple(rule.code for rule in RULES)
    assert len(RULES) == len(RULES.codes)


MEASURED = [rule for rule in RULES if rule.code.startswith(("BN3", "BN4", "BN5"))]


@pytest.mark.parametrize("rule", MEASURED, ids=lambda rule: rule.code)
def test_what_keeps_a_rule_unread_it_needs(rule: Rule) -> None:
    """What the registry repeats is true: without it the rule would not run, and what it lacks is told rightly."""
    told = RULES.lacking(rule.code, Needs.NOTHING)
    assert told & rule.needs == told
    assert rule.code == "BN408" or told == rule.needs


def test_a_rule_is_imported_where_it_is_needed() -> None:
    """Neither for codes and names nor for what its whole folder lacks; one that is asked for comes alone."""
    code = (
        "import sys\nfrom bncheck.rules import RULES\nfrom bncheck.rules.rule import Needs\n"
        "assert RULES.lacking('BN301', Needs.VALUES) is Needs.COMPARISON\nassert len(RULES.codes) > 50\n"
        "RULES.rule('BN201')\n"
        "print(*(m.rpartition('.')[2] for m in sys.modules if m.rpartition('.')[2].startswith('bn')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["bncheck", "bn201_update_not_wired"]


def test_unknown_codes() -> None:
    """There is no rule for a code that is not listed."""
    with pytest.raises(KeyError):
        RULES.rule("BN999")


def test_rules_may_be_given_themselves() -> None:
    """Where a test or a program has rules of its own."""
    rule = RULES.rule("BN105")
    own = Registry((rule,))
    assert list(own) == [rule]
    assert rule in own
    assert RULES.rule("BN106") not in own
    assert own.slugs == {"BN105": "non-finite"}
    assert own.lacking("BN105", Needs.VALUES) is Needs.NOTHING
    assert own.lacking("BN105", Needs.GRAPH) is Needs.VALUES
