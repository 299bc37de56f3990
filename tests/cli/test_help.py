"""`--help`: every option once, under its heading, within 80 columns, and examples that are understood as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from bncheck.cli import main as cli
from bncheck.cli.help import HEADINGS, Command, TableOption


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(_commands(cli.cli))
MANY = {path: command for path, command in ALL.items() if isinstance(command, Command)}


def _help(path: tuple[str, ...], width: int = 80) -> str:
    result = CliRunner().invoke(cli.cli, [*path, "--help"], terminal_width=width)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_fits_the_terminal(path: tuple[str, ...], width: int) -> None:
    """No line is wider but examples, which are copied whole, and no command's one sentence is cut with dots."""
    text = _help(path, width)
    assert max(len(line) for line in text.splitlines() if not line.startswith("    bncheck ")) <= width
    if width == 80 and isinstance(ALL[path], click.Group):
        assert "..." not in text.partition("Options:\n")[2]


def test_commands_stand_under_headings() -> None:
    """Each once, none forgotten."""
    listed = re.findall(r"(?m)^  ([a-z]+)  ", _help(()).partition("Options:\n")[2].partition("Examples:")[0])
    assert sorted(listed) == sorted({path[0] for path in ALL if path})


@pytest.mark.parametrize("path", MANY, ids=" ".join)
def test_each_option_has_one_place(path: tuple[str, ...]) -> None:
    """None is lost between the headings, none is told twice."""
    shown = re.findall(r"(?m)^  (?:-\w, )?(--[a-z-]+)", _help(path).partition("Options:\n")[2])
    options = [p for p in MANY[path].params if isinstance(p, click.Option) and not p.hidden]
    assert sorted(shown) == sorted(["--help", *(max(option.opts, key=len) for option in options)])


def test_headings_are_those_of_the_help() -> None:
    """An option under a heading that the help does not know would be lost."""
    options = [p for command in MANY.values() for p in command.params if isinstance(p, TableOption)]
    assert {option.heading for option in options} == set(HEADINGS)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_examples_are_understood(path: tuple[str, ...]) -> None:
    """Each example is a command line that parses."""
    lines = re.findall(r"(?m)^    bncheck (.+)$", _help(path))
    assert bool(lines) == (path in MANY or not path)
    for line in lines:
        words = shlex.split(line)
        command: click.Command = cli.cli
        while isinstance(command, click.Group):
            named = command.get_command(click.Context(command), words[0])
            if named is None:
                named = ALL[("check",)]
            else:
                words.pop(0)
            command = named
        command.make_context("bncheck", words)
