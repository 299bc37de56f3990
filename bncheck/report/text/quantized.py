"""Float against quantized as lines of text and of Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts.findings import Report
from bncheck.report.escape import markdown, markdown_code, visible
from bncheck.report.text.comparison import (
    ROWS,
    facts_lines,
    head_lines,
    head_markdown,
    legend_lines,
    rest_line,
    table_lines,
    table_markdown,
)
from bncheck.report.text.layout import Line, pad
from bncheck.report.views.comparison import first_bad_layer
from bncheck.report.views.quantized import HEAD, LOSES, facts_told, losing, square, table, title

_LEGEND = (
    "local error: of this operator alone; total: with all before it; stats: of the stored statistics, in float; "
    "steps: error over scale (rounding alone: 0.29)"
)


def quantized_lines(report: Report, width: int, *, verbose: bool) -> Iterator[Line]:
    """Data, accuracy, who loses what, and the worst operators in execution order; all of them with `verbose`.

    Of a model that was broken before, and none of whose operators loses precision, the operators are no news.
    """
    measured = report.quantized
    if measured is None:
        return
    yield from head_lines(visible(title(measured)), measured.data)
    yield from facts_lines(facts_told(measured), width)
    if measured.attribution is not None:
        head, *rows = square(measured.attribution)
        widths = [max(len(row[n]) for row in (head, *rows)) for n in range(3)]
        for number, row in enumerate((head, *rows)):
            cells = (pad(row[0], widths[0]), *(pad(row[n], widths[n], right=True) for n in (1, 2)))
            yield (("  " + "  ".join(cells), "" if number else "label"),)
    shared, rows_of_table = table(report, None if verbose else ROWS)
    broken_before = first_bad_layer(report) is not None and not losing(report)
    if not rows_of_table or (broken_before and not verbose):
        return
    yield from table_lines((shared, *HEAD), rows_of_table, width, bad=LOSES)
    yield from rest_line(len(measured.operators) - len(rows_of_table), "operator")
    yield from legend_lines(_LEGEND, width)


def quantized_markdown(report: Report) -> Iterator[str]:
    """The same for a pull request."""
    measured = report.quantized
    if measured is None:
        return
    yield from head_markdown(markdown(title(measured)), measured.data, facts_told(measured))
    if measured.attribution is not None:
        head, *rows = square(measured.attribution)
        yield ""
        yield "| " + " | ".join(head) + " |"
        yield "|---|--:|--:|"
        yield from ("| " + " | ".join(row) + " |" for row in rows)
    shared, operators = table(report, ROWS)
    if operators:
        yield ""
        yield from table_markdown(("operator" if shared == "operator" else markdown_code(shared), *HEAD), operators)
