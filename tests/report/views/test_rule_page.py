"""Where the pages of the rules are."""

from __future__ import annotations

from pathlib import Path

import pytest

from bncheck.report.views.rule_page import VARIABLE, rule_url
from bncheck.version import HOME

ROOT = Path(__file__).parents[3]


def test_every_address_is_of_the_one_home() -> None:
    """Metadata of the package and addresses of pages agree, and the page lies where its address says."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.urls]")[2].partition("\n\n")[0]
    urls = [line.partition(" = ")[2].strip('"') for line in lines.splitlines() if " = " in line]
    assert len(urls) == 4
    assert all(url == HOME or url.startswith(f"{HOME}/") for url in urls)
    url = rule_url("BN201")
    assert url.startswith(f"{HOME}/blob/main/")
    assert (ROOT / url.removeprefix(f"{HOME}/blob/main/")).is_file()


def test_another_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment gives the address of a published copy; what is no address is not taken."""
    monkeypatch.setenv(VARIABLE, "https://docs.example/{code}.html")
    assert rule_url("BN201") == "https://docs.example/BN201.html"
    monkeypatch.setenv(VARIABLE, "docs/{code}")
    assert rule_url("BN201").startswith(HOME)
