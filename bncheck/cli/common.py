"""What the commands that give reports share: their options, reading the configuration, writing all outputs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from bncheck.facts.errors import NoModel
from bncheck.facts.findings import ExitCode
from bncheck.report import FORMATS
from bncheck.settings.schemes import PLACEHOLDER, SCHEMES, unknown

if TYPE_CHECKING:
    from bncheck.cli.output import Output
    from bncheck.facts.findings import Report
    from bncheck.settings.config import Config, Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])


def say(text: str) -> None:
    """One line on standard error, whatever the names in it hold."""
    from bncheck.report.escape import encodable, visible  # noqa: PLC0415 - only errors pay for it

    print(encodable(f"bncheck: {visible(text)}", sys.stderr.encoding), file=sys.stderr)  # noqa: T201 - the one place


def common_options(command: _Command) -> _Command:
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


decay_option = click.option(
    "--decay", type=float, metavar="D", help="Decay of the moving averages (0.999), where no file tells it."
)
steps_option = click.option(
    "--steps", type=int, metavar="N", help="Number of updates of the statistics, where no file tells it."
)
train_op_option = click.option("--train-op", multiple=True, metavar="NAME", help="Op that trains; repeatable.")
reference_option = click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="A checkpoint whose statistics these must not be equal to; for a TFLite file, what it was converted from.",
)
no_graph_option = click.option("--no-graph", is_flag=True, help="Leave out the .meta beside a checkpoint.")


def _scheme(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    sentence = None if value is None else unknown(value)
    if sentence is not None:
        raise click.BadParameter(sentence)
    return value


def quantized_options(command: _Command) -> _Command:
    """What a model is compared with in float against quantized."""
    options = (
        click.option(
            "--quantized",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Compare with this TFLite file; without it the model is converted.",
        ),
        click.option(
            "--scheme",
            metavar=f"[{'|'.join((*SCHEMES, PLACEHOLDER))}]",
            callback=_scheme,
            help="How to convert [int8: full integer, a scale for each channel]; RECIPE: one of ai-edge-quantizer, by "
            "name (static_wi8_ai8) or as a JSON file.",
        ),
        click.option(
            "--calibration-batches",
            type=click.IntRange(min=1),
            metavar="N",
            help="Batches of the data that the ranges of activations are taken from [16].",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def run_options(command: _Command) -> _Command:
    """What running a model takes, but for the data; `given_options` collects what was given of them."""
    options = (
        click.option("--labels", metavar="L", help="File of integers, a name beside the images, or the word folders."),
        click.option(
            "--preprocess", metavar="RANGE", help="What bytes become: -1..1, 0..1, 0..255, imagenet-mean, ..."
        ),
        click.option("--channel-order", type=click.Choice(["rgb", "bgr"]), help="Of decoded images [rgb]."),
        click.option("--size", metavar="HxW", help="Size of the images, for models that take any."),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            metavar="N",
            help="As in training, if memory allows [the graph's own, else 32].",
        ),
        click.option(
            "--batches",
            type=click.IntRange(min=1),
            metavar="N",
            help="As many at most [all, or as many as repair needs].",
        ),
        click.option("--graph", type=click.Path(path_type=Path), metavar="META", help="The graph, if not PATH.meta."),
        no_graph_option,
        click.option(
            "--model", metavar="NAME[:k=v,...]", help="Backbone of a checkpoint: mobilenet_v2:num_classes=10."
        ),
        click.option("--builder", metavar="MOD:FN", help="Your function(images, is_training) that builds the network."),
        click.option("--inputs", metavar="T", help="Tensor at which the data enter, where the graph does not tell."),
        click.option("--outputs", multiple=True, metavar="T", help="Tensor to compare at; repeatable."),
        click.option(
            "--trust-model",
            is_flag=True,
            default=None,
            help="Run graphs with ops that touch files, the network or Python.",
        ),
        decay_option,
        steps_option,
        train_op_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


_RUN = (
    "labels preprocess channel_order size batch_size batches graph no_graph model builder inputs outputs trust_model "
    "decay steps train_op"
).split()


def given_options(asked: dict[str, Any], config: Config) -> dict[str, Any]:
    """Takes those of `run_options` out of `asked`: what was given there or configured, as the Python API names it.

    Raises click.UsageError for what excludes each other, or is no size.
    """
    if asked["graph"] is not None and asked["no_graph"]:
        raise click.UsageError("--graph and --no-graph exclude each other")
    found = {name: asked.pop(name) for name in _RUN}
    given = {name: value for name, value in found.items() if value not in (None, ())}
    given.setdefault("decay", config.decay)
    given["train_ops"] = given.pop("train_op", config.train_op)
    if given.pop("no_graph"):
        given["use_graph"] = False
    if "size" in given:
        given["size"] = height_and_width(given["size"])
    return given


def height_and_width(text: str) -> tuple[int, int]:
    """(224, 224) of "224x224"; raises click.UsageError for anything else."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise click.UsageError(f"--size {text}: HEIGHTxWIDTH is wanted, such as 224x224")
    return int(height), int(width)


