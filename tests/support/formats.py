"""One report as people read it, and as programs do."""

from __future__ import annotations

import io
import json
from typing import Any

import jsonschema

from bncheck.facts.findings import Report
from bncheck.report.text import text
from bncheck.report.wire import json_v1


def written(report: Report, **how: Any) -> str:
    """The text report, 80 columns wide."""
    stream = io.StringIO()
    text.write(report, stream, **how)
    return stream.getvalue()


def document(report: Report) -> dict[str, Any]:
    """The JSON report, held against its schema."""
    found: dict[str, Any] = json.loads(report.to_json())
    jsonschema.Draft202012Validator(json_v1.schema()).validate(found)
    return found
