"""The address of a rule's page, for whatever links to it: SARIF's `helpUri`, the HTML report."""

from __future__ import annotations

import os

from bncheck.version import home

VARIABLE = "BNCHECK_RULE_PAGES"
"""Environment variable with the address of a published copy, `{code}` in the place of the code."""


def rule_url(code: str) -> str | None:
    """The address of a rule's page: that of the environment, where it gives one, else in the public repository.

    None where there is neither: reports then carry the page themselves, and `bncheck explain` prints it.
    """
    given = os.environ.get(VARIABLE, "")
    if given.startswith(("https://", "http://")):
        return given.replace("{code}", code)
    public = home()
    return None if public is None else f"{public.address}/blob/{public.revision}/docs/rules/{code}.md"
