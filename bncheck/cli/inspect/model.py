"""`bncheck inspect model`."""

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
    cls=Command, epilog=examples("inspect model model.keras", "inspect model int8.tflite --reference model.keras")
)
@click.argument("path", shell_complete=complete_paths)
@takes_options(CommandName.MODEL)
def model(path: str, **asked: Any) -> int:
    """Judge a model file: Keras, TFLite, PyTorch, frozen .pb.

    SavedModels, safetensors and ONNX too. For .tflite and .onnx, --reference is what the file was converted from: which
    statistics it has folded in is then proved layer by layer.
    """

    def reports(config: Config, settings: Settings) -> list[Report]:
        options = options_given(asked, CommandName.MODEL, config)
        if path.endswith((".tflite", ".onnx")) and asked["reference"] is None:
            # what a project's checkpoints are compared with is not what its files for devices were converted from
            options.pop("reference", None)
        return [bncheck.inspect_model(path, settings=settings, **options)]

    return write_reports(reports, asked, (path,))
