"""`bncheck inspect`: a command a module, imported when it is asked for."""

from __future__ import annotations

import click

from bncheck.cli.help import Commands

_MODULES = {"checkpoint": "checkpoint", "graph": "graph", "model": "model", "run": "training_run"}


@click.group(cls=Commands, elsewhere={name: f"{__name__}.{module}" for name, module in _MODULES.items()})
def inspect() -> None:
    """Judge files as they are: no TensorFlow, no data.

    Nothing that is in a file is executed.
    """