def write_reports(
    reports_of: Callable[[Config, Settings], list[Report]],
    common: dict[str, Any],
    *,
    many: bool = False,
    run: bool = True,
) -> int:
    """Reads the configuration, inspects, writes all outputs; the exit code does not depend on the formats.

    `many` reports may be there, of one training `run`, or of models that have nothing to do with each other.
    """
    from bncheck.cli.output import check_format, emit, outputs  # noqa: PLC0415 - start-up

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
        say(str(error))
        return ExitCode.PASS if settings.allow_empty else ExitCode.NOTHING
    for place in places:
        emit(place.path, _writer(place, reports, many=many, run=run, verbose=bool(verbose), quiet=bool(quiet)))
    codes = {report.exit_code for report in reports}
    return next((code for code in (ExitCode.FAIL, ExitCode.ERROR, ExitCode.NOTHING) if code in codes), ExitCode.PASS)


def _writer(
    place: Output, reports: list[Report], *, many: bool, run: bool, verbose: bool, quiet: bool
) -> Callable[[TextIO], None]:
    from bncheck.report import reporter  # noqa: PLC0415 - start-up

    def write(stream: TextIO) -> None:
        if place.format == "text":
            from bncheck.report.escape import encodable, visible  # noqa: PLC0415 - as above
            from bncheck.report.text import text  # noqa: PLC0415 - only where it is wanted

            if many and run:
                text.write_run(reports, stream, verbose=verbose, quiet=quiet)
                return
            for number, report in enumerate(reports):
                if many:
                    head = f"{visible(report.target.path)}:\n"
                    stream.write(encodable(f"\n{head}" if number else head, stream.encoding))
                text.write(report, stream, verbose=verbose, quiet=quiet)
        elif many:
            reporter(place.format).write_run(reports, stream)
        else:
            reporter(place.format).write(reports[0], stream)

    return write


def _config(path: Path | None) -> Config:
    from bncheck.settings.config import Config, find_config, load_config  # noqa: PLC0415 - start-up

    found = path or find_config(Path.cwd())
    return Config() if found is None else load_config(found)


def _settings(config: Config, common: dict[str, Any]) -> Settings:
    """The command line's word before the configuration's."""
    from dataclasses import replace  # noqa: PLC0415 - start-up

    from bncheck.settings.config import FailOn, settings_of, split_codes  # noqa: PLC0415 - start-up

    given = {
        "fail_on": FailOn(common["fail_on"]) if common["fail_on"] else None,
        "select": split_codes(common["select"]),
        "ignore": split_codes(common["ignore"]),
        "baseline": common["baseline"],
        "allow_empty": common["allow_empty"],
    }
    return settings_of(replace(config, **{name: value for name, value in given.items() if value not in (None, ())}))
