"""`bncheck inspect graph`."""

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


@click.command(cls=Command, epilog=examples("inspect graph model.ckpt-300.meta --train-op train_step"))
@click.argument("path", shell_complete=complete_paths)
@takes_options(CommandName.GRAPH)
def graph(path: str, **asked: Any) -> int:
    """Judge a graph: .meta, .pb, .pbtxt, SavedModel."""

    def reports(config: Config, settings: Settings) -> list[Report]:
        return [bncheck.inspect_graph(path, settings=settings, **options_given(asked, CommandName.GRAPH, config))]

    return write_reports(reports, asked, (path,))
