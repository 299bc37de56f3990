"""`bncheck check`: paths of any kind become one report each and one exit code."""

from __future__ import annotations

import glob
import sys
from typing import TYPE_CHECKING, Any

import click

from bncheck.cli.common import write_reports
from bncheck.cli.completion import complete_paths
from bncheck.cli.help import Command, examples
from bncheck.cli.options import options_given, takes_options
from bncheck.settings.options import CommandName, Options

if TYPE_CHECKING:
    from bncheck.facts.findings import Report
    from bncheck.settings.config import Settings
    from bncheck.settings.config_file import Config

STDIN = "-"
"""In the place of a path: a list of them on standard input, one a line."""


@click.command(
    cls=Command,
    epilog=examples(
        "check model.ckpt-300",
        "check models/ --output report.sarif",
        "check int8.tflite --reference model.keras",
        "check 'runs/*/model.ckpt-*' -q",
    ),
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=complete_paths)
@takes_options(CommandName.CHECK)
def check(paths: tuple[str, ...], **asked: Any) -> int:
    """Judge models of any kind by their files.

    PATH is a TensorFlow, Keras, TFLite, PyTorch, safetensors, ONNX or Flax file; a folder, in which all models are
    judged, except hidden ones and what .gitignore lists; a glob; or - for a list of paths on standard input. Needs
    neither TensorFlow nor data, and executes nothing that a file holds. Several models share one exit code, the worst.
    """
    listed = _listed(paths)

    def reports(config: Config, settings: Settings) -> list[Report]:
        from bncheck.commands.check import check_found  # noqa: PLC0415 - start-up
        from bncheck.sources.models_in import models_in  # noqa: PLC0415 - start-up

        given = options_given(asked, CommandName.CHECK, config)
        found = models_in(listed)
        if asked["reference"] is None and all(one.path.name.endswith((".tflite", ".onnx")) for one in found):
            # what a project's checkpoints are compared with is not what its files for devices were converted from
            given.pop("reference", None)
        return list(check_found(found, Options(settings=settings, **given)))

    # what a glob matches may be no place of a report either
    inputs = [*listed, *(match for path in listed if "*" in path for match in glob.glob(path, recursive=True))]  # noqa: PTH207 - absolute patterns too
    return write_reports(reports, asked, inputs, many=None)


def _listed(paths: tuple[str, ...]) -> list[str]:
    if STDIN not in paths:
        return list(paths)
    typed = [line.strip() for line in sys.stdin]
    found = [*(path for path in paths if path != STDIN), *filter(None, typed)]
    if not found:
        raise click.UsageError("standard input lists no path")
    return found
