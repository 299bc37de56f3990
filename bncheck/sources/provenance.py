"""The file that a repair leaves beside its copy: read, and checked against the statistics, not believed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import ReadError
from bncheck.facts.provenance import Provenance
from bncheck.sources.files import is_file
from bncheck.sources.raw import PROVENANCE, RawModel

if TYPE_CHECKING:
    from bncheck.facts.inputs import InputSummary

DIGEST = "statistics_sha256"
"""Key of the digest in the file."""
_MOST_BYTES = 1 << 26


def read_provenance(model: RawModel) -> Provenance | None:
    """What lies beside a model; None where nothing does. A file that is none of bncheck's confirms nothing."""
    path = model.path.with_name(model.path.name + PROVENANCE)
    if not is_file(path):
        return None
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_MOST_BYTES))
        keys = [layer[role] for layer in told["layers"] for role in ("mean", "variance")]
        confirmed = told[DIGEST] == digest((key, model.tensors[key].read()) for key in keys)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ReadError):
        return Provenance(file=path.name, confirmed=False)
    data = told.get("data")
    samples = data.get("samples") if isinstance(data, Mapping) else None
    return Provenance(
        file=path.name,
        confirmed=confirmed,
        verdict=_text(told.get("verdict")),
        method=_text(told.get("method")),
        samples=samples if isinstance(samples, int) else None,
        input=_input(told.get("holds_for")),
    )


def digest(vectors: Iterable[tuple[str, NDArray[Any]]]) -> str:
    """SHA-256 of keys and values, as hexadecimal, whatever type the values are stored in."""
    found = hashlib.sha256()
    for key, values in sorted(vectors, key=lambda vector: vector[0]):
        found.update(key.encode() + b"\0" + np.ascontiguousarray(values, "<f8").tobytes())
    return found.hexdigest()


def _input(told: object) -> InputSummary | None:
    """None where anything is missing or no finite number."""
    if not isinstance(told, Mapping):
        return None
    from bncheck.facts.inputs import InputSummary  # noqa: PLC0415 - only beside repaired models

    numbers = {name: _number(told.get(name)) for name in ("low", "high", "mean", "deviation")}
    counts = {name: told.get(name) for name in ("samples", "distinct")}
    if None in numbers.values() or not all(isinstance(count, int) for count in counts.values()):
        return None
    return InputSummary(**numbers, **counts)  # type: ignore[arg-type] # none is None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _text(value: object) -> str:
    return value[:40] if isinstance(value, str) else ""
