"""`bncheck inspect checkpoint`."""

from __future__ import annotations

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


@click.command(
    cls=Command,
    epilog=examples("inspect checkpoint model.ckpt-300", "inspect checkpoint logs/ --steps 5000 --decay 0.999"),
)
@click.argument("path", shell_complete=complete_paths)
@takes_options(CommandName.CHECKPOINT)
def checkpoint(path: str, **asked: Any) -> int:
    """Judge a TensorFlow checkpoint, with the graph beside it.

    PATH is its prefix, its index file or its folder; the graph is the MetaGraph of the same prefix,
    else one of another name beside it that has its variables.
    """

    def reports(config: Config, settings: Settings) -> list[Report]:
        options = options_given(asked, CommandName.CHECKPOINT, config)
        return [bncheck.inspect_checkpoint(path, settings=settings, **options)]

    return write_reports(reports, asked, (path,))
