"""Completion in shells: the script of one, and what it offers for paths and codes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")
_LOADS = {
    "~/.bashrc": 'eval "$(bncheck completion bash)"',
    "~/.zshrc": 'eval "$(bncheck completion zsh)"',
    "~/.config/fish/config.fish": "source (bncheck completion fish | psub)",
}


@click.command(
    epilog="\n".join(("\b", "To turn it on, add", *(f"  {line}\nto {file}" for file, line in _LOADS.items())))
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    It completes commands, options, paths, prefixes of checkpoints, and codes of rules.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - start-up

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "bncheck", "_BNCHECK_COMPLETE").source())


def complete_paths(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Prefixes of checkpoints instead of their parts, and what else lies there; without any, the shell's own."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - start-up

    folder, start = os.path.split(incomplete)
    try:
        listed = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        return []
    prefixes = {entry.name.removesuffix(".index") for entry in listed if entry.name.endswith(".index")} - {""}
    others = [e for e in listed if not _is_part(e.name, prefixes) and (start.startswith(".") or e.name[0] != ".")]
    offered = {entry.name: f"{entry.name}/" if entry.is_dir() else entry.name for entry in others}
    offered |= {prefix: prefix for prefix in prefixes}
    shown = [text for name, text in sorted(offered.items()) if name.startswith(start)]
    if prefixes.isdisjoint(shown):
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(str(Path(folder, text)) + "/" * text.endswith("/")) for text in shown]


def _is_part(name: str, prefixes: set[str]) -> bool:
    """Whether a file is one of those that make up a checkpoint: its prefix is offered instead."""
    stem, _, suffix = name.rpartition(".")
    return name == "checkpoint" or (stem in prefixes and (suffix in ("index", "meta") or suffix.startswith("data-")))


def complete_codes(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Codes of rules with their names; of a list, the last one."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - start-up

    from bncheck.rules import RULES  # noqa: PLC0415 - start-up

    before, comma, last = incomplete.rpartition(",")
    return [
        CompletionItem(before + comma + code, help=slug)
        for code, slug in RULES.slugs.items()
        if code.startswith(last.upper())
    ]
