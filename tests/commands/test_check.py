"""`bncheck.check`: whatever a path is, the report is that of the precise form."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import bncheck
from bncheck.facts.errors import NoModel, NotFound, UsageError
from bncheck.facts.findings import ExitCode

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
REAL = ROOT.parent / "shared" / "real"
PRECISE: Mapping[str, Callable[..., bncheck.Report]] = {
    "checkpoint": bncheck.inspect_checkpoint,
    "graph": bncheck.inspect_graph,
    "model": bncheck.inspect_model,
}
CASES = [
    (kind, FIXTURES / name / path)
    for name, entry in json.loads((FIXTURES / "manifest.json").read_text())["artefacts"].items()
    for kind, path, *_ in [entry["inspect"]]
]
_KINDS = {".h5": "model", ".hdf5": "model", ".npz": "model", ".tflite": "model", ".index": "checkpoint"}
REAL_CASES = [
    *((_KINDS[p.suffix], p) for p in sorted(REAL.rglob("*")) if p.suffix in _KINDS and p.parent.name != "variables"),
    *(("model", p.parent) for p in sorted(REAL.rglob("saved_model.pb"))),
    *(("checkpoint", p.with_suffix("")) for p in sorted(REAL.rglob("*.meta"))),
]


def _document(report: bncheck.Report) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(report.to_json())
    del document["timing"]
    return document


@pytest.mark.parametrize(
    ("kind", "path"), CASES, ids=lambda value: value if isinstance(value, str) else value.parent.name
)
def test_fixtures(kind: str, path: Path) -> None:
    """Each fixture gives the report that its precise form gives, word for word."""
    assert _document(bncheck.check(path)) == _document(PRECISE[kind](path))


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real is absent")
@pytest.mark.parametrize(
    ("kind", "path"), REAL_CASES, ids=lambda value: value if isinstance(value, str) else value.name
)
def test_real_models(kind: str, path: Path) -> None:
    """So does each public model."""
    assert _document(bncheck.check(path)) == _document(PRECISE[kind](path))


def test_reference_of_a_tflite_file() -> None:
    """Options reach the precise form: what a TFLite file was converted from is proved."""
    if not REAL.is_dir():
        pytest.skip("../shared/real is absent")
    vww = REAL / "mlperf_tiny_vww"
    report = bncheck.check(vww / "vww_96_float.tflite", reference=vww / "vww_96.h5")
    assert report.fold is not None


def _run(folder: Path, *steps: int) -> Path:
    for step in steps:
        for file in (ROOT / "bncheck" / "sample").iterdir():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / file.name.replace("-100", f"-{step}", 1))
    return folder


def test_a_folder_of_one_model(tmp_path: Path) -> None:
    """It is that model; of several, `check` says who judges them."""
    assert bncheck.check(_run(tmp_path / "one", 100)).exit_code is ExitCode.FAIL
    with pytest.raises(UsageError, match=r"holds 2 models.*check_all"):
        bncheck.check(_run(tmp_path / "two", 100, 200))


def test_check_all(tmp_path: Path) -> None:
    """One report a model in step order; one that cannot be read is told, and hides nothing."""
    _run(tmp_path / "a", 100, 90)
    (tmp_path / "broken.keras").write_bytes(b"PK\x03\x04 cut short")
    (tmp_path / "data.h5").write_bytes((FIXTURES / "tiny").joinpath("nothing").name.encode())
    reports = bncheck.check_all(tmp_path)
    assert [(Path(r.target.path).name, int(r.exit_code)) for r in reports] == [
        ("broken.keras", 2),
        ("model.ckpt-90", 1),
        ("model.ckpt-100", 1),
    ]
    with pytest.raises(UsageError, match="--steps applies to one model"):
        bncheck.check_all(tmp_path, steps=3)


def test_errors_are_those_of_the_precise_forms(tmp_path: Path) -> None:
    """Nothing there, and nothing in it."""
    with pytest.raises(NotFound):
        bncheck.check(tmp_path / "none")
    with pytest.raises(NoModel):
        bncheck.check(tmp_path)
