"""`bncheck repair`: arguments become one call of `bncheck.repair.repair`, its report is printed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, TextIO

import click

from bncheck.cli.common import say
from bncheck.cli.completion import complete_paths
from bncheck.cli.help import Command, TableOption, examples
from bncheck.cli.options import options_given, takes_options
from bncheck.cli.progress import progress_shown
from bncheck.facts.errors import NoModel, UsageError
from bncheck.facts.findings import ExitCode
from bncheck.settings.options import CommandName

_report_option = partial(click.option, cls=TableOption, heading="Report")


@click.command(
    cls=Command,
    epilog=examples(
        "repair model.ckpt-300 -o fixed.ckpt --data train.npz",
        "repair model.ckpt-300 -o fixed.ckpt --debias --decay 0.999",
    ),
)
@click.argument("path", shell_complete=complete_paths)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Where to write the repaired copy; must not exist.",
)
@click.option("--in-place", is_flag=True, hidden=True)
@takes_options(CommandName.REPAIR, reports=False)
@_report_option(
    "--format", type=click.Choice(["text", "json"]), default="text", help="Format on standard output [text]."
)
@_report_option(
    "--fail-on",
    type=click.Choice(["error", "warning", "never"]),
    default="error",
    help="Lowest severity that makes the exit code 1 [error].",
)
@_report_option("--verbose", "-v", is_flag=True, help="Print all layers.")
def repair(path: str, **asked: Any) -> int:
    """Write a copy of a model with correct batch norm statistics.

    PATH is a checkpoint, SavedModel or Keras file. The statistics come from --data (population statistics) or, if
    decay and number of updates are known, from --debias. The source is never touched, and nothing is overwritten.
    Exits with 0 if samples that were not used for the statistics confirm the copy, with 3 if nothing confirms it, and
    with 1 if no repair would help: then nothing is written.
    """
    from bncheck.cli.output import emit  # noqa: PLC0415 - start-up
    from bncheck.repair import repair as run  # noqa: PLC0415 - start-up
    from bncheck.report.text.repair import write  # noqa: PLC0415 - start-up
    from bncheck.settings.config import FailOn, Settings  # noqa: PLC0415 - start-up

    if asked["in_place"]:
        raise UsageError("bncheck never changes a file in place: give the repaired copy a place of its own with -o")
    if asked["out"] is None:
        raise click.UsageError("give the repaired copy a place with -o OUT")
    options = options_given(asked, CommandName.REPAIR)
    settings = Settings(fail_on=FailOn(asked["fail_on"]))
    try:
        with progress_shown() as progress:
            report = run(path, asked["out"], settings=settings, progress=progress, **options)
    except NoModel as error:
        say(str(error))
        return ExitCode.NOTHING

    def to(stream: TextIO) -> None:
        if asked["format"] == "json":
            stream.write(report.to_json() + "\n")
        else:
            write(report, stream, verbose=asked["verbose"])

    emit(None, to)
    return report.exit_code
