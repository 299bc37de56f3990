"""The address of a rule's page, for whatever links to it: SARIF's `helpUri`, the HTML report."""

from __future__ import annotations

import os

from bncheck.version import HOME

PAGES = HOME + "/blob/main/docs/rules/{code}.md"
VARIABLE = "BNCHECK_RULE_PAGES"
"""Environment variable with the address of another copy, `{code}` in the place of the code."""


def rule_url(code: str) -> str:
    """The address of a rule's page: that of the environment, where it gives one, else in the repository."""
    given = os.environ.get(VARIABLE, "")
    return (given if given.startswith(("https://", "http://")) else PAGES).replace("{code}", code)
