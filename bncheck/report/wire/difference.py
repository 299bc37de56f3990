"""JSON of two models compared, version 1; described by json_v1.schema.json, with reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from bncheck.facts.findings import Report
from bncheck.facts.ratios import sqnr_db
from bncheck.numerics.difference import ComparedLayer, ComparedOperator, Difference, Matched
from bncheck.report.views.fold_proof import fold_document
from bncheck.report.views.story import counts
from bncheck.report.wire.json_v1 import SCHEMA, as_text, finding_document, target_document, tool_document


def write(difference: Difference, stream: TextIO) -> None:
    """Writes one JSON object."""
    stream.write(dumps(difference) + "\n")


def dumps(difference: Difference) -> str:
    """The same as text."""
    return as_text(difference_document(difference))


def difference_document(difference: Difference) -> Mapping[str, Any]:
    """Plain dictionaries and lists; every pair is of the old and the new model."""
    return {
        "schema": SCHEMA,
        "tool": tool_document(),
        "old": _side(difference.old),
        "new": _side(difference.new),
        "verdict": difference.verdict.value,
        "exit_code": difference.exit_code,
        "findings": {
            "appeared": [finding_document(finding) for finding in difference.appeared],
            "disappeared": [finding_document(finding) for finding in difference.disappeared],
            "same": [finding_document(finding) for finding in difference.same],
        },
        "layers": _matched(difference.layers, [_layer(layer) for layer in difference.layers.both]),
        "operators": _matched(difference.operators, [_operator(part) for part in difference.operators.both]),
        "fold": fold_document(difference.new.fold),
    }


def _side(report: Report) -> Mapping[str, Any]:
    return {"target": target_document(report.target), "counts": counts(report)}


def _matched(
    matched: Matched[ComparedLayer] | Matched[ComparedOperator], both: list[Mapping[str, Any]]
) -> Mapping[str, Any]:
    return {
        "matched_by": "position" if matched.by_position else "name",
        "both": both,
        "only_old": list(matched.only_old),
        "only_new": list(matched.only_new),
    }


def _layer(layer: ComparedLayer) -> Mapping[str, Any]:
    return {
        "name": layer.layer,
        "old_name": layer.old_layer,
        "changed": list(layer.changed),
        "unread": list(layer.unread),
        "channels": list(layer.channels),
        "epsilon": list(layer.epsilon),
        "decay": list(layer.decay),
        "mean_shift": layer.mean_shift,
        "variance_ratio": layer.variance_ratio,
        "fold_nmse": layer.fold_error,
        "fold_sqnr_db": None if layer.fold_error is None else sqnr_db(layer.fold_error),
    }


def _operator(operator: ComparedOperator) -> Mapping[str, Any]:
    return {
        "name": operator.operator,
        "old_name": operator.old_operator,
        "largest_weights_nmse": operator.kernel_change,
    }
