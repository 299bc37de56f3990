"""What the commands that give reports share: their options, reading the configuration, writing all outputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from bncheck.facts.errors import NoModel
from bncheck.facts.findings import ExitCode

if TYPE_CHECKING:
    from bncheck.cli.output import Output
    from bncheck.facts.findings import Report
    from bncheck.settings.config import Settings
    from bncheck.settings.config_file import Config


def say(text: str) -> None:
    """One line on standard error, whatever the names in it hold."""
    from bncheck.report.escape import encodable, visible  # noqa: PLC0415 - only errors pay for it

    with suppress(OSError, ValueError):  # where it is full or closed, the exit code alone can tell
        print(encodable(f"bncheck: {visible(text)}", sys.stderr.encoding), file=sys.stderr)  # noqa: T201 - the one place


def write_reports(
    reports_of: Callable[[Config, Settings], list[Report]],
    asked: Mapping[str, Any],
    paths: Sequence[str],
    *,
    many: bool | None = False,
    run: bool = True,
) -> int:
    """Reads the configuration, inspects, writes all outputs; the exit code does not depend on the formats.

    `paths` are what is judged: no report may take their place. `many` reports may be there,
    of one training `run`, or of models that have nothing to do with each other; None: their number
    and their places tell.
    """
    from bncheck.cli.output import emit  # noqa: PLC0415 - start-up

    config, settings, places = configured(asked, paths)
    try:
        reports = [replace(report, configuration=config.path) for report in reports_of(config, settings)]
    except NoModel as error:
        say(str(error))
        return ExitCode.PASS if settings.allow_empty else ExitCode.NOTHING
    if many is None:
        many, run = len(reports) != 1, _of_one_run(reports)
        if many and run:
            reports = [replace(report, run=str(Path(report.target.path).parent)) for report in reports]
    for place in places:
        emit(
            place.path,
            _writer(place, reports, many=many, run=run, verbose=bool(config.verbose), quiet=bool(config.quiet)),
        )
    codes = {report.exit_code for report in reports}
    return next((code for code in (ExitCode.FAIL, ExitCode.ERROR, ExitCode.NOTHING) if code in codes), ExitCode.PASS)


def configured(
    asked: Mapping[str, Any], paths: Sequence[str], *, formats: Sequence[str] = ()
) -> tuple[Config, Settings, tuple[Output, ...]]:
    """(the configuration with what was given, how findings become a verdict, where reports go).

    `formats` are those of a command that writes no reports on models, of which a configuration says nothing; none: all.
    Raises ConfigError or UsageError for what cannot be; `paths` as in `write_reports`.
    """
    from bncheck.cli.options import reporting_given  # noqa: PLC0415 - start-up
    from bncheck.cli.output import outputs  # noqa: PLC0415 - start-up
    from bncheck.settings.config_file import settings_of  # noqa: PLC0415 - start-up

    given = reporting_given(asked)
    config = _config(given.pop("path", None))
    if formats:
        config = replace(config, format=None, output=())
    config = replace(config, **given)
    settings = settings_of(config)
    file = None if "output" in given else config.path
    places = outputs(config.output, config.format, None if file is None else file.parent)
    other = next((place.format for place in places if formats and place.format not in formats), "")
    if other:
        raise click.UsageError(f"this command does not write {other}: use {' or '.join(formats)}")
    if any(place.path is not None for place in places):
        from bncheck.cli.output_places import refuse_foreign, refuse_inputs  # noqa: PLC0415 - start-up

        if file is not None:
            refuse_foreign(places, file)
        values = (value for name, value in asked.items() if name != "output")
        refuse_inputs(places, paths, (*values, config.path, config.baseline, config.options, config.gate))
    if config.verbose and config.quiet:
        raise click.UsageError("--quiet and --verbose exclude each other")
    return config, settings, places


def _of_one_run(reports: list[Report]) -> bool:
    """Whether all are checkpoints of one folder, so that a table of them in step order says something."""
    folders = {Path(report.target.path).parent for report in reports}
    return len(folders) == 1 and all("checkpoint" in report.target.format for report in reports)


def _writer(
    place: Output, reports: list[Report], *, many: bool, run: bool, verbose: bool, quiet: bool
) -> Callable[[TextIO], None]:
    from bncheck.report import reporter  # noqa: PLC0415 - start-up

    def write(stream: TextIO) -> None:
        if place.format == "text":
            from bncheck.report.text import text  # noqa: PLC0415 - only where it is wanted

            write_text = text.write_run if many and run else text.write_models
            write_text(reports, stream, verbose=verbose, quiet=quiet)
        elif many:
            reporter(place.format).write_run(reports, stream)
        else:
            reporter(place.format).write(reports[0], stream)

    return write


def _config(path: Path | None) -> Config:
    from bncheck.settings.config_file import Config, find_config, load_config  # noqa: PLC0415 - start-up

    try:
        found = path or find_config(Path.cwd())
    except FileNotFoundError:  # the working folder was deleted, and holds none
        found = None
    return Config() if found is None else load_config(found)
