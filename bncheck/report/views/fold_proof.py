"""Which statistics a TFLite or ONNX file has folded in: as JSON, as lines of text, and for a pull request."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np

from bncheck.facts.findings import Report
from bncheck.facts.measurements import FoldedLayer, FoldProof
from bncheck.report.escape import markdown
from bncheck.report.text.comparison import ROWS, facts_lines, table_lines, table_markdown
from bncheck.report.text.layout import Line

HEAD = ("layer", "holds", "differs by", "allowed")
"""Of the table; the first column is the name."""

_HOLDS = {
    "stored": "hold the stored statistics",
    "initial": "hold the initial statistics",
    "shadow": "hold averages of the statistics",
    "reference": "hold the reference's statistics",
    "other": "hold something else",
    "unmatched": "were not found",
}
_BAD = "other"


def fold_document(proof: FoldProof | None) -> dict[str, Any] | None:
    """The fold proof as plain dictionaries and lists; None where there is none."""
    if proof is None:
        return None
    return {
        "path": proof.path,
        "source": proof.source,
        "layers": [
            {
                "name": layer.layer,
                "operator": layer.operator,
                "folded": layer.folded,
                "error": layer.error,
                "tolerance": layer.tolerance,
                "why": layer.why,
                "weights": layer.weights,
                "epsilon": layer.epsilon,
                "epsilon_known": layer.epsilon_known,
                "never_moved": layer.never_moved,
                "scale_ratio": _span(layer),
            }
            for layer in proof.layers
        ],
    }


def fold_lines(report: Report, width: int, *, verbose: bool) -> Iterator[Line]:
    """What was found of how many layers, and those that are not confirmed; all of them with `verbose`."""
    proof = report.fold
    if proof is None:
        return
    yield ()
    yield ("What was folded in", "label"), ("", "")
    yield from facts_lines(fold_told(proof), width)
    rows, left = _rows(proof, everything=verbose)
    if rows:
        yield from table_lines(HEAD, rows, width, bad=_BAD)
    if left:
        yield ((f"  and {left} more: --verbose", "dim"),)
    if verbose:
        whys = [
            (f"{layer.layer} ({layer.operator})" if layer.operator else layer.layer, layer.why)
            for layer in proof.layers
        ]
        for name, why in whys:
            if why:
                yield from facts_lines([("", f"{name}: {why}")], width)


def fold_markdown(report: Report) -> Iterator[str]:
    """The same for a pull request."""
    proof = report.fold
    if proof is None:
        return
    yield "### What was folded in"
    yield ""
    yield from (f"- {label}: {markdown(text)}" for label, text in fold_told(proof))
    rows, _ = _rows(proof, everything=False)
    if rows:
        yield ""
        yield from table_markdown(HEAD, rows)


def fold_told(proof: FoldProof) -> list[tuple[str, str]]:
    """(label, text) of source, layers by what they hold, and the largest difference."""
    count = Counter(layer.folded for layer in proof.layers)
    confirmed = [layer for layer in proof.layers if layer.folded == "stored"]
    total = len(proof.layers)
    parts = [f"{number} of {total} {_HOLDS[folded]}" for folded, number in count.items()]
    if len(count) == 1:
        parts = [f"all {total} {_HOLDS[proof.layers[0].folded]}"]
    told = [
        ("Source", PurePath(proof.source).name or proof.source),
        ("Layers", ", ".join(parts) or "none"),
    ]
    if confirmed:
        worst = max(confirmed, key=lambda layer: layer.error)
        told.append(
            (
                "Differs",
                f"by at most {worst.error:.2g} of a layer's largest value (rounding allows {worst.tolerance:.2g})",
            )
        )
    return told


def _rows(proof: FoldProof, *, everything: bool) -> tuple[list[tuple[str, ...]], int]:
    """(rows, how many were left out)."""
    chosen = [layer for layer in proof.layers if everything or layer.folded != "stored"]
    if not everything and all(layer.folded == "unmatched" for layer in proof.layers):
        return [], 0
    shown = chosen if everything else chosen[:ROWS]
    rows: list[tuple[str, ...]] = [
        (layer.layer, layer.folded, _number(layer.error), _number(layer.tolerance)) for layer in shown
    ]
    return rows, len(chosen) - len(shown)


def _number(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else ""


def _span(layer: FoldedLayer) -> list[float] | None:
    """Smallest, median and largest finite scale ratio."""
    ratio = layer.scale_ratio
    finite = None if ratio is None else np.sort(ratio[np.isfinite(ratio)])
    if finite is None or not finite.size:
        return None
    return [float(finite[0]), float(finite[finite.size // 2]), float(finite[-1])]
