"""`bncheck inspect`: a command a module, imported when it is asked for."""

from __future__ import annotations

import click

from bncheck.cli.help import Commands

_MODULES = {"checkpoint": "checkpoint", "graph": "graph", "model": "model", "run": "training_run"}


@click.group(cls=Commands, elsewhere={name: f"{__name__}.{module}" for name, module in _MODULES.items()})
def inspect() -> None:
    """Judge one kind of file; no TensorFlow, no data.

    `check` finds out by itself what a path is. These say it, and refuse anything else. Nothing that is in a file is
    executed.
    """
