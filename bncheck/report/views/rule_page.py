"""The address of a rule's page, for whatever links to it: SARIF's `helpUri`, the HTML report."""

from __future__ import annotations

import os
from pathlib import Path

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


def page_address(code: str) -> str | None:
    """As `rule_url`; where that is None, of the page's file in the checkout that bncheck is installed from, if in one.

    For what is read where it was written: in a report that is passed on, such an address would lead nowhere.
    """
    beside = Path(__file__).parents[3] / "docs" / "rules" / f"{code}.md"
    return rule_url(code) or (beside.as_uri() if beside.is_file() else None)
