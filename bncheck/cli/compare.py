"""`bncheck compare`: runs a model in two modes on data; the arguments become one call, its report is written."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

import bncheck
from bncheck.cli.common import write_reports
from bncheck.cli.completion import complete_paths
from bncheck.cli.help import Command, Commands, examples
from bncheck.cli.options import options_given, takes_options
from bncheck.cli.progress import expected_told, progress_shown
from bncheck.facts.extras import install
from bncheck.facts.findings import StageName
from bncheck.settings.options import CommandName
from bncheck.settings.schemes import PLACEHOLDER

if TYPE_CHECKING:
    from bncheck.facts.findings import Report
    from bncheck.settings.config import Settings
    from bncheck.settings.config_file import Config


@click.group(cls=Commands)
def compare() -> None:
    """Run a model in two modes on the same data.

    TensorFlow is needed, and the graph is executed.
    """


@compare.command(
    "train-vs-eval",
    cls=Command,
    epilog=examples(
        "compare train-vs-eval model.ckpt-300 --data test.npz",
        "compare train-vs-eval bare.ckpt --data images/ --model mobilenet_v2",
    ),
)
@click.argument("path", shell_complete=complete_paths)
@takes_options(CommandName.TRAIN_VS_EVAL)
def train_vs_eval(path: str, **asked: Any) -> int:
    """Compare stored statistics with those of the batch.

    Tells where the modes diverge, what that costs, and why.

    PATH is a checkpoint (with the MetaGraph of the same prefix), SavedModel, Keras file or frozen graph.
    """

    def reports(config: Config, settings: Settings) -> list[Report]:
        options = options_given(asked, CommandName.TRAIN_VS_EVAL, config)
        with progress_shown(quiet=bool(config.quiet)) as hear:
            progress = partial(hear, StageName.MODES)
            options |= {"settings": settings, "progress": progress, "expected": expected_told(quiet=bool(config.quiet))}
            return [bncheck.compare_train_vs_eval(path, **options)]

    return write_reports(reports, asked, (path,))


class _ListsRecipes(Command):
    """A command whose help ends with the recipes that `--scheme` may name, where they are installed."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click, then the recipes."""
        super().format_epilog(ctx, formatter)
        from bncheck.compare.litert.recipes import installed, recipe_names  # noqa: PLC0415 - for this help alone

        names = ", ".join(recipe_names()) if installed() else f"not installed: {install('aeq')}"
        with formatter.section(f"Recipes of ai-edge-quantizer (--scheme {PLACEHOLDER})"):
            formatter.write_text(names)


@compare.command(
    "float-vs-quantized",
    cls=_ListsRecipes,
    epilog=examples(
        "compare float-vs-quantized model.ckpt-300 --data test.npz",
        "compare float-vs-quantized model.keras --quantized int8.tflite",
    ),
)
@click.argument("path", shell_complete=complete_paths)
@takes_options(CommandName.FLOAT_VS_QUANTIZED)
def float_vs_quantized(path: str, **asked: Any) -> int:
    """Compare float with quantized, and the modes before.

    Tells which step loses what: stored statistics against those of the batch, or quantization.

    PATH is a checkpoint (with the MetaGraph of the same prefix), SavedModel, Keras file, frozen graph, or a float
    TFLite file. With --quantized and without --data, what was folded into the file is proved from the files alone.
    """

    def reports(config: Config, settings: Settings) -> list[Report]:
        options = options_given(asked, CommandName.FLOAT_VS_QUANTIZED, config)
        with progress_shown(quiet=bool(config.quiet)) as hear:
            progress = partial(hear, StageName.QUANTIZED)
            options |= {"settings": settings, "progress": progress, "expected": expected_told(quiet=bool(config.quiet))}
            return [bncheck.compare_float_vs_quantized(path, **options)]

    return write_reports(reports, asked, (path,))
