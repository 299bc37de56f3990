"""Click's options, made of the table in `settings`, and what was given of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from bncheck.cli.completion import complete_codes
from bncheck.cli.help import TableOption
from bncheck.report import FORMATS
from bncheck.settings import kinds
from bncheck.settings.config_file import Config
from bncheck.settings.kinds import ValueKind
from bncheck.settings.options import CommandName, Option, Options, listed, turned

_Command = TypeVar("_Command", bound=Callable[..., Any])

_TYPES: Mapping[ValueKind, Mapping[str, Any]] = {
    kinds.TEXTS: {"multiple": True},
    kinds.CODES: {"multiple": True, "shell_complete": complete_codes},
    kinds.PATH: {"type": click.Path(path_type=Path)},
    kinds.FLAG: {"is_flag": True, "default": None},
    kinds.COUNT: {"type": click.IntRange(min=1)},
    kinds.SHARE: {"type": float},
    kinds.WHOLE: {"type": int},
    kinds.FORMAT: {"type": click.Choice(FORMATS)},
}
"""What click reads a kind by; others are texts."""


def takes_options(command: CommandName, *, reports: bool = True) -> Callable[[_Command], _Command]:
    """Gives a click command the options of its name and, where it writes reports, those that all of these share."""
    every = [*listed(Options, command), *(listed(Config) if reports else ())]

    def decorate(function: _Command) -> _Command:
        for _, how, flag in reversed(every):
            function = _click_option(how, flag, command)(function)
        return function

    return decorate


def _click_option(how: Option, flag: str, command: CommandName) -> Callable[[_Command], _Command]:
    kind = how.kind
    return click.option(
        *filter(None, (how.short, flag, _parameter(flag))),
        cls=TableOption,
        heading=how.heading,
        help=how.helps.get(command, how.help),
        metavar=how.metavar,
        required=command in how.required,
        callback=_typed(kind),
        **({"type": click.Choice(kind.choices)} if kind.choices else _TYPES.get(kind, {})),
    )


def _typed(kind: ValueKind) -> Callable[[click.Context, click.Parameter, Any], object]:
    """What a typed text stands for."""

    def read(_context: click.Context, parameter: click.Parameter, value: Any) -> object:
        if kind.typed is None or value in (None, ()):
            return value
        try:
            return kind.typed(value)
        except ValueError as error:
            raise click.BadParameter(str(error), param=parameter) from None

    return read


def _parameter(flag: str) -> str:
    """Click's name of it."""
    return flag.removeprefix("--").replace("-", "_")


def _given(table: type, asked: Mapping[str, Any], command: CommandName | None = None) -> Iterator[tuple[str, Any]]:
    for each, _, flag in listed(table, command):
        value = asked.get(_parameter(flag))
        if value not in (None, ()):
            yield each.name, turned(each, value)


def options_given(asked: Mapping[str, Any], command: CommandName, config: Config | None = None) -> dict[str, Any]:
    """What was given of a command's options, else configured, as the Python API names it.

    Raises click.UsageError for what excludes each other.
    """
    given = dict(_given(Options, asked, command))
    if given.get("graph") is not None and not given.get("use_graph", True):
        raise click.UsageError("--graph and --no-graph exclude each other")
    return given if config is None else {**config.of_command(command), **given}


def reporting_given(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of the options that all reports share, by the fields of `Config`."""
    return dict(_given(Config, asked))
