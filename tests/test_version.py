"""Where this copy of bncheck is public."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from bncheck import version
from bncheck.version import Home, home

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("note", "found"),
    [
        (
            {"url": "https://github.com/me/bncheck.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            Home("https://github.com/me/bncheck", "abc"),
        ),
        (
            {"url": "https://gitlab.example/me/bncheck", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            Home("https://gitlab.example/me/bncheck", "abc"),
        ),
        ({"url": "https://git.example/me/bncheck", "vcs_info": {"vcs": "git", "commit_id": "abc"}}, None),
        ({"url": "https://github.com/me/bncheck/archive/main.zip", "archive_info": {}}, None),
        ({"url": "file:///home/me/bncheck", "dir_info": {"editable": True}}, None),
        (None, None),
    ],
)
def test_home_is_where_pip_installed_from(note: object, found: Home | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public repository on a host whose pages have known addresses; a folder, an archive or a wheel tells none."""
    text = None if note is None else json.dumps(note)
    installed = SimpleNamespace(read_text=lambda _: text)
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: installed)
    assert home.__wrapped__() == found


def test_the_package_names_no_address_that_is_dead() -> None:
    """Its metadata has addresses if and only if there is a public home, and they are below it."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    start = next((n for n, line in enumerate(lines) if line == "[project.urls]"), None)
    urls = [] if start is None else [line.partition('= "')[2].strip('"') for line in lines[start + 1 : start + 5]]
    assert bool(urls) == bool(version.HOME)
    assert all(url.startswith(version.HOME) for url in urls)
