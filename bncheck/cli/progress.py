"""Bars on standard error for what takes long: which stage runs, the samples done, their rate, the time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from bncheck.settings.options import silent


class Hear(Protocol):
    """Hears of a stage, the samples done, and how many there will be; None unknown."""

    def __call__(self, stage: str, done: int, total: int | None = None, /) -> None:
        """`done` counts from the start of the stage."""


def expected_told(*, quiet: bool = False) -> Callable[[float], None]:
    """Says on standard error, be it a terminal or a log, how many seconds made-up samples will take."""

    def tell(seconds: float) -> None:
        import click  # noqa: PLC0415 - start-up

        from bncheck.facts.wording import about_time  # noqa: PLC0415 - as above

        click.echo(f"The synthetic samples will take {about_time(seconds)}.", err=True)

    return silent if quiet else tell


@contextmanager
def progress_shown(*, quiet: bool = False) -> Iterator[Hear]:
    """A bar for the stage that runs, until the next one's first samples, where standard error is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda _stage, _done, _total=None: None
        return
    from rich.console import Console  # noqa: PLC0415 - 36 ms that a pipe need not pay
    from rich.progress import (  # noqa: PLC0415 - as above
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskID,
        TextColumn,
    )
    from rich.text import Text  # noqa: PLC0415 - as above

    from bncheck.facts.wording import about_time  # noqa: PLC0415 - as above

    class Rate(ProgressColumn):
        """Samples a second."""

        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.0f} a second")

    class Left(ProgressColumn):
        """Time left, from the first batch on; that of a stage whose samples are told once for all of its passes."""

        def render(self, task: Task) -> Text:
            if not task.completed or not task.total or task.finished or not task.elapsed:
                return Text("")
            return Text(f"{about_time(task.elapsed * (task.total - task.completed) / task.completed)} left")

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} samples"), Rate())
    # standard output is not for rich to redirect: it may be a file
    console = Console(stderr=True)
    with Progress(*columns, Left(), console=console, transient=True, redirect_stdout=False) as shown:
        bars: dict[str, TaskID] = {}

        def hear(stage: str, done: int, total: int | None = None, /) -> None:
            if stage not in bars:
                for bar in bars.values():
                    shown.update(bar, visible=False)
                bars[stage] = shown.add_task(stage, total=total)
            shown.update(bars[stage], completed=done, total=total)

        yield hear
