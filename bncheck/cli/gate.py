"""`bncheck gate`: all that can be judged of a model, one exit code; arguments and configuration become one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import bncheck
from bncheck.cli.common import write_reports
from bncheck.cli.completion import complete_paths
from bncheck.cli.help import Command, examples
from bncheck.cli.options import options_given, takes_options
from bncheck.cli.progress import expected_told, progress_shown
from bncheck.settings.options import CommandName

if TYPE_CHECKING:
    from bncheck.facts.findings import Report
    from bncheck.settings.config import Settings
    from bncheck.settings.config_file import Config


@click.command(
    cls=Command,
    epilog=examples(
        "gate model.ckpt-300",
        "gate model.ckpt-300 --data test.npz --max-time 600",
        "gate new.keras --data test.npz --against released.json",
    ),
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=complete_paths)
@takes_options(CommandName.GATE)
def gate(paths: tuple[str, ...], **asked: Any) -> int:
    """Judge models by their files, then by running them.

    One verdict each, one exit code: made for a CI. PATH is whatever `inspect` and `compare` take. The model is run only
    with --data, here or in [tool.bncheck.gate].
    """

    def reports(config: Config, settings: Settings) -> list[Report]:
        options = options_given(asked, CommandName.GATE, config)
        for one in ("against", "quantized"):
            if len(paths) > 1 and one in options:
                raise click.UsageError(f"--{one} applies to one model: give one PATH")
        with progress_shown(quiet=bool(config.quiet)) as progress:
            options |= {"settings": settings, "progress": progress, "expected": expected_told(quiet=bool(config.quiet))}
            if len(paths) == 1:
                return [bncheck.gate(paths[0], **options)]
            return [_one_of_several(path, settings, options) for path in paths]

    return write_reports(reports, asked, paths, many=len(paths) > 1, run=False)


def _one_of_several(path: str, settings: Settings, options: dict[str, Any]) -> Report:
    """One that cannot be read must not hide what is wrong with the others."""
    from bncheck.commands.target import unreadable  # noqa: PLC0415 - start-up
    from bncheck.facts.errors import ReadError  # noqa: PLC0415 - start-up

    try:
        return bncheck.gate(path, **options)
    except ReadError as error:
        return unreadable(Path(path), error, settings)
