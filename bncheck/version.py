"""The version of the package and its home, the only place where they stand."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

__version__ = "0.1.0"
HOME = ""
"""Address of the public repository; empty until there is one, since no address is better than a dead one."""


class Home(NamedTuple):
    """A public copy of the repository."""

    address: str
    revision: str


@cache
def home() -> Home | None:
    """Where this copy of bncheck is public: GitHub or GitLab, if pip installed it from there; else `HOME`, if any.

    pip notes that in `direct_url.json` (PEP 610). Of other hosts the addresses of pages are unknown.
    """
    import json  # noqa: PLC0415 - start-up
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415 - start-up

    try:
        note = json.loads(distribution("bncheck").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        note = {}
    if note.get("url", "").startswith(("https://github.", "https://gitlab.")) and "vcs_info" in note:
        return Home(note["url"].removesuffix(".git"), note["vcs_info"]["commit_id"])
    return Home(HOME, "main") if HOME else None
