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


def _help(path: tuple[str, ...]) -> str:
    result = CliRunner().invoke(cli.cli, [*path, "--help"], terminal_width=80)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_fits_80_columns(path: tuple[str, ...]) -> None:
    """No line is wider, and no command's one sentence is cut with dots."""
    text = _help(path)
    assert max(map(len, text.splitlines())) <= 80
    listed = text.partition("Commands:\n")[2]
    assert "..." not in listed


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
            named = command.get_command(click.Context(command), words.pop(0))
            assert named is not None
            command = named
        command.make_context("bncheck", words)
