"""Where the page of a rule is: in the repository's documentation, or wherever that is published."""

from __future__ import annotations

import os

PAGES = "docs/rules/{code}.md"
"""In the repository. bncheck has no public home yet; once it has, this becomes the address of its pages."""
VARIABLE = "BNCHECK_RULE_PAGES"
"""Environment variable with the address of a published copy, `{code}` in the place of the code."""


def rule_page(code: str) -> str:
    """The place of a rule's page: an address, or a path in the repository."""
    return (os.environ.get(VARIABLE) or PAGES).replace("{code}", code)


def rule_url(code: str) -> str:
    """The address of a rule's page; empty where only the repository has it."""
    page = rule_page(code)
    return page if page.startswith(("https://", "http://")) else ""
