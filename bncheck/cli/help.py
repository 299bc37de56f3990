"""How `--help` looks: options under headings, and examples that can be typed as they stand."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

HEADINGS = ("Options", "Data", "Model", "Report")
"""In the order in which they are shown."""


class TableOption(click.Option):
    """An option that stands under a heading of the help."""

    def __init__(self, *names: Any, heading: str = "", **more: Any) -> None:
        super().__init__(*names, **more)
        self.heading = heading or "Options"


class Command(click.Command):
    """A command whose many options are told apart by what they are about."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click, under headings."""
        records: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            # later versions of click give arguments a record too; what they are stands in the text above
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                records[parameter.heading if isinstance(parameter, TableOption) else "Options"].append(record)
        for heading, shown in records.items():
            if shown:
                with formatter.section(heading):
                    formatter.write_dl(shown)


class Commands(click.Group):
    """A group some of whose commands have modules of their own, each imported when its command is asked for."""

    def __init__(self, *args: Any, elsewhere: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        """`elsewhere`: name of a command -> module that has it under this name."""
        super().__init__(*args, **kwargs)
        self._elsewhere = elsewhere or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted((*super().list_commands(ctx), *self._elsewhere))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, None where there is none."""
        if cmd_name not in self._elsewhere:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(self._elsewhere[cmd_name]), cmd_name)
        return command


def examples(*lines: str) -> str:
    """The epilog of a command: lines that click leaves as they are."""
    return "\n".join(("\b", "Examples:", *(f"  bncheck {line}" for line in lines)))
