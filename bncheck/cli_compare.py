"""`bncheck compare`: runs a model in two modes on data; the arguments become one call, its report is written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import bncheck
from bncheck.cli_common import (
    common_options,
    decay_option,
    no_graph_option,
    steps_option,
    train_op_option,
    write_reports,
)

if TYPE_CHECKING:
    from bncheck.config import Config, Settings
    from bncheck.finding import Report


@click.group()
def compare() -> None:
    """Run a model in two modes on the same data: TensorFlow is needed, the graph is executed."""


@compare.command("train-vs-eval")
@click.argument("path")
@click.option(
    "--data", required=True, metavar="D", help="Folder of images, .npy, .npz, TFRecord, or the word synthetic."
)
@click.option("--labels", metavar="L", help="File of integers, a name beside the images, or the word folders.")
@click.option("--preprocess", metavar="RANGE", help="What bytes become: -1..1, 0..1, 0..255, imagenet-mean, ...")
@click.option("--channel-order", type=click.Choice(["rgb", "bgr"]), default="rgb", help="Of decoded images [rgb].")
@click.option("--size", metavar="HxW", help="Size of the images, for models that take any.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, help="As in training, if memory allows [32].")
@click.option("--batches", type=click.IntRange(min=1), help="As many at most [all].")
@click.option("--graph", type=click.Path(path_type=Path), metavar="META", help="The graph, if not PATH.meta.")
@no_graph_option
@click.option("--model", metavar="NAME[:k=v,...]", help="Backbone of a checkpoint: mobilenet_v2:num_classes=10.")
@click.option("--builder", metavar="MOD:FN", help="Your function(images, is_training) that builds the network.")
@click.option("--inputs", metavar="T", help="Tensor at which the data enter, where the graph does not tell.")
@click.option("--outputs", multiple=True, metavar="T", help="Tensor to compare at; repeatable.")
@click.option("--trust-model", is_flag=True, help="Run graphs with ops that touch files, the network or Python.")
@decay_option
@steps_option
@train_op_option
@common_options
def train_vs_eval(path: str, **asked: Any) -> int:
    """Compare batch statistics with stored ones: where the model goes wrong, how much, and why.

    PATH is a checkpoint (with the MetaGraph of the same prefix), SavedModel, Keras file or frozen graph.
    """
    own = {name: asked.pop(name) for name in _OWN}
    if own["graph"] is not None and own["no_graph"]:
        raise click.UsageError("--graph and --no-graph exclude each other")
    use_graph = not own.pop("no_graph")
    size, decay, train_ops = _size(own.pop("size")), own.pop("decay"), own.pop("train_op")

    def reports(config: Config, settings: Settings) -> list[Report]:
        with _progress() as progress:
            return [
                bncheck.compare_train_vs_eval(
                    path,
                    use_graph=use_graph,
                    size=size,
                    decay=config.decay if decay is None else decay,
                    train_ops=train_ops or config.train_op,
                    settings=settings,
                    progress=progress,
                    **own,
                )
            ]

    return write_reports(reports, asked)


_OWN = (
    "data labels preprocess channel_order size batch_size batches graph no_graph model builder inputs outputs "
    "trust_model decay steps train_op"
).split()


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise click.UsageError(f"--size {text}: HEIGHTxWIDTH is wanted, such as 224x224")
    return int(height), int(width)


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    """Samples, their rate and the time left on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415 - 36 ms that a pipe need not pay
    from rich.progress import (  # noqa: PLC0415 - as above
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415 - as above

    class Rate(ProgressColumn):
        """Samples a second."""

        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.0f} a second")

    columns = (TextColumn("train vs eval"), BarColumn(), TextColumn("{task.completed} samples"), Rate())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
