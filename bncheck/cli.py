"""The command line: arguments become a call, reports become files, verdicts become exit codes. No logic of its own."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

import bncheck
from bncheck.cli_repair import repair
from bncheck.errors import BncheckError, NoModel
from bncheck.report import FORMATS

if TYPE_CHECKING:
    from bncheck.config import Config, Settings
    from bncheck.finding import Report
    from bncheck.output import Output

PASS, FAIL, ERROR, NOTHING, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: pass, findings, usage or unreadable input, nothing to judge, interrupted."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    # Nothing here multiplies matrices, and starting a thread a core is a third of numpy's import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A graph is millions of objects without cycles: the default walks them again and again for nothing.
    gc.set_threshold(max(gc.get_threshold()[0], 200_000), 20, 20)
    try:
        code = cli.main(args=None if arguments is None else list(arguments), prog_name="bncheck", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return ERROR
    except click.Abort:
        _say("interrupted")
        return INTERRUPTED
    except BncheckError as error:
        _say(str(error))
        return ERROR
    except Exception as error:  # whatever else escapes is a bug in bncheck, and is said to be one
        if os.environ.get("BNCHECK_DEBUG"):
            raise
        _say(f"internal error, a bug in bncheck: {type(error).__name__}: {error}")
        _say("please report it with what BNCHECK_DEBUG=1 prints, and the file if you can share it")
        return ERROR
    return code if isinstance(code, int) else PASS


def _say(text: str) -> None:
    from bncheck.report._escape import encodable, visible  # noqa: PLC0415 - only errors pay for it

    print(encodable(f"bncheck: {visible(text)}", sys.stderr.encoding), file=sys.stderr)  # noqa: T201 - the one place


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(bncheck.__version__, prog_name="bncheck", message="%(prog)s %(version)s")
def cli() -> None:
    """Tells whether a TensorFlow model's batch norm will turn it into junk, why, and how to repair it.

    Exit codes: 0 pass, 1 findings, 2 usage or unreadable input, 3 nothing to judge.
    """


cli.add_command(repair)


@cli.group()
def inspect() -> None:
    """Judge files as they are: no TensorFlow, no data, nothing is executed."""


def _common(command: _Command) -> _Command:
    """The options that all inspections share."""
    options = (
        click.option("--format", "format_", type=click.Choice(FORMATS), help="What standard output gets [text]."),
        click.option(
            "--output",
            multiple=True,
            metavar="[FORMAT=]FILE",
            help="Write a report to FILE, - being standard output; repeatable.",
        ),
        click.option(
            "--fail-on", type=click.Choice(["error", "warning", "never"]), help="Exit 1 from here on [error]."
        ),
        click.option("--select", multiple=True, metavar="CODES", help="Judge only these codes or prefixes: BN1,BN201."),
        click.option("--ignore", multiple=True, metavar="CODES", help="Leave out these codes or prefixes."),
        click.option(
            "--baseline",
            type=click.Path(path_type=Path),
            help="An earlier --format json report: its findings no longer count.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            help="Instead of the nearest bncheck.toml or pyproject.toml with [tool.bncheck].",
        ),
        click.option(
            "--allow-empty", is_flag=True, default=None, help="Exit 0 instead of 3 where nothing can be judged."
        ),
        click.option("--quiet", "-q", is_flag=True, default=None, help="The verdict, and a line for each finding."),
        click.option("--verbose", "-v", is_flag=True, default=None, help="All layers, numbers, fixes in full."),
    )
    for option in reversed(options):
        command = option(command)
    return command


_decay = click.option("--decay", type=float, help="Decay of the moving averages (0.999), where no file tells it.")
_steps = click.option("--steps", type=int, help="Number of updates of the statistics, where no file tells it.")
_train_op = click.option("--train-op", multiple=True, metavar="NAME", help="Op that trains; repeatable.")
_reference = click.option(
    "--reference", type=click.Path(path_type=Path), help="A checkpoint whose statistics these must not be equal to."
)
_no_graph = click.option("--no-graph", is_flag=True, help="Leave out the .meta beside a checkpoint.")


@inspect.command()
@click.argument("path")
@click.option("--graph", type=click.Path(path_type=Path), metavar="META", help="The graph, if not PATH.meta.")
@_no_graph
@_decay
@_steps
@_train_op
@_reference
@_common
def checkpoint(
    path: str,
    *,
    graph: Path | None,
    no_graph: bool,
    decay: float | None,
    steps: int | None,
    train_op: tuple[str, ...],
    reference: Path | None,
    **common: Any,
) -> int:
    """Judge a TensorFlow checkpoint: prefix, index file or folder, with the MetaGraph of the same prefix."""
    if graph is not None and no_graph:
        raise click.UsageError("--graph and --no-graph exclude each other")

    def reports(config: Config, settings: Settings) -> list[Report]:
        return [
            bncheck.inspect_checkpoint(
                path,
                graph=graph,
                use_graph=not no_graph,
                decay=config.decay if decay is None else decay,
                steps=steps,
                train_ops=train_op or config.train_op,
                reference=reference or config.reference,
                settings=settings,
            )
        ]

    return _inspect(reports, common)


@inspect.command()
@click.argument("path")
@_decay
@_train_op
@_common
def graph(path: str, *, decay: float | None, train_op: tuple[str, ...], **common: Any) -> int:
    """Judge a graph: .meta, .pb, .pbtxt, SavedModel."""

    def reports(config: Config, settings: Settings) -> list[Report]:
        return [
            bncheck.inspect_graph(
                path,
                decay=config.decay if decay is None else decay,
                train_ops=train_op or config.train_op,
                settings=settings,
            )
        ]

    return _inspect(reports, common)


@inspect.command()
@click.argument("path")
@_decay
@_steps
@_train_op
@_reference
@_common
def model(
    path: str,
    *,
    decay: float | None,
    steps: int | None,
    train_op: tuple[str, ...],
    reference: Path | None,
    **common: Any,
) -> int:
    """Judge a model: SavedModel, .keras, .h5, .tflite, frozen .pb."""

    def reports(config: Config, settings: Settings) -> list[Report]:
        return [
            bncheck.inspect_model(
                path,
                decay=config.decay if decay is None else decay,
                steps=steps,
                train_ops=train_op or config.train_op,
                reference=reference or config.reference,
                settings=settings,
            )
        ]

    return _inspect(reports, common)


@inspect.command()
@click.argument("directory")
@_no_graph
@_decay
@_train_op
@_common
def run(directory: str, *, no_graph: bool, decay: float | None, train_op: tuple[str, ...], **common: Any) -> int:
    """Judge all checkpoints of a training run's folder, and show since when something is wrong."""

    def reports(config: Config, settings: Settings) -> list[Report]:
        return list(
            bncheck.inspect_run(
                directory,
                use_graph=not no_graph,
                decay=config.decay if decay is None else decay,
                train_ops=train_op or config.train_op,
                settings=settings,
            )
        )

    return _inspect(reports, common, many=True)


