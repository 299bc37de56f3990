"""One layer in few words: mode, decay, init share, what its statistics are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bncheck.facts.findings import Report
from bncheck.facts.layers import Layer, Presence, Vector
from bncheck.numerics.init_share import InitShare, init_shares
from bncheck.report.escape import visible
from bncheck.report.text.layout import Line, cells, pad, wrap
from bncheck.report.views.short_names import shortened


def shares(report: Report) -> Mapping[str, InitShare]:
    """Layer -> its init share, of those where counters tell it and values do not rule it out."""
    return {known.layer.name: known for known in init_shares(report.layers, report.target.updates)}


def modes(layer: Layer) -> str:
    """The modes of a layer's sites, each once: "train, eval"."""
    return ", ".join(dict.fromkeys(site.mode.value for site in layer.sites))


def layer_table(report: Report, width: int) -> Iterator[Line]:
    """A table of all layers, nothing left out: what does not fit its column has a line of its own.

    Where names need the room, what is the same of all layers is told once above the table.
    """
    title, short = shortened([layer.name for layer in report.layers])
    head = (visible(title), "ch", "mode", "decay", "share", "moved", "mean", "variance")
    known = shares(report)
    rows = [(visible(short[layer.name]), *_row(layer, known.get(layer.name))) for layer in report.layers]
    used = [n for n in range(8) if n == 0 or any(row[n] for row in rows)]
    widths = [max(cells(row[n]) for row in (head, *rows)) for n in range(8)]
    if len(rows) > 1 and _needed(widths, used) > width:
        same = [n for n in used[1:] if len({row[n] for row in rows}) == 1]
        if same:
            yield (("all layers: ", "label"), (", ".join(f"{head[n]} {rows[0][n]}" for n in same), ""))
        used = [n for n in used if n not in same]
    widths[0] = min(widths[0], max(16, width - _needed(widths, used[1:]) - 2))
    for number, row in enumerate((head, *rows)):
        style = "" if number else "label"
        name = row[0]
        if cells(name) > widths[0]:
            yield from (((line, style),) for line in wrap(name, width))
            name = ""
        yield (("  ".join([pad(name, widths[0]), *(pad(row[n], widths[n]) for n in used[1:])]).rstrip(), style),)


def _needed(widths: Sequence[int], used: Sequence[int]) -> int:
    return sum(widths[n] for n in used) + 2 * (len(used) - 1)


def _row(layer: Layer, known: InitShare | None) -> tuple[str, ...]:
    moved = "?" if layer.moved is None else "yes" if layer.moved else "no"
    return (
        "" if layer.channels is None else str(layer.channels),
        modes(layer),
        "" if layer.decay is None else f"{layer.decay:.6g}",
        "" if known is None else f"{known.share:.1%}",
        moved,
        _span(layer.mean),
        _span(layer.variance),
    )


def _span(vector: Vector) -> str:
    from bncheck.numerics.spread import spread  # noqa: PLC0415 - start-up

    found = spread(vector.values)
    if found is not None:
        broken = f" +{found.non_finite} not finite" if found.non_finite else ""
        return f"{_short(found.smallest)}..{_short(found.largest)}{broken}"
    if vector.presence is Presence.PRESENT:
        return "not finite"
    if vector.constant is not None:
        return f"all {vector.constant:g}"
    return str(vector.presence.value)


def _short(value: float) -> str:
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.2g}"
