"""Report -> text. One reporter a file, each `(Report, TextIO) -> None`, each with its own versioned wire form.

Every reporter module has `write` for one report, and `write_run` for those of a training run's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, TextIO, cast

from bncheck.facts.findings import Report

_MODULES = {
    "text": "bncheck.report.text.text",
    "json": "bncheck.report.wire.json_v1",
    "sarif": "bncheck.report.wire.sarif",
    "junit": "bncheck.report.wire.junit",
    "github": "bncheck.report.wire.github",
    "markdown": "bncheck.report.text.markdown",
    "html": "bncheck.report.html.html",
    "model-explorer": "bncheck.report.wire.model_explorer",
}

FORMATS = tuple(_MODULES)
"""What `--format` takes."""


_NEEDS = {"html": ("altair", "vl_convert", "jinja2")}
"""Modules that a format needs and the core does not."""


def lacking(name: str) -> str:
    """What to say of a format whose modules are not installed; empty where nothing is lacking."""
    if name not in _NEEDS:
        return ""
    from importlib.util import find_spec  # noqa: PLC0415 - only these formats pay for it

    from bncheck.facts.extras import install  # noqa: PLC0415 - as above

    absent = [module for module in _NEEDS[name] if find_spec(module) is None]
    if not absent:
        return ""
    return f"--format {name} needs {', '.join(absent)}: install with: {install(name)}"


class Reporter(Protocol):
    """What a reporter module offers."""

    def write(self, report: Report, stream: TextIO) -> None:
        """Writes one report."""

    def write_run(self, reports: Sequence[Report], stream: TextIO) -> None:
        """Writes the reports of one training run, in the order of their steps."""


def reporter(name: str) -> Reporter:
    """The reporter of a format in FORMATS; its module is imported only now."""
    return cast("Reporter", import_module(_MODULES[name]))
