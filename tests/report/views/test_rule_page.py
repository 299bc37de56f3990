"""Where the pages of the rules are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

import pytest

from bncheck.report.views.rule_page import VARIABLE, page_address, rule_url
from bncheck.version import Home


def _public(monkeypatch: pytest.MonkeyPatch, copy: Home | None) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("bncheck.report.views.rule_page.home", lambda: copy)


def test_no_address_where_nothing_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that nobody published has no pages on the web, so that none is linked."""
    _public(monkeypatch, None)
    assert rule_url("BN201") is None


def test_of_the_copy_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page at the revision that judged."""
    _public(monkeypatch, Home("https://github.com/me/bncheck", "abc123"))
    assert rule_url("BN201") == "https://github.com/me/bncheck/blob/abc123/docs/rules/BN201.md"


def test_another_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment gives the address of a published copy; what is no address is not taken."""
    _public(monkeypatch, None)
    monkeypatch.setenv(VARIABLE, "https://docs.example/{code}.html")
    assert rule_url("BN201") == "https://docs.example/BN201.html"
    monkeypatch.setenv(VARIABLE, "docs/{code}")
    assert rule_url("BN201") is None


def test_in_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own file, for readers on this machine; none for a code that has no page."""
    _public(monkeypatch, None)
    page = Path(urlparse(page_address("BN201") or "").path)
    assert (page.name, page.is_file()) == ("BN201.md", True)
    assert page_address("BN999") is None
    monkeypatch.setenv(VARIABLE, "https://docs.example/{code}.html")
    assert page_address("BN201") == "https://docs.example/BN201.html"
