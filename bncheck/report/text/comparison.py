"""The comparison as lines of text and of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bncheck.facts.findings import Report
from bncheck.facts.measurements import DataFacts
from bncheck.facts.wording import many
from bncheck.report.escape import markdown, markdown_code, visible
from bncheck.report.text.layout import Line, cells, hanging, pad, wrap
from bncheck.report.views.comparison import DIVERGES, HEAD, LEGEND, facts_told, first_bad_layer, table

ROWS = 4
"""Layers that are shown without --verbose."""


def comparison_lines(report: Report, width: int, *, verbose: bool) -> Iterator[Line]:
    """Data, accuracy, outputs, and the worst layers in forward order; all of them with `verbose`.

    Of a model that was quantized too, the layers only where this step is the one that loses.
    """
    comparison = report.comparison
    if comparison is None:
        return
    yield from head_lines("Train mode vs eval mode", comparison.data)
    yield from facts_lines(facts_told(comparison), width)
    if report.quantized is not None and not verbose and first_bad_layer(report) is None:
        return
    shared, rows = table(report, None if verbose else ROWS)
    yield from table_lines((shared, *HEAD), rows, width, bad=DIVERGES)
    yield from rest_line(len(comparison.layers) - len(rows), "layer")
    yield from legend_lines(LEGEND, width)


def head_lines(title: str, data: DataFacts) -> Iterator[Line]:
    """What was compared; that synthetic data say nothing."""
    yield ()
    yield (
        (title, "label"),
        (" · synthetic noise: says nothing about real data" if data.synthetic else "", "inconclusive"),
    )


def legend_lines(text: str, width: int) -> Iterator[Line]:
    """What the columns of a table hold, below it."""
    yield from ((("  " + line, "dim"),) for line in wrap(text, width - 2))


def rest_line(left: int, noun: str) -> Iterator[Line]:
    """How many rows were left out, and how to have them; nothing where there are none."""
    if left:
        yield ((f"  and {many(left, noun)} with a smaller error: --verbose", "dim"),)


def facts_lines(facts: Sequence[tuple[str, str]], width: int) -> Iterator[Line]:
    """A label and its text, which hangs beside it."""
    for label, text in facts:
        yield from hanging(label, visible(text), width)


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, bad: str) -> Iterator[Line]:
    """Rows under a head, columns without any content left out; a name that is too long gets lines of its own.

    The first column is the name, the second a state, set to the left; rows whose state is `bad` stand out. Where names
    need the room, the heads of the other columns go on two lines.
    """
    title = visible(head[0])
    used = [0, *(n for n in range(1, len(head)) if any(row[n] for row in rows))]
    longest = max((cells(visible(row[0])) for row in rows), default=0)
    heads = [(title, *head[1:])]
    widths = _widths(heads, rows, used, width)
    if longest > widths[0]:
        heads = [("", *(_halves(text)[half] for text in head[1:])) for half in (0, 1)]
        widths = _widths(heads, rows, used, width)
    if cells(title) > widths[0]:
        yield from ((("  " + line, "label"),) for line in wrap(title, width - 2))
        title = ""
    heads[-1] = (title, *heads[-1][1:])
    yield from (((_row(line, widths, used), "label"),) for line in heads)
    for row in rows:
        name = visible(row[0])
        if cells(name) > widths[0]:
            yield from ((("  " + line, ""),) for line in wrap(name, width - 2))
            name = ""
        yield ((_row((name, *row[1:]), widths, used), "error" if row[1] == bad else ""),)


def _widths(
    heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], used: Sequence[int], width: int
) -> list[int]:
    """Of each column; of the names as much as they need and the others leave."""
    widths = [max((cells(visible(row[n])) for row in (*heads, *rows)), default=0) for n in range(len(heads[0]))]
    room = width - 2 - sum(widths[n] + 2 for n in used[1:])
    widths[0] = max(12, min(widths[0], room))
    return widths


def _row(row: Sequence[str], widths: Sequence[int], used: Sequence[int]) -> str:
    found = [pad(row[0], widths[0]), *(pad(row[n], widths[n], right=n > 1) for n in used[1:])]
    return ("  " + "  ".join(found)).rstrip()


def _halves(text: str) -> tuple[str, str]:
    """`local dB` in two lines; a word alone stands in the lower one."""
    first, _, second = text.rpartition(" ")
    return first, second


def comparison_markdown(report: Report) -> Iterator[str]:
    """The same for a pull request: facts as a list, layers as a table."""
    comparison = report.comparison
    if comparison is None:
        return
    yield from head_markdown("Train mode vs eval mode", comparison.data, facts_told(comparison))
    yield ""
    shared, rows = table(report, ROWS)
    yield from table_markdown(("layer" if shared == "layer" else markdown_code(shared), *HEAD), rows)


def head_markdown(title: str, data: DataFacts, facts: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A heading, and the facts below it as a list."""
    yield f"### {title}"
    yield ""
    if data.synthetic:
        yield "- **synthetic noise**: says nothing about real data"
    yield from (f"- {label}: {markdown(text)}" for label, text in facts)


def table_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows under a head, the first column being names."""
    yield "| " + " | ".join(head) + " |"
    yield "|---|---" + "|--:" * (len(head) - 2) + "|"
    for row in rows:
        yield "| " + " | ".join((markdown_code(row[0]), *row[1:])) + " |"
