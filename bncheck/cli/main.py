"""The command line: arguments become a call, reports become files, verdicts become exit codes. No logic of its own."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

import click

import bncheck
from bncheck.cli.common import say
from bncheck.cli.completion import complete_codes
from bncheck.cli.help import Commands, examples
from bncheck.cli.process import Terminated, forget_stdout, prepared
from bncheck.facts.errors import BncheckError
from bncheck.facts.findings import ExitCode


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    # Nothing here multiplies matrices, and starting a thread a core is a third of numpy's import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A graph is millions of objects without cycles: the default walks them again and again for nothing.
    gc.set_threshold(max(gc.get_threshold()[0], 200_000), 20, 20)
    # Nor at the end: all memory goes at once.
    atexit.register(gc.freeze)
    try:
        with prepared():
            return _run(arguments)
    except Terminated as stop:
        say("terminated")
        return 128 + int(stop.args[0])


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = cli.main(args=None if arguments is None else list(arguments), prog_name="bncheck", standalone_mode=False)
    except click.ClickException as error:
        with suppress(OSError):  # where standard error is full, the exit code alone can tell
            error.show()
        return ExitCode.ERROR
    except click.Abort:
        say("interrupted")
        return ExitCode.INTERRUPTED
    except BncheckError as error:
        say(str(error))
        return ExitCode.ERROR
    except OSError as error:  # of what nobody has given a sentence of its own
        if os.environ.get("BNCHECK_DEBUG"):
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        say(f"{where}system error: {error.strerror or error}")
        forget_stdout()
        return ExitCode.ERROR
    except Exception as error:  # whatever else escapes is a bug in bncheck, and is said to be one
        if os.environ.get("BNCHECK_DEBUG"):
            raise
        say(f"internal error, a bug in bncheck: {type(error).__name__}: {error}")
        say("please report it with what BNCHECK_DEBUG=1 prints, and the file if you can share it")
        return ExitCode.ERROR
    return code if isinstance(code, int) else ExitCode.PASS


@click.group(
    cls=Commands,
    elsewhere={
        "init": "bncheck.cli.project",
        **{
            n: f"bncheck.cli.{n}"
            for n in ("check", "compare", "completion", "demo", "diff", "gate", "inspect", "repair")
        },
    },
    sections={
        "Judge a model": ("check", "gate", "diff", "inspect", "compare"),
        "Repair it": ("repair",),
        "Learn more": ("explain", "rules", "demo"),
        "Set up": ("init", "completion", "doctor"),
    },
    of_paths="check",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog=examples("model.ckpt-300", "check models/", "explain BN201", "demo --static"),
)
@click.version_option(bncheck.__version__, prog_name="bncheck", message="%(prog)s %(version)s")
def cli() -> None:
    """Tell whether a TensorFlow model's batch norm will turn it into junk, why, and how to repair it.

    `bncheck PATH...` is short for `bncheck check PATH...`.

    Exit codes: 0 pass, 1 findings, 2 usage or unreadable input, 3 nothing to judge.
    """


@cli.command()
@click.argument("code", shell_complete=complete_codes)
@click.option(
    "--format", "format_", type=click.Choice(["text", "markdown"]), default="text", help="Format of the page [text]."
)
def explain(code: str, format_: str) -> None:
    """Print the page of a rule, by its code or name."""
    from bncheck import explain as pages  # noqa: PLC0415 - start-up
    from bncheck.cli.output import emit  # noqa: PLC0415 - start-up
    from bncheck.report.text.layout import columns  # noqa: PLC0415 - start-up

    rule = pages.find_rule(code)
    text = pages.markdown_page(rule) if format_ == "markdown" else pages.page(rule, columns(sys.stdout))
    emit(None, lambda stream: _write(text, stream))


@cli.command()
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    help="Format of the list [text].",
)
def rules(format_: str) -> None:
    """List all rules; one a line in a pipe."""
    from bncheck import explain as pages  # noqa: PLC0415 - start-up
    from bncheck.cli.output import emit  # noqa: PLC0415 - start-up
    from bncheck.report.text.layout import columns  # noqa: PLC0415 - start-up

    if format_ == "text" and sys.stdout.isatty():
        text = pages.listing(width=columns(sys.stdout))
    else:
        text = {"text": pages.table, "markdown": pages.markdown_table, "json": pages.json_table}[format_]()
    emit(None, lambda stream: _write(text, stream))


@cli.command()
def doctor() -> int:
    """Show which readers and extras are usable here."""
    from bncheck.cli.output import emit  # noqa: PLC0415 - start-up
    from bncheck.doctor import diagnosis  # noqa: PLC0415 - start-up

    text, ready = diagnosis()
    emit(None, lambda stream: _write(text, stream))
    return ExitCode.PASS if ready else ExitCode.ERROR


def _write(text: str, stream: TextIO) -> None:
    from bncheck.report.escape import encodable  # noqa: PLC0415 - start-up

    stream.write(encodable(text, stream.encoding))
