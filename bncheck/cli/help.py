"""How `--help` looks: options under headings, and examples that can be typed as they stand."""

from __future__ import annotations

import click

_HEADINGS = {
    "Data": "labels preprocess channel_order size batch_size batches",
    "Model": "graph no_graph model builder inputs outputs trust_model decay steps train_op reference",
    "Report": "format_ output fail_on select ignore baseline config allow_empty quiet verbose",
}
"""Heading -> the options under it, by the names of their parameters; all others come first, under "Options"."""


class Command(click.Command):
    """A command whose many options are told apart by what they are about."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click, under headings."""
        under = {name: heading for heading, names in _HEADINGS.items() for name in names.split()}
        records: dict[str, list[tuple[str, str]]] = {heading: [] for heading in ("Options", *_HEADINGS)}
        for parameter in self.get_params(ctx):
            # later versions of click give arguments a record too; what they are stands in the text above
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                records[under.get(parameter.name or "", "Options")].append(record)
        for heading, shown in records.items():
            if shown:
                with formatter.section(heading):
                    formatter.write_dl(shown)


def examples(*lines: str) -> str:
    """The epilog of a command: lines that click leaves as they are."""
    return "\n".join(("\b", "Examples:", *(f"  bncheck {line}" for line in lines)))
