"""`bncheck gate`: all that can be judged of a model, one exit code; arguments and configuration become one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import bncheck
from bncheck.cli.common import common_options, given_options, quantized_options, run_options, write_reports
from bncheck.cli.help import Command, examples
from bncheck.cli.progress import progress_shown
from bncheck.settings.amounts import MEGABYTES, SECONDS, amount

if TYPE_CHECKING:
    from bncheck.facts.findings import Report
    from bncheck.settings.config import Config, Settings


def _in(units: Mapping[str, float]) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """Reads an option that is an amount."""

    def read(_context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
        try:
            return None if value is None else amount(value, units)
        except ValueError as error:
            raise click.BadParameter(str(error), param=parameter) from None

    return read


@click.command(
    cls=Command,
    epilog=examples(
        "gate model.ckpt-300",
        "gate model.ckpt-300 --data test.npz --max-time 600",
        "gate new.keras --data test.npz --against released.json",
    ),
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--data", metavar="D", help="Run the model on it: folder of images, .npy, .npz, TFRecord, or the word synthetic."
)
@click.option("--no-quantize", is_flag=True, default=None, help="Do not compare float with quantized.")
@quantized_options
@click.option("--against", metavar="OLD", help="Earlier model, or its JSON report: fail on what became worse.")
@click.option(
    "--max-time", callback=_in(SECONDS), metavar="S", help="Running the model is ended after it: 90 (seconds), 10m, 1h."
)
@click.option(
    "--max-memory", callback=_in(MEGABYTES), metavar="MB", help="Running the model is ended beyond it: 2000 (MB), 2GB."
)
@click.option(
    "--all-stages", is_flag=True, default=None, help="Run the model also where a fault leaves no sense in it."
)
@run_options
@common_options
def gate(paths: tuple[str, ...], **asked: Any) -> int:
    """Judge models by their files, then by running them.

    One verdict each, one exit code: made for a CI. PATH is whatever `inspect` and `compare` take. The model is run only
    with --data, here or in [tool.bncheck.gate].
    """

    def reports(config: Config, settings: Settings) -> list[Report]:
        own = {name: asked.pop(name) for name in _OWN}
        given = {name: value for name, value in own.items() if value is not None}
        given |= {name: False for flag, name in _SWITCHED_OFF.items() if asked.pop(flag)}
        options = {**config.gate, **given_options(asked, config), **given}
        for one in ("against", "quantized"):
            if len(paths) > 1 and one in options:
                raise click.UsageError(f"--{one} belongs to one model: give one PATH")
        with progress_shown() as progress:
            if len(paths) == 1:
                return [bncheck.gate(paths[0], settings=settings, progress=progress, **options)]
            return [_one_of_several(path, settings, {**options, "progress": progress}) for path in paths]

    return write_reports(reports, asked, many=len(paths) > 1, run=False)


_OWN = ("data", "quantized", "scheme", "calibration_batches", "against", "max_time", "max_memory")
_SWITCHED_OFF = {"all_stages": "early_stop", "no_quantize": "quantize"}
"""Flag -> argument of `bncheck.gate` that it makes false."""


def _one_of_several(path: str, settings: Settings, options: dict[str, Any]) -> Report:
    """One that cannot be read must not hide what is wrong with the others."""
    from bncheck.commands.inspect import unreadable  # noqa: PLC0415 - start-up
    from bncheck.facts.errors import ReadError  # noqa: PLC0415 - start-up

    try:
        return bncheck.gate(path, settings=settings, **options)
    except ReadError as error:
        return unreadable(Path(path), error, settings)
