"""`bncheck repair`: arguments become one call of `bncheck.repair.repair`, its report is printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from bncheck.cli_common import (
    NOTHING,
    decay_option,
    no_graph_option,
    say,
    steps_option,
)
from bncheck.errors import NoModel, UsageError


@click.command()
@click.argument("path")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="OUT", help="Where the repaired copy goes: new.")
@click.option("--data", metavar="D", help="Folder of images, .npy, .npz or TFRecord, as in training: re-estimate.")
@click.option("--debias", is_flag=True, help="No data: undo the init share from decay and number of updates.")
@click.option("--in-place", is_flag=True, hidden=True)
@decay_option
@steps_option
@click.option("--graph", type=click.Path(path_type=Path), metavar="META", help="The graph, if not PATH.meta.")
@no_graph_option
@click.option("--model", metavar="NAME[:k=v,...]", help="Backbone of a bare checkpoint: mobilenet_v2:num_classes=10.")
@click.option("--builder", metavar="PKG.MOD:FUNCTION", help="Your function(images, is_training) for a bare checkpoint.")
@click.option("--inputs", metavar="TENSOR", help="Where the data enter the graph, where it does not tell.")
@click.option("--outputs", metavar="TENSOR", multiple=True, help="Where the forward pass ends; repeatable.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="As in training, if memory allows [the graph's own, else 32]."
)
@click.option(
    "--batches",
    type=click.IntRange(min=1),
    help="As many at most; else until the statistics stand still or the data end.",
)
@click.option("--preprocess", metavar="RANGE", help="What bytes become: -1..1, 0..1, 0..255, imagenet-mean, ...")
@click.option("--labels", metavar="L", help="Labels of the data, to measure accuracy before and after.")
@click.option("--channel-order", type=click.Choice(["rgb", "bgr"]), default="rgb", show_default=True)
@click.option("--size", metavar="HxW", help="Size of images, for models that take any.")
@click.option("--no-compare", is_flag=True, help="Do not run train mode against eval mode before and after.")
@click.option("--trust-model", is_flag=True, help="Run graphs with ops that touch files, the network or Python.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--fail-on", type=click.Choice(["error", "warning", "never"]), default="error", show_default=True)
@click.option("--verbose", "-v", is_flag=True, help="Every layer.")
def repair(path: str, **asked: Any) -> int:
    """Write a copy of a checkpoint, SavedModel or Keras file with right batch norm statistics.

    From --data (population statistics) or, where decay and number of updates are known, with --debias. The source is
    never touched, nothing is overwritten. Exit codes are those of inspecting the copy.
    """
    from bncheck.config import FailOn, Settings  # noqa: PLC0415 - start-up
    from bncheck.output import emit  # noqa: PLC0415 - start-up
    from bncheck.repair import DataOptions  # noqa: PLC0415 - start-up
    from bncheck.repair import repair as run  # noqa: PLC0415 - start-up
    from bncheck.repair.text import write  # noqa: PLC0415 - start-up

    if asked["in_place"]:
        raise UsageError("bncheck never changes a file in place: give the repaired copy a place of its own with -o")
    if asked["out"] is None:
        raise click.UsageError("give the repaired copy a place with -o OUT")
    if asked["graph"] is not None and asked["no_graph"]:
        raise click.UsageError("--graph and --no-graph exclude each other")
    options = DataOptions(
        inputs=asked["inputs"],
        outputs=asked["outputs"],
        size=_size(asked["size"]),
        compare=not asked["no_compare"],
        **{
            key: asked[key]
            for key in (
                "batch_size",
                "batches",
                "preprocess",
                "labels",
                "channel_order",
                "model",
                "builder",
                "trust_model",
            )
        },
    )
    try:
        with _progress() as progress:
            report = run(
                path,
                asked["out"],
                data=asked["data"],
                debias=asked["debias"],
                decay=asked["decay"],
                steps=asked["steps"],
                graph=asked["graph"],
                use_graph=not asked["no_graph"],
                options=options,
                settings=Settings(fail_on=FailOn(asked["fail_on"])),
                progress=progress,
            )
    except NoModel as error:
        say(str(error))
        return NOTHING

    def to(stream: TextIO) -> None:
        if asked["format_"] == "json":
            stream.write(report.to_json() + "\n")
        else:
            write(report, stream, verbose=asked["verbose"])

    emit(None, to)
    return report.exit_code


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise click.UsageError(f"--size takes HEIGHTxWIDTH, such as 224x224, not {text}")
    return int(height), int(width)


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """Stage, samples done and their rate on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _stage, _samples: None
        return
    from rich.console import Console  # noqa: PLC0415 - 36 ms that a pipe need not pay
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - as above

    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed} samples"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        tasks: dict[str, Any] = {}

        def hear(stage: str, samples: int) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=None)
            shown.update(tasks[stage], completed=samples)

        yield hear
