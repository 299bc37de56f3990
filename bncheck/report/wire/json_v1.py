"""JSON, version 1: a wire form of its own, described by json_v1.schema.json beside this file.

Numbers stay numbers; one that JSON cannot hold is written as "NaN", "Infinity" or "-Infinity". Everything outside
ASCII is escaped, so that the text survives any encoding. `suppressed` findings stand apart from `findings`; a report
can be given back as `--baseline`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, TextIO

from bncheck.facts.findings import Finding, Measurement, NotChecked, Report, TargetInfo
from bncheck.facts.layers import Layer, Site, Switch, Update, Vector
from bncheck.facts.ratios import sqnr_db
from bncheck.facts.training_run import RunStory
from bncheck.numerics.fold_forecast import forecast
from bncheck.numerics.init_share import InitShare
from bncheck.numerics.spread import spread
from bncheck.numerics.training_run.story import run_stories
from bncheck.report.views.comparison import comparison_document
from bncheck.report.views.fold_proof import fold_document
from bncheck.report.views.gate import gate_document
from bncheck.report.views.layers import shares
from bncheck.report.views.quantized import quantized_document
from bncheck.report.views.story import counts
from bncheck.version import __version__

SCHEMA = 1


def write(report: Report, stream: TextIO) -> None:
    """Writes one report as a JSON object."""
    stream.write(dumps(report) + "\n")


def write_run(reports: Sequence[Report], stream: TextIO) -> None:
    """Writes an object whose `reports` are those of the runs, in order, and whose `runs` are their stories."""
    document = {
        "schema": SCHEMA,
        "tool": tool_document(),
        "runs": [_run_document(story) for story in run_stories(reports)],
        "reports": [report_document(report) for report in reports],
    }
    stream.write(as_text(document) + "\n")


def dumps(report: Report) -> str:
    """One report as JSON text."""
    return as_text(report_document(report))


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `write` and `write_run` write."""
    text = files("bncheck.report").joinpath("json_v1.schema.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def report_document(report: Report) -> dict[str, Any]:
    """One report as plain dictionaries and lists.

    `comparison` is the last that was run, float against quantized where there is one; `comparisons` are all.
    """
    found = (quantized_document(report), comparison_document(report))
    comparisons = [document for document in found if document is not None]
    known = shares(report)
    return {
        "schema": SCHEMA,
        "tool": tool_document(),
        "target": target_document(report.target),
        "verdict": report.verdict.value,
        "exit_code": report.exit_code,
        "reason": report.headline,
        "counts": counts(report),
        "layers": [_layer(layer, known.get(layer.name)) for layer in report.layers],
        "findings": [finding_document(finding) for finding in report.findings],
        "suppressed": [{**finding_document(s.finding), "by": s.by} for s in report.suppressed],
        "checked": list(report.checked),
        "not_checked": [_not_checked(entry) for entry in report.not_checked],
        "comparison": comparisons[0] if comparisons else None,
        "comparisons": comparisons,
        "fold": fold_document(report.fold),
        "gate": gate_document(report.gate),
        "timing": dict(report.timing),
        "configuration": None if report.configuration is None else str(report.configuration),
    }


def _run_document(story: RunStory) -> dict[str, Any]:
    """The story of a run; checkpoints are named by their places in it, from 0."""
    return {
        "path": story.path,
        "checkpoints": [{"name": n, "step": s} for n, s in zip(story.names, story.steps, strict=True)],
        "events": [
            {
                "kind": event.kind.value,
                "severity": event.severity.value,
                "message": event.message,
                "after": event.after,
                "by": event.by,
                "layers": list(event.layers),
            }
            for event in story.events
        ],
        "causes": [
            {
                "code": cause.code,
                "slug": cause.slug,
                "severity": cause.severity.value,
                "spans": [list(span) for span in cause.spans],
            }
            for cause in story.causes
        ],
        "outlook": story.outlook,
        "series": [{"title": title, "values": list(values)} for title, values in story.series.items()],
        "first_good": story.first_good,
        "last_good": story.last_good,
        "why_none_good": story.why_none,
    }


def finding_document(finding: Finding) -> dict[str, Any]:
    """One finding; `layer` is the first of `layers`, null where it is about the whole model."""
    return {
        "code": finding.code,
        "slug": finding.slug,
        "severity": finding.severity.value,
        "confidence": finding.confidence.value,
        "layer": finding.layer or None,
        "layers": list(finding.layers),
        "location": finding.location,
        "message": finding.message,
        "why": finding.why,
        "fix": finding.fix,
        "evidence": [_measurement(m) for m in finding.evidence],
        "fingerprint": finding.fingerprint,
        "caused_by": finding.caused_by,
    }


def as_text(document: Mapping[str, Any]) -> str:
    """JSON, all that it cannot hold written as text."""
    return json.dumps(_finite(document), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    """The same value with numbers that JSON lacks written as text, and numpy's as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if hasattr(value, "item"):
        return _finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def tool_document() -> dict[str, str]:
    """Who wrote it."""
    return {"name": "bncheck", "version": __version__}


def target_document(target: TargetInfo) -> dict[str, Any]:
    """What was judged."""
    return {
        "path": target.path,
        "format": target.format,
        "graph": target.graph_path,
        "step": target.step,
        "updates": target.updates,
        "updates_from": target.updates_from,
        "notes": list(target.notes),
    }


def _not_checked(entry: NotChecked) -> dict[str, Any]:
    return {"what": entry.what, "why": entry.why, "how": entry.how, "codes": list(entry.codes)}


def _measurement(measurement: Measurement) -> dict[str, Any]:
    return {
        "name": measurement.name,
        "value": measurement.value,
        "limit": measurement.limit,
        "unit": measurement.unit,
    }


def _layer(layer: Layer, known: InitShare | None) -> dict[str, Any]:
    return {
        "name": layer.name,
        "recognised_by": layer.origin.value,
        "channels": layer.channels,
        "epsilon": layer.epsilon,
        "decay": layer.decay,
        "init_share": None if known is None else known.share,
        "moved": layer.moved,
        "sites": [_site(site) for site in layer.sites],
        "updates": [_update(update) for update in layer.updates],
        "statistics": {"mean": _vector(layer.mean), "variance": _vector(layer.variance)},
        "affine": {"gamma": _vector(layer.gamma), "beta": _vector(layer.beta)},
        "forecast": _forecast(layer),
    }


def _forecast(layer: Layer) -> dict[str, float] | None:
    found = forecast(layer)
    if found is None:
        return None
    return {
        "per_tensor_db": sqnr_db(found.per_tensor),
        "per_channel_db": sqnr_db(found.per_channel),
        "kernel_per_tensor_db": sqnr_db(found.kernel_per_tensor),
        "kernel_per_channel_db": sqnr_db(found.kernel_per_channel),
    }


def _site(site: Site) -> dict[str, Any]:
    return {
        "name": site.name,
        "form": site.form,
        "mode": site.mode.value,
        "switch": _switch(site.switch),
        "epsilon": site.epsilon,
        "axis": site.axis,
        "train_ops": list(site.train_ops),
        "outputs": list(site.outputs),
    }


def _switch(switch: Switch | None) -> dict[str, Any] | None:
    if switch is None:
        return None
    return {
        "predicate": switch.predicate,
        "kind": switch.kind,
        "default": switch.default,
        "train_when": switch.train_when,
    }


def _update(update: Update) -> dict[str, Any]:
    return {
        "name": update.name,
        "op": update.op,
        "role": update.role.value,
        "variable": update.variable,
        "decay": update.decay,
        "wired": bool(update.train_ops),
        "train_ops": list(update.train_ops),
        "in_collection": update.in_collection,
        "site": update.site,
    }


def _vector(vector: Vector) -> dict[str, Any]:
    found = spread(vector.values)
    finite = None if vector.values is None else 0 if found is None else vector.values.size - found.non_finite
    return {
        "name": vector.name,
        "presence": vector.presence.value,
        "dtype": vector.dtype,
        "moved": vector.moved,
        "constant": vector.constant,
        "min": None if found is None else found.smallest,
        "median": None if found is None else found.median,
        "max": None if found is None else found.largest,
        "non_finite": None if vector.values is None or finite is None else int(vector.values.size - finite),
        "reason": vector.reason,
    }
