"""Escapes, one format at a time: nothing hostile through, nothing ordinary changed."""

from __future__ import annotations

import re
import unicodedata

import pytest

from bncheck.report import escape

ORDINARY = "MobilenetV2/expanded_conv_3/depthwise/BatchNorm/moving_mean:0"


def test_ordinary_names_are_left_alone() -> None:
    """A usual layer name is shown as it is, other scripts and emoji with it."""
    for name in (ORDINARY, "层/bn", "été", "a b", "🙂"):
        assert escape.visible(name) == name


def test_all_controls_are_spelled_out() -> None:
    """Every character of Unicode's control, format, surrogate and line separator classes is made visible."""
    directions = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    harmful = [
        character
        for character in map(chr, range(0x10000))
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in directions
    ]
    assert len(harmful) > 2048
    assert [c for c in harmful if not re.fullmatch(r"\\[a-zA-Z0-9]+", escape.visible(c))] == []


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("a · b", "utf-8", "a · b"),
        ("a · b", "ascii", "a - b"),
        ("层", "latin-1", "\\u5c42"),
        ("é · x", "latin-1", "é · x"),
        ("a … b", None, "a … b"),
        ("a … b", "no-such-encoding", "a ... b"),
    ],
)
def test_encodable(text: str, encoding: str | None, shown: str) -> None:
    """Only what the encoding lacks is replaced."""
    assert escape.encodable(text, encoding) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a%0Ab"),
        ("100%", "100%25"),
        ("%0A::error::x", "%250A::error::x"),
        ("\r", r"\r"),
    ],
)
def test_github_data(text: str, shown: str) -> None:
    """Percent signs first, line ends encoded, other controls spelled out."""
    assert escape.github_data(text) == shown


def test_github_property() -> None:
    """A property cannot end early."""
    assert escape.github_property("a,b:c::d\n%") == "a%2Cb%3Ac%3A%3Ad\\n%25"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "`plain`"),
        ("a`b", "``a`b``"),
        ("`a`", "`` `a` ``"),
        ("a|b", "<code>a\\|b</code>"),
        ("", "`  `"),
    ],
)
def test_markdown_code(text: str, shown: str) -> None:
    """A code span is fenced by more ticks than it holds; pipes would split a table cell."""
    assert escape.markdown_code(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run by `Adam` only_", "run by `Adam` only\\_"),
        ("odd ` tick *", "odd \\` tick \\*"),
        ("`a|b`", "<code>a\\|b</code>"),
        ("``", ""),
    ],
)
def test_markdown_prose(text: str, shown: str) -> None:
    """Code in a rule's sentence stays code; an odd tick is only a tick."""
    assert escape.markdown_prose(text) == shown


def test_markdown_links_nothing() -> None:
    """Addresses, mentions and issue numbers of a name do not become links."""
    shown = escape.markdown("https://x.y www.z.z @me #12 <b>")
    assert shown == "https:&#47;&#47;x.y www&#46;z.z &#64;me \\#12 &lt;b&gt;"


def test_uri_path() -> None:
    """Paths are percent-encoded; a name that is no UTF-8 keeps its bytes."""
    assert escape.uri_path("a b/#?%.pb") == "a%20b/%23%3F%25.pb"
    assert escape.uri_path("\udcff") == "%FF"
