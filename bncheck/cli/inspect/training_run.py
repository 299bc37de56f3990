"""`bncheck inspect run`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

import bncheck
from bncheck.cli.common import write_reports
from bncheck.cli.completion import complete_paths
from bncheck.cli.help import Command, examples
from bncheck.cli.options import options_given, takes_options
from bncheck.settings.options import CommandName

if TYPE_CHECKING:
    from bncheck.facts.findings import Report
    from bncheck.settings.config import Settings
    from bncheck.settings.config_file import Config


@click.command(cls=Command, epilog=examples("inspect run logs/ --output html=run.html"))
@click.argument("directory", shell_complete=complete_paths)
@takes_options(CommandName.RUN)
def run(directory: str, **asked: Any) -> int:
    """Tell the story of a training run from its checkpoints.

    When updates stop, in which window channels die, what jumps, which checkpoint is the first good one to quantize.
    Folders inside are searched too; each that holds several checkpoints is a run of its own.
    """
    # a process for each processor multiplies vectors of some hundred numbers: threads would only wait for each other
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    def reports(config: Config, settings: Settings) -> list[Report]:
        return list(bncheck.inspect_run(directory, settings=settings, **options_given(asked, CommandName.RUN, config)))

    return write_reports(reports, asked, (directory,), many=True)
