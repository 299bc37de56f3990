"""Two models compared by their files: findings, statistics, folds."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

import bncheck
from bncheck.cli.main import main
from bncheck.errors import UsageError
from bncheck.report.wire import json_v1

ROOT = Path(__file__).parents[2]
STORY, TINY = ROOT / "fixtures" / "mobilenet_v2", ROOT / "fixtures" / "tiny"
WIRED, FORGOTTEN, SLOW = (STORY / name / "model.ckpt-300" for name in ("wired", "forgotten", "decay_0.99"))


@pytest.mark.parametrize(
    ("old", "new", "code", "appeared", "disappeared"),
    [
        (WIRED, FORGOTTEN, 1, {"BN101", "BN201"}, set()),
        (FORGOTTEN, WIRED, 0, set(), {"BN101", "BN201"}),
        (WIRED, WIRED, 0, set(), set()),
    ],
    ids=["worse", "better", "same"],
)
def test_findings_that_come_and_go(old: Path, new: Path, code: int, appeared: set[str], disappeared: set[str]) -> None:
    """The verdict of `gate --against`, and what went as well."""
    found = bncheck.diff(old, new)
    assert found.exit_code == code == bncheck.gate(new, against=old).exit_code
    assert {f.code for f in found.appeared} == appeared
    assert {f.code for f in found.disappeared} == disappeared
    changed = {role for layer in found.layers.both for role in layer.changed}
    assert changed == (set() if old == new else {"mean", "variance"})
    assert len(found.layers.both) == 52
    assert "\n" not in repr(found)


def test_statistics_and_decay() -> None:
    """Every layer of the forgotten run is far from the wired one's, and the decays are told."""
    found = bncheck.diff(FORGOTTEN, SLOW)
    assert {layer.decay for layer in found.layers.both} == {(0.9, 0.99)}
    assert all(layer.fold_error is not None and 0.01 < layer.fold_error < 1 for layer in found.layers.both)
    assert [f.code for f in found.same] == ["BN103"]


def test_tflite_files() -> None:
    """Two files by their operators; a file and a model by the proof of its fold; strangers are inconclusive."""
    clean, broken = (TINY / "bn403_per_tensor_range_collapse" / f"{v}_tflite/model.tflite" for v in ("clean", "broken"))
    found = bncheck.diff(clean, broken)
    assert [f.code for f in found.appeared] == ["BN403"]
    (operator,) = found.operators.both
    assert operator.kernel_change is not None
    assert 0 < operator.kernel_change < 1e-4
    other = TINY / "bn406_not_folded" / "broken" / "model.tflite"
    assert bncheck.diff(clean, other).exit_code == 3
    proved = bncheck.diff(WIRED, other)
    assert proved.new.fold is not None
    assert {layer.folded for layer in proved.new.fold.layers} == {"unmatched"}


@pytest.mark.parametrize(("old", "new"), [(WIRED, FORGOTTEN), (SLOW, SLOW)], ids=["worse", "same"])
def test_json_follows_its_schema(old: Path, new: Path, tmp_path: Path) -> None:
    """The same document from the command line and from Python, which a later report may replace."""
    place = tmp_path / "diff.json"
    for _ in range(2):
        assert main(["diff", str(old), str(new), "-q", "--output", str(place)]) == bncheck.diff(old, new).exit_code
    document = json.loads(place.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json_v1.schema()).validate(document)
    assert document == json.loads(bncheck.diff(old, new).to_json())


def test_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both names, what is new and gone, the layers that differ most; every layer with --verbose, none with --quiet."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["diff", str(WIRED), str(FORGOTTEN)]) == 1
    text = capsys.readouterr().out
    assert text.startswith("WORSE  wired/model.ckpt-300 -> forgotten/model.ckpt-300\n")
    assert text.count("MobilenetV2/expanded_conv") + text.count("  expanded_conv") == 8
    assert max(map(len, text.splitlines())) <= 80
    assert main(["diff", str(WIRED), str(FORGOTTEN), "-v"]) == 1
    assert capsys.readouterr().out.count("expanded_conv") == 50
    assert main(["diff", str(WIRED), str(FORGOTTEN), "-q"]) == 1
    assert "expanded_conv" not in capsys.readouterr().out


@pytest.mark.parametrize("more", [["--format", "sarif"], ["--output", "x.html"]])
def test_other_formats_are_refused(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A comparison is text or JSON."""
    assert main(["diff", str(WIRED), str(WIRED), *more]) == 2
    assert "text or json" in capsys.readouterr().err


def test_a_project_configures_what_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules are left out as configured; the reports that it asks for are of models, and not written."""
    (tmp_path / "bncheck.toml").write_text('ignore = ["BN1", "BN2"]\noutput = ["report.sarif"]\n')
    monkeypatch.chdir(tmp_path)
    assert main(["diff", str(WIRED), str(FORGOTTEN), "-q"]) == 0
    assert not (tmp_path / "report.sarif").exists()


def test_no_single_model(tmp_path: Path) -> None:
    """A folder of several, and a report, are refused with a word on what to do; an empty folder is exit code 3."""
    with pytest.raises(UsageError, match="holds 5 models"):
        bncheck.diff(STORY, WIRED)
    report = tmp_path / "report.json"
    report.write_text(bncheck.check(WIRED).to_json())
    with pytest.raises(UsageError, match="--against"):
        bncheck.diff(report, WIRED)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["diff", str(empty), str(WIRED)]) == 3
