"""`bncheck repair`: arguments become one call of `bncheck.repair.repair`, its report is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

import click

from bncheck.cli.common import given_options, run_options, say
from bncheck.cli.help import Command, examples
from bncheck.cli.progress import progress_shown
from bncheck.facts.errors import NoModel, UsageError
from bncheck.facts.findings import ExitCode


@click.command(
    cls=Command,
    epilog=examples(
        "repair model.ckpt-300 -o fixed.ckpt --data train.npz",
        "repair model.ckpt-300 -o fixed.ckpt --debias --decay 0.999",
    ),
)
@click.argument("path")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="OUT", help="Where the repaired copy goes: new.")
@click.option("--data", metavar="D", help="Folder of images, .npy, .npz or TFRecord, as in training: re-estimate.")
@click.option("--debias", is_flag=True, help="No data: undo the init share from decay and number of updates.")
@click.option("--in-place", is_flag=True, hidden=True)
@click.option("--no-compare", is_flag=True, help="Do not run train mode against eval mode before and after.")
@run_options
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--fail-on", type=click.Choice(["error", "warning", "never"]), default="error", show_default=True)
@click.option("--verbose", "-v", is_flag=True, help="Every layer.")
def repair(path: str, **asked: Any) -> int:
    """Write a copy of a model with right batch norm statistics.

    PATH is a checkpoint, SavedModel or Keras file; the statistics come from --data (population statistics) or, where
    decay and number of updates are known, from --debias. The source is never touched, nothing is overwritten. Exit
    codes are those of inspecting the copy.
    """
    from bncheck.cli.output import emit  # noqa: PLC0415 - start-up
    from bncheck.repair import DataOptions  # noqa: PLC0415 - start-up
    from bncheck.repair import repair as run  # noqa: PLC0415 - start-up
    from bncheck.report.text.repair import write  # noqa: PLC0415 - start-up
    from bncheck.settings.config import Config, FailOn, Settings  # noqa: PLC0415 - start-up

    if asked["in_place"]:
        raise UsageError("bncheck never changes a file in place: give the repaired copy a place of its own with -o")
    if asked["out"] is None:
        raise click.UsageError("give the repaired copy a place with -o OUT")
    options = given_options(asked, Config())
    of_files = {name: options.pop(name) for name in _OF_FILES if name in options}
    try:
        with progress_shown() as progress:
            report = run(
                path,
                asked["out"],
                data=asked["data"],
                debias=asked["debias"],
                options=DataOptions(compare=not asked["no_compare"], **options),
                settings=Settings(fail_on=FailOn(asked["fail_on"])),
                progress=progress,
                **of_files,
            )
    except NoModel as error:
        say(str(error))
        return ExitCode.NOTHING

    def to(stream: TextIO) -> None:
        if asked["format_"] == "json":
            stream.write(report.to_json() + "\n")
        else:
            write(report, stream, verbose=asked["verbose"])

    emit(None, to)
    return report.exit_code


_OF_FILES = ("graph", "use_graph", "decay", "steps", "train_ops")
"""Arguments of `repair` itself; the others are `DataOptions`."""