@cli.command()
@click.argument("code")
@click.option("--format", "format_", type=click.Choice(["text", "markdown"]), default="text", show_default=True)
def explain(code: str, format_: str) -> None:
    """Print the page of a rule, by its code or name."""
    from bncheck import explain as pages  # noqa: PLC0415 - start-up
    from bncheck.output import emit  # noqa: PLC0415 - start-up
    from bncheck.report._layout import columns  # noqa: PLC0415 - start-up

    rule = pages.find_rule(code)
    text = pages.markdown_page(rule) if format_ == "markdown" else pages.page(rule, columns(sys.stdout))
    emit(None, lambda stream: _write(text, stream))


@cli.command()
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
def rules(format_: str) -> None:
    """List all rules."""
    from bncheck import explain as pages  # noqa: PLC0415 - start-up
    from bncheck.output import emit  # noqa: PLC0415 - start-up

    tables = {"text": pages.table, "markdown": pages.markdown_table, "json": pages.json_table}
    text = tables[format_]()
    emit(None, lambda stream: _write(text, stream))


@cli.command()
def doctor() -> int:
    """Say which readers and extras are usable here."""
    from bncheck.doctor import diagnosis  # noqa: PLC0415 - start-up
    from bncheck.output import emit  # noqa: PLC0415 - start-up

    text, ready = diagnosis()
    emit(None, lambda stream: _write(text, stream))
    return PASS if ready else ERROR


def _write(text: str, stream: TextIO) -> None:
    from bncheck.report._escape import encodable  # noqa: PLC0415 - start-up

    stream.write(encodable(text, stream.encoding))


def _inspect(
    reports_of: Callable[[Config, Settings], list[Report]], common: dict[str, Any], *, many: bool = False
) -> int:
    """Reads the configuration, inspects, writes all outputs; the exit code does not depend on the formats."""
    from bncheck.output import check_format, emit, outputs  # noqa: PLC0415 - start-up

    config = _config(common["config"])
    settings = _settings(config, common)
    default = check_format(common["format_"] or config.format or "text")
    folder = None if common["output"] or config.path is None else config.path.parent
    places = outputs(common["output"] or config.output, default, folder)
    verbose = config.verbose if common["verbose"] is None else common["verbose"]
    quiet = config.quiet if common["quiet"] is None else common["quiet"]
    if verbose and quiet:
        raise click.UsageError("--quiet and --verbose exclude each other")
    try:
        reports = reports_of(config, settings)
    except NoModel as error:
        _say(str(error))
        return PASS if settings.allow_empty else NOTHING
    for place in places:
        emit(place.path, _writer(place, reports, many=many, verbose=bool(verbose), quiet=bool(quiet)))
    codes = {report.exit_code for report in reports}
    return next((code for code in (FAIL, ERROR, NOTHING) if code in codes), PASS)


def _writer(
    place: Output, reports: list[Report], *, many: bool, verbose: bool, quiet: bool
) -> Callable[[TextIO], None]:
    from bncheck.report import reporter  # noqa: PLC0415 - start-up

    def write(stream: TextIO) -> None:
        if place.format == "text":
            from bncheck.report import text  # noqa: PLC0415 - only where it is wanted

            if many:
                text.write_run(reports, stream, verbose=verbose, quiet=quiet)
            else:
                text.write(reports[0], stream, verbose=verbose, quiet=quiet)
        elif many:
            reporter(place.format).write_run(reports, stream)
        else:
            reporter(place.format).write(reports[0], stream)

    return write


def _config(path: Path | None) -> Config:
    from bncheck.config import Config, find_config, load_config  # noqa: PLC0415 - start-up

    found = path or find_config(Path.cwd())
    return Config() if found is None else load_config(found)


def _settings(config: Config, common: dict[str, Any]) -> Settings:
    """The command line's word before the configuration's."""
    from bncheck.config import FailOn, Settings, read_baseline, split_codes  # noqa: PLC0415 - start-up

    baseline = common["baseline"] or config.baseline
    allow_empty = config.allow_empty if common["allow_empty"] is None else common["allow_empty"]
    return Settings(
        fail_on=FailOn(common["fail_on"]) if common["fail_on"] else config.fail_on or FailOn.ERROR,
        select=split_codes(common["select"]) or config.select,
        ignore=split_codes(common["ignore"]) or config.ignore,
        ignores=config.ignores,
        baseline=None if baseline is None else read_baseline(baseline),
        allow_empty=bool(allow_empty),
    )
