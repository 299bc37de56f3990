"""Report -> text. One reporter a file, each `(Report, TextIO) -> None`, each with its own versioned wire form.

Every reporter module has `write` for one report, and `write_run` for those of a training run's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, TextIO, cast

from bncheck.finding import Report

_MODULES = {
    "text": "bncheck.report.text",
    "json": "bncheck.report.json_v1",
    "sarif": "bncheck.report.sarif",
    "junit": "bncheck.report.junit",
    "github": "bncheck.report.github",
    "markdown": "bncheck.report.markdown",
}

FORMATS = tuple(_MODULES)
"""What `--format` takes."""


class Reporter(Protocol):
    """What a reporter module offers."""

    def write(self, report: Report, stream: TextIO) -> None:
        """Writes one report."""

    def write_run(self, reports: Sequence[Report], stream: TextIO) -> None:
        """Writes the reports of one training run, in the order of their steps."""


def reporter(name: str) -> Reporter:
    """The reporter of a format in FORMATS; its module is imported only now."""
    return cast("Reporter", import_module(_MODULES[name]))
