"""Where a repaired file comes from: a small JSON file beside it, `<output>.bncheck.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bncheck.facts.repairs import LayerLeft, LayerRepair, PopulationFacts, RangeRepair, RepairJudgement, Trial
from bncheck.sources.files import is_file
from bncheck.sources.provenance import DIGEST, digest
from bncheck.sources.raw import PROVENANCE
from bncheck.version import __version__

_BLOCK = 1 << 22
_MOST_BYTES = 1 << 26


def beside(output: Path) -> Path:
    """The provenance file of an output."""
    return output.with_name(output.name + PROVENANCE)


def interrupted(output: Path) -> bool:
    """Whether a repair to this place was ended after it wrote its provenance and before it wrote its output."""
    note = beside(output)
    if not is_file(note):
        return False
    try:
        told = json.loads(note.read_bytes()[:_MOST_BYTES])
        return bool(told["tool"]["name"] == "bncheck" and told["output"] == output.name)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def provenance(
    *,
    source: Path,
    hashed: Iterable[Path],
    output: Path,
    method: str,
    repaired: Sequence[LayerRepair],
    left: Sequence[LayerLeft],
    decay: float | None,
    steps: int | None,
    population: PopulationFacts | None,
    trial: Trial | None,
    judgement: RepairJudgement,
    statistics: Mapping[str, NDArray[Any]],
    ranges: Sequence[RangeRepair] = (),
    averaged: Sequence[LayerRepair] = (),
) -> str:
    """The text: tool, date (UTC), source with SHA-256 of its files, method, its parameters, verdict, layers, ranges.

    `statistics` are key -> values as they will be read again, for the digest by which the file is believed later.
    """
    how: Mapping[str, Any]
    how = {"decay": decay, "steps": steps} if population is None else {"data": vars(population)}
    content = {
        "tool": {"name": "bncheck", "version": __version__},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": {"path": str(source), "sha256": {path.name: sha256(path) for path in hashed}},
        "output": output.name,
        "method": method,
        **how,
        "verdict": judgement.verdict.value,
        "reasons": list(judgement.reasons),
        "assumes": judgement.assumes,
        DIGEST: digest(statistics.items()),
        "holds_for": None if trial is None else vars(trial.input),
        "layers": [{**vars(layer), "added": list(layer.added)} for layer in repaired],
        **({"averaged": [{**vars(layer), "added": list(layer.added)} for layer in averaged]} if averaged else {}),
        **({"ranges": [vars(recorded) for recorded in ranges]} if ranges else {}),
        "left": [vars(layer) for layer in left],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def sha256(path: Path) -> str:
    """Of a file's bytes, as hexadecimal; read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
