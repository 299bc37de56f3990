"""`--against OLD`: what an earlier model had and came to, from its report or from the model itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bncheck.facts.errors import ConfigError, NotFound, ReadError
from bncheck.facts.findings import Report
from bncheck.facts.measurements import Before, Scores, scores, what_ran
from bncheck.settings.config import Known
from bncheck.settings.config_file import LARGEST_FILE
from bncheck.sources.files import opened, require_file


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An earlier model, as far as a later one is held against it."""

    path: str
    known: tuple[Known, ...]
    before: Before


def is_report(path: Path) -> bool:
    """Whether this is a JSON text, and so a report rather than a model."""
    try:
        with opened(path) as (file, _):
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"
    except ReadError:
        return False


def of_report(report: Report, path: str) -> Earlier:
    """An earlier model that was judged just now."""
    found = [*report.findings, *(entry.finding for entry in report.suppressed)]
    return Earlier(
        path=path,
        known=tuple(
            Known(code=f.code, severity=f.severity.value, layers=frozenset(f.layers), location=f.location)
            for f in found
        ),
        before=Before(path=path, modes=scores(report.comparison), quantized=scores(report.quantized)),
    )


def read_report(path: Path) -> Earlier:
    """An earlier `--format json` report of one model. Raises ConfigError, or NotFound."""
    document = _document(path)
    try:
        found = [*document["findings"], *document["suppressed"]]
        known = tuple(_known(finding) for finding in found)
        before = Before(
            path=str(path),
            modes=_scores(document, "train-vs-eval", "eval"),
            quantized=_scores(document, "float-vs-quantized", "quantized"),
        )
        return Earlier(path=str(path), known=known, before=before)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"{path}: a bncheck report that cannot be read ({type(error).__name__}: {error}); write it again with "
            "--format json"
        ) from None


def _document(path: Path) -> Mapping[str, Any]:
    try:
        if require_file(path).st_size > LARGEST_FILE:
            raise ConfigError(f"{path}: too large to be a bncheck report; give a model or its --format json report")
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(path, "no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({error}); give a model or its --format json report") from None
    reports = document.get("reports", [document]) if isinstance(document, dict) else []
    if not isinstance(reports, list) or len(reports) != 1:
        raise ConfigError(f"{path}: --against takes the report of one model, but this file holds several or none")
    (report,) = reports
    if not isinstance(report, dict) or report.get("schema") != 1:
        raise ConfigError(f"{path}: not a bncheck report, version 1; give a model or its --format json report")
    return report


def _known(finding: Mapping[str, Any]) -> Known:
    if finding["severity"] not in ("error", "warning", "info"):
        raise ValueError(f"severity {finding['severity']!r}")
    return Known(
        code=str(finding["code"]),
        severity=finding["severity"],
        layers=frozenset(str(layer) for layer in finding["layers"]),
        location=str(finding["location"]),
    )


def _scores(report: Mapping[str, Any], mode: str, accuracy: str) -> Scores | None:
    document = next((d for d in report["comparisons"] if d["mode"] == mode), None)
    if document is None or document["data"]["synthetic"]:
        return None
    outputs = document["outputs"]
    return Scores(
        data=what_ran(str(document["data"]["description"]), str(document.get("scheme", ""))),
        samples=int(document["data"]["samples"]),
        accuracy=_number(document["accuracy"][accuracy]),
        agreement=next((_number(o["agreement"]) for o in outputs if o["classes"]), None),
        nmse=_number(outputs[0]["nmse"]) if outputs else None,
    )


def _number(value: Any) -> float | None:
    """Also of the texts "NaN" and "Infinity", which JSON has no numbers for."""
    return None if value is None else float(value)
