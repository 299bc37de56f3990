"""BN302: which layer is said to go wrong, and of how many."""

from __future__ import annotations

from bncheck.facts.findings import Evidence
from bncheck.facts.layers import Facts
from bncheck.rules.modes.bn302_layer_diverges import check
from bncheck.testing import compared, difference


def message(model: Facts) -> str:
    """What the rule says."""
    found: list[Evidence] = list(check.check(model))
    return found[0].message


def test_a_layer_in_two_places_is_one() -> None:
    """Sites of a shared layer are told apart in the table, and counted once."""
    shared = compared(difference("a", local=0.3), difference("a", local=0.2), difference("b"))
    assert message(shared).startswith("a is the only layer that diverges by itself")
    both = compared(difference("a", local=0.3), difference("b", local=0.3), difference("a", local=0.2))
    assert message(both).startswith("a is the first of 2 layers that diverge")
    assert message(compared(difference("a", local=0.3), difference("a"))).startswith("a is where the modes diverge")


def test_an_only_layer_adds_up_with_nothing() -> None:
    """Junk behind one layer that loses little is that layer's; behind several, small losses add up."""
    one = compared(difference("a", local=0.009), accuracy=(0.85, 0.55))
    assert message(one).startswith("In a, the only layer, the output is off by 0.9 %")
    several = compared(difference("a", local=0.009), difference("b", local=0.008), accuracy=(0.85, 0.55))
    assert message(several).startswith("No layer diverges by itself: small errors of 2 layers add up, most in a")


def test_errors_far_beyond_the_signal_are_told_as_multiples() -> None:
    """41,745,073,517.0 % is no number for people."""
    several = difference("b")
    assert "off by 425.0 % (batch noise alone: 0.07 %)" in message(compared(difference("a", local=4.25), several))
    huge = message(compared(difference("a", local=4e8), several))
    assert "off by more than a million times its energy" in huge
