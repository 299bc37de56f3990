"""`bncheck inspect`: a command a module, imported when it is asked for."""

from __future__ import annotations

import click

from bncheck.cli.help import Commands


@click.group(cls=Commands, package="bncheck.cli.inspect", elsewhere=("checkpoint", "graph", "model", "run"))
def inspect() -> None:
    """Judge files as they are: no TensorFlow, no data.

    Nothing that is in a file is executed.
    """
