"""The file beside a repaired model is checked against its statistics, and any other content is not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import write_bundle

from bncheck.sources import open_model
from bncheck.sources.provenance import DIGEST, digest

KEYS = ("bn/moving_mean", "bn/moving_variance")
VALUES = {KEYS[0]: np.array([0.5, 1.5], np.float32), KEYS[1]: np.array([2.0, 3.0], np.float32)}
TOLD: dict[str, Any] = {
    "verdict": "pass",
    "method": "data",
    "data": {"samples": 640},
    "holds_for": {"samples": 640, "distinct": 640, "low": -1.0, "high": 1, "mean": -0.4, "deviation": 0.7},
    "layers": [{"mean": KEYS[0], "variance": KEYS[1]}],
    DIGEST: digest(VALUES.items()),
}


def _model(folder: Path, content: str) -> Path:
    prefix = folder / "model.ckpt"
    write_bundle(prefix, dict(VALUES))
    prefix.with_name("model.ckpt.bncheck.json").write_text(content)
    return prefix


def test_what_was_written_is_believed(tmp_path: Path) -> None:
    """The digest is that of the statistics."""
    raw = open_model(_model(tmp_path, json.dumps(TOLD)))
    assert raw.repaired is not None
    assert raw.repaired.confirmed
    assert raw.repaired.told == "repaired by bncheck from 640 samples, verdict pass"
    assert "640 samples" in raw.notes[-1]
    assert raw.repaired.input is not None
    assert (raw.repaired.input.low, raw.repaired.input.deviation) == (-1.0, 0.7)


@pytest.mark.parametrize("told", [None, [], {}, {"low": -1.0}, {**TOLD["holds_for"], "mean": float("nan")}])
def test_a_range_that_is_not_told_is_none(told: object, tmp_path: Path) -> None:
    """Half a range is none; the rest is believed."""
    raw = open_model(_model(tmp_path, json.dumps({**TOLD, "holds_for": told})))
    assert raw.repaired is not None
    assert (raw.repaired.confirmed, raw.repaired.input) == (True, None)


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[1]", "no json", "[" * 5000, json.dumps({**TOLD, DIGEST: "0" * 64}), json.dumps({**TOLD, "layers": 3})],
)
def test_anything_else_is_not(content: str, tmp_path: Path) -> None:
    """It is told, and changes nothing."""
    raw = open_model(_model(tmp_path, content))
    assert raw.repaired is not None
    assert not raw.repaired.confirmed
    assert "not believed" in raw.notes[-1]


def test_no_file_no_word(tmp_path: Path) -> None:
    """Most models were never repaired."""
    prefix = tmp_path / "model.ckpt"
    write_bundle(prefix, dict(VALUES))
    assert open_model(prefix).repaired is None
