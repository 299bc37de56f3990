"""Node data for Model Explorer: load this file beside the graph, and its nodes carry what was found or measured.

The form is that of google-ai-edge/model-explorer, `node_data_builder.py`: `results` by node, each with a value and
colours. A key is an output tensor of a TFLite operator, or, for a layer's site, the name of its op and the op's place
in the file: that place is what Model Explorer's own readers of frozen graphs and SavedModels take for the node's id.
Values are the most telling that the report holds: SQNR in decibels where it was measured, else the findings. No name
of a graph is given, so that it fits whichever graph is open: the file that the report is about, or its `.tflite`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from bncheck.facts.findings import Finding, Report, Severity
from bncheck.facts.layers import Site
from bncheck.facts.ratios import sqnr_db
from bncheck.report.views.comparison import DIVERGES, INHERITS, states

_ERROR, _WARNING, _INFO, _GOOD = "#f4b6b0", "#f9dfad", "#cfe0f5", "#cdebd9"
_SEVERITY = {Severity.ERROR: _ERROR, Severity.WARNING: _WARNING, Severity.INFO: _INFO}
_STATE = {DIVERGES: _ERROR, INHERITS: _WARNING}
_TEXT = "#18212f"


def write(report: Report, stream: TextIO) -> None:
    """Writes the node data of one report."""
    stream.write(json.dumps({"results": dict(_results(report))}, indent=2, allow_nan=False) + "\n")


def write_run(reports: Sequence[Report], stream: TextIO) -> None:
    """Writes those of the run's last checkpoint: its graph is the same for all."""
    write(reports[-1], stream)


def _results(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    if report.quantized is not None:
        yield from _quantized(report)
    if report.comparison is not None:
        yield from _compared(report)
    elif report.quantized is None:
        yield from _found(report)


def _quantized(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """By output tensor of the quantized file: SQNR of the operator alone."""
    named = _named(report)
    for operator in report.quantized.operators if report.quantized is not None else ():
        found = named.get(operator.layer or operator.name) or named.get(operator.name)
        colour = _GOOD if found is None else _SEVERITY[found.severity]
        yield operator.tensor, _result(_decibel(operator.local_nmse), colour)


def _compared(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """By site: SQNR of the layer alone, train mode against eval mode."""
    sites = {layer.name: layer.sites for layer in report.layers}
    state = states(report)
    for layer in report.comparison.layers if report.comparison is not None else ():
        value = _result(_decibel(layer.local_nmse), _STATE.get(state[layer.layer], _GOOD))
        for site in sites.get(layer.layer, ()):
            yield from _at(site, value, report)


def _found(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """By site, or by operator of a TFLite file: the codes of what was found there."""
    named = _named(report)
    codes: dict[str, list[str]] = {}
    for finding in report.findings:
        for name in finding.layers:
            codes.setdefault(name, []).append(finding.code)
    for layer in report.layers:
        value = _told(codes.get(layer.name, []), named.get(layer.name))
        for site in layer.sites:
            yield from _at(site, value, report)
    for operator in report.lite.folded if report.lite is not None else ():
        yield operator.tensor or operator.name, _told(codes.get(operator.name, []), named.get(operator.name))


def _at(site: Site, value: dict[str, Any], report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    yield site.name, value
    # it opens no MetaGraph, and in another file the same place is another node
    if site.node is not None and not (report.target.graph_path or report.target.path).endswith(".meta"):
        yield str(site.node), value


def _told(codes: Sequence[str], worst: Finding | None) -> dict[str, Any]:
    if worst is None:
        return _result("nothing found", _GOOD)
    return _result(f"{worst.severity.value}: {' '.join(dict.fromkeys(codes))}", _SEVERITY[worst.severity])


def _named(report: Report) -> Mapping[str, Finding]:
    """Layer or operator -> the worst finding that names it."""
    found: dict[str, Finding] = {}
    for finding in sorted(report.findings, key=lambda f: list(Severity).index(f.severity)):
        for name in finding.layers:
            found.setdefault(name, finding)
    return found


def _result(value: float | str, colour: str) -> dict[str, Any]:
    return {"value": value, "bgColor": colour, "textColor": _TEXT}


def _decibel(nmse: float) -> float | str:
    """SQNR to a tenth, or in words what JSON has no number for."""
    value = sqnr_db(nmse)
    if math.isfinite(value):
        return round(value, 1)
    return "no error" if nmse == 0 else "not finite"
