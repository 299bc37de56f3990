"""The documentation as a site: `python -m sphinx -W docs OUT`. Needs no network; every warning is an error in CI."""

from __future__ import annotations

from bncheck import __version__

project = "bncheck"
author = "The bncheck maintainers"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "bncheck"
html_extra_path = ["../bncheck/settings/config.schema.json", "../bncheck/report/json_v1.schema.json"]
myst_heading_anchors = 4
autodoc_typehints = "none"
autodoc_member_order = "bysource"
