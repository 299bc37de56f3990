"""The committed fixtures: complete, unaltered, small, and judged as their manifest says."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import bncheck
from bncheck.facts.findings import Report
from bncheck.report.text import text

FIXTURES = Path(__file__).parents[1] / "fixtures"
MANIFEST: dict[str, Any] = json.loads((FIXTURES / "manifest.json").read_text())
ARTEFACTS: dict[str, dict[str, Any]] = MANIFEST["artefacts"]
OUTPUTS = ("mobilenet_v2", "flax", "pytorch", "tiny")
ALL_BYTES, FILE_BYTES = 16_000_000, 5_000_000
TINY_BYTES = 100_000

NEEDS_OF_RULES = [f"BN{n}" for n in (*range(101, 120), *range(201, 225), 403, 404, 405, 406)]


@cache
def inspected(path: str) -> Report:
    """What the fixture's own command reports."""
    entry = ARTEFACTS[path]
    folder = FIXTURES / path
    kind, target, *options = entry["inspect"]
    given = {name.lstrip("-"): folder / value for name, value in zip(options[::2], options[1::2], strict=True)}
    report: Report = getattr(bncheck, f"inspect_{kind}")(folder / target, **given)
    return report


@pytest.mark.parametrize("path", sorted(ARTEFACTS))
def test_findings_are_those_expected(path: str) -> None:
    """Each fixture yields exactly the codes of its manifest entry; twins and healthy styles yield none."""
    entry = ARTEFACTS[path]
    report = inspected(path)
    found = sorted({finding.code for finding in report.findings})
    assert found == sorted(entry["expected"]), [f"{f.code}: {f.message}" for f in report.findings]
    assert report.layers or report.checked == ("folded weights",)


def test_text_reports_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the words that they had in median (70 of all, 172 with findings), and only code is wider than 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    words: dict[bool, list[int]] = {True: [], False: []}
    for path in ARTEFACTS:
        stream, report = StringIO(), inspected(path)
        text.write(report, stream)
        shown = stream.getvalue()
        words[bool(report.findings)].append(len(shown.split()))
        assert [line for line in shown.splitlines() if len(line) > 80 and not line.startswith("    ")] == []
    assert median(words[True]) <= 86
    assert median([*words[True], *words[False]]) <= 35


@pytest.mark.parametrize("path", sorted(p for p in ARTEFACTS if p.startswith("tiny/bn")))
def test_tiny_fixtures_are_about_their_rule(path: str) -> None:
    """A broken one yields its folder's code, a clean one or a reference nothing."""
    code = path.split("/")[1].split("_", maxsplit=1)[0].upper()
    variant = path.split("/")[2].split("_", maxsplit=1)[0]
    expected = ARTEFACTS[path]["expected"]
    assert (code in expected) if variant == "broken" else (variant in ("clean", "reference") and not expected)


@pytest.mark.parametrize("code", NEEDS_OF_RULES)
def test_every_rule_has_a_broken_fixture_and_a_clean_twin(code: str) -> None:
    """Of each rule about statistics or graphs, and of the data-free ones about quantization."""
    variants = {p.split("/")[2] for p in ARTEFACTS if p.startswith(f"tiny/{code.lower()}_")}
    assert {"broken", "clean"} <= variants


def test_manifest_is_complete() -> None:
    """Every output on disk is in the manifest with its true size and hash, and the other way round."""
    on_disk = {
        path.relative_to(FIXTURES).as_posix(): path
        for folder in OUTPUTS
        for path in (FIXTURES / folder).rglob("*")
        if path.is_file() and path.name != "facts.json"
    }
    listed = {f"{path}/{name}": file for path, entry in ARTEFACTS.items() for name, file in entry["files"].items()}
    assert sorted(listed) == sorted(on_disk)
    altered = [name for name, path in on_disk.items() if listed[name] != _described(path)]
    assert not altered


def _described(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_facts_beside_the_outputs_are_those_of_the_manifest() -> None:
    """No producer ran without the manifest being written anew."""
    for path, entry in ARTEFACTS.items():
        facts = json.loads((FIXTURES / path / "facts.json").read_text())
        assert facts == {key: value for key, value in entry.items() if key != "files"}, path


def test_fixtures_stay_small() -> None:
    """16 MB in all, 5 MB a file, tiny ones tiny."""
    sizes = {p: p.stat().st_size for p in FIXTURES.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert sum(sizes.values()) <= ALL_BYTES
    assert max(sizes.values()) <= FILE_BYTES
    assert max(size for path, size in sizes.items() if FIXTURES / "tiny" in path.parents) <= TINY_BYTES


def test_mobilenets_tell_the_story() -> None:
    """All five learned the same; only the wired one with decay 0.9 works with its stored statistics."""
    accuracies = {
        path.split("/")[1]: (entry["accuracy_train_mode"], entry["accuracy_eval_mode"])
        for path, entry in ARTEFACTS.items()
        if path.startswith("mobilenet_v2/")
    }
    assert set(accuracies) == {"wired", "forgotten", "too_early", "decay_0.9997", "decay_0.99"}
    assert min(train for train, _ in accuracies.values()) > 0.9
    assert accuracies.pop("wired")[1] > 0.9
    assert max(stored for _, stored in accuracies.values()) < 0.2


@pytest.mark.parametrize("variant", ["wired", "forgotten", "too_early", "decay_0.9997", "decay_0.99"])
def test_mobilenets_facts_are_recognised(variant: str) -> None:
    """Layers, updates, decay and step count of each are what its producer wrote down."""
    path = f"mobilenet_v2/{variant}"
    entry = ARTEFACTS[path]
    report = inspected(path)
    updates = [update for layer in report.layers for update in layer.updates]
    wired = [layer for layer in report.layers if any(update.train_ops for update in layer.updates)]
    assert len(report.layers) == entry["layers"]
    assert len(updates) == entry["updates"]
    assert len(wired) == entry["layers_wired"]
    assert [layer.decay for layer in report.layers] == pytest.approx([entry["decay"]] * 52)
    assert report.target.step == entry["steps"]
