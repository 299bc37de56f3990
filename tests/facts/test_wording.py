"""Names, counts and shares as sentences write them."""

from __future__ import annotations

from bncheck.facts.wording import about_time, listing, many, many_are, percent


def test_words() -> None:
    """Lists are cut after three names, counts agree with their nouns, small shares keep two digits."""
    assert listing(["a", "b", "c"]) == "a, b, c"
    assert listing(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert (many(1, "layer"), many(2000, "layer")) == ("1 layer", "2,000 layers")
    assert (percent(0.0), percent(0.000061), percent(1.0)) == ("0.0 %", "0.0061 %", "100.0 %")


def test_verbs_agree_with_their_counts() -> None:
    """One is, several are."""
    assert (many_are(1, "sample"), many_are(31, "sample")) == ("1 sample is", "31 samples are")


def test_time_in_round_numbers() -> None:
    """As people say it; never 0."""
    assert [about_time(seconds) for seconds in (0.2, 40, 534, 9000)] == [
        "about 1 s",
        "about 40 s",
        "about 9 min",
        "about 2.5 h",
    ]
