"""`bncheck diff`: two paths become one comparison and one exit code."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

import click

import bncheck
from bncheck.cli.common import configured, say
from bncheck.cli.completion import complete_paths
from bncheck.cli.help import Command, examples
from bncheck.cli.options import options_given, takes_options
from bncheck.facts.errors import NoModel
from bncheck.facts.findings import ExitCode
from bncheck.settings.options import CommandName

if TYPE_CHECKING:
    from bncheck.numerics.difference import Difference
    from bncheck.settings.config_file import Config

FORMATS = ("text", "json")


@click.command(
    cls=Command,
    epilog=examples(
        "diff released.keras new.keras", "diff model.ckpt-100 model.ckpt-300 -v", "diff old.tflite new.tflite"
    ),
)
@click.argument("old", shell_complete=complete_paths)
@click.argument("new", shell_complete=complete_paths)
@takes_options(CommandName.DIFF)
def diff(old: str, new: str, **asked: Any) -> int:
    """Compare two models by their files.

    Tells which findings are new or gone, which layers' statistics differ, and by how much that changes the
    multiplication and addition that they fold to. Fails on findings that OLD does not have. OLD and NEW are whatever
    `check` takes, one model each. If one is a TFLite or ONNX file, tells whose statistics it holds.
    """
    from bncheck.cli.output import emit  # noqa: PLC0415 - start-up

    config, settings, places = configured(asked, (old, new), formats=FORMATS)
    options = options_given(asked, CommandName.DIFF, config)
    try:
        difference = bncheck.diff(old, new, settings=settings, **options)
    except NoModel as error:
        say(str(error))
        return ExitCode.PASS if settings.allow_empty else ExitCode.NOTHING
    for place in places:
        emit(place.path, partial(_write, difference, place.format, config))
    return difference.exit_code


def _write(difference: Difference, form: str, config: Config, stream: TextIO) -> None:
    if form == "json":
        from bncheck.report.wire.difference import write as write_json  # noqa: PLC0415 - start-up

        write_json(difference, stream)
        return
    from bncheck.report.text.difference import write  # noqa: PLC0415 - start-up

    write(difference, stream, verbose=bool(config.verbose), quiet=bool(config.quiet))
