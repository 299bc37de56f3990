"""How `--help` looks: options and commands under headings; and what a word means that names no command."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

HEADINGS = ("Options", "Data", "Model", "Report")
"""In the order in which they are shown."""


_RANGE = re.compile(r"\s*\[x>=\d+\]")


class TableOption(click.Option):
    """An option that stands under a heading of the help."""

    def __init__(self, *names: Any, heading: str = "", **more: Any) -> None:
        super().__init__(*names, **more)
        self.heading = heading or "Options"

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """As click, without the range of a number: what is refused says it in words."""
        record = super().get_help_record(ctx)
        return None if record is None else (record[0], _RANGE.sub("", record[1]))


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
    """A group that loads some commands only when they are asked for, and knows what to do with a path."""

    def __init__(
        self,
        *args: Any,
        elsewhere: Mapping[str, str] | None = None,
        sections: Mapping[str, tuple[str, ...]] | None = None,
        of_paths: str = "",
        **kwargs: Any,
    ) -> None:
        """`elsewhere` is command -> module with a command of that name; `sections` are the headings of the help.

        A path in the place of a command is given to the command `of_paths`.
        """
        super().__init__(*args, **kwargs)
        self._elsewhere = dict(elsewhere or {})
        self._sections = dict(sections or {})
        self._of_paths = of_paths

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, by sections where there are any, else sorted."""
        names = sorted((*super().list_commands(ctx), *self._elsewhere))
        order = [name for section in self._sections.values() for name in section]
        return [*(name for name in order if name in names), *(name for name in names if name not in order)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, None where there is none."""
        if cmd_name not in self._elsewhere:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(self._elsewhere[cmd_name]), cmd_name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click; where the first word is a path, the command for paths is put before it."""
        own = {"-h", "--help", "--version"}
        if self._of_paths and args and args[0] not in own and self.get_command(ctx, args[0]) is None:
            first = next((word for word in args if word == "-" or not word.startswith("-")), "")
            if args[0].startswith("--") or names_path(first):
                args = [self._of_paths, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, but for the sentence where there is no such command."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing and not args[0].startswith("-"):
            raise click.UsageError(self._unknown(ctx, args), ctx)
        return super().resolve_command(ctx, args)

    def _unknown(self, ctx: click.Context, args: list[str]) -> str:
        import difflib  # noqa: PLC0415 - start-up

        near = difflib.get_close_matches(args[0].lower(), self.list_commands(ctx), n=1)
        paths = [word for word in args if names_path(word)]
        root = ctx.find_root().info_name or "bncheck"
        if near and args[0] not in paths:
            meant = [ctx.command_path, near[0], shlex.join(args[1:])]
        elif paths:
            meant = [root, "check", shlex.join(paths)]
        else:
            return f"there is no command {args[0]!r}: there are {', '.join(self.list_commands(ctx))}"
        return f"no command {args[0]!r}: did you mean `{' '.join(filter(None, meant))}`?"

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click, under headings where there are any."""
        names = self.list_commands(ctx)
        width = max(map(len, names))
        for heading, listed in (self._sections or {"Commands": tuple(names)}).items():
            told = [(name.ljust(width), self._help_of(ctx, name, formatter.width - width - 6)) for name in listed]
            with formatter.section(heading):
                formatter.write_dl(told)

    def _help_of(self, ctx: click.Context, name: str, limit: int) -> str:
        command = self.get_command(ctx, name)
        return "" if command is None else command.get_short_help_str(limit)


def names_path(word: str) -> bool:
    """Whether a word can only be meant as a path: something is there, or it has a separator, a wildcard or a suffix."""
    if word == "-" or os.path.lexists(word) or os.path.lexists(f"{word}.index"):
        return True
    return not word.startswith("-") and any(mark in word for mark in (os.sep, "/", "*", "?", "."))


def examples(*lines: str) -> str:
    """The epilog of a command: lines that click leaves as they are."""
    return "\n".join(("\b", "Examples:", *(f"  bncheck {line}" for line in lines)))
