"""Names, counts and shares as sentences write them."""

from __future__ import annotations

from bncheck.facts.wording import listing, many, percent


def test_words() -> None:
    """Lists are cut after three names, counts agree with their nouns, small shares keep two digits."""
    assert listing(["a", "b", "c"]) == "a, b, c"
    assert listing(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert (many(1, "layer"), many(2000, "layer")) == ("1 layer", "2,000 layers")
    assert (percent(0.0), percent(0.000061), percent(1.0)) == ("0.0 %", "0.0061 %", "100.0 %")
