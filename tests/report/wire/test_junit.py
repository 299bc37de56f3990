"""JUnit XML: the golden file, the schema of what CI systems read, and names that XML cannot hold."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest
from report_example import HOSTILE, assert_golden, example, hostile

from bncheck.facts.findings import Report, Verdict
from bncheck.report.wire import junit


def _render(*reports: Report) -> str:
    stream = io.StringIO()
    junit.write_run(reports, stream)
    return stream.getvalue()


def _suite(report: Report) -> Element:
    found = fromstring(_render(report).encode()).find("testsuite")  # noqa: S314 - our own output
    assert found is not None
    return found


def _case(report: Report, name: str) -> Element:
    return next(element for element in _suite(report) if element.get("name") == name)


def _inconclusive(code: int) -> Report:
    return replace(
        example(), verdict=Verdict.INCONCLUSIVE, exit_code=code, headline="no batch norm was found", findings=()
    )


def test_golden() -> None:
    """The whole file of the shared report."""
    assert_golden("example.junit.xml", _render(example()))


@pytest.mark.parametrize(
    "report", [example(), hostile(), _inconclusive(3), _inconclusive(0)], ids=["example", "hostile", "empty", "allowed"]
)
def test_schema(report: Report) -> None:
    """The file has the shape that Jenkins, GitLab and Azure read."""
    xmlschema = pytest.importorskip("xmlschema", reason="xmlschema is not installed")
    xmlschema.XMLSchema(str(Path(__file__).parents[1] / "junit.xsd")).validate(_render(report, report))


def test_one_case_for_each_rule_and_each_gap() -> None:
    """Rules that found nothing pass, those that found something fail, what was not checked is skipped."""
    found = _suite(example())
    outcomes = {c.get("name"): [child.tag for child in c] for c in found}
    assert outcomes == {
        "BN101 never-moved": ["failure"],
        "BN107 dead-channels": ["system-out"],
        "BN201 update-not-wired": ["failure"],
        "BN218 redundant-bias": ["system-out"],
        "not checked: train vs eval": ["skipped"],
    }
    assert [found.get(k) for k in ("tests", "failures", "errors", "skipped")] == ["5", "2", "0", "1"]


@pytest.mark.parametrize(("fail_on", "failures"), [("error", 2), ("warning", 3), ("never", 0)])
def test_fail_on_decides_what_fails(fail_on: str, failures: int) -> None:
    """Exactly the findings that make the verdict fail are failures."""
    assert _suite(replace(example(), fail_on=fail_on)).get("failures") == str(failures)


@pytest.mark.parametrize(("code", "tag"), [(3, "error"), (2, "error"), (0, "skipped")])
def test_nothing_to_judge_is_no_pass(code: int, tag: str) -> None:
    """An inconclusive verdict is an error of its own; with --allow-empty it is skipped."""
    element = _case(_inconclusive(code), "verdict").find(tag)
    assert element is not None
    assert element.get("message") == "no batch norm was found"


def test_suppressed_findings_are_told() -> None:
    """The case of a rule says what was suppressed, and why."""
    told = _case(example(), "BN107 dead-channels").findtext("system-out")
    assert told is not None
    assert "suppressed (pruned before export)" in told


def test_hostile_names_are_valid_xml() -> None:
    """Characters that XML lacks are spelled out, its own are escaped; the text comes back as shown."""
    message = _suite(hostile())[0][0].get("message")
    assert message is not None
    assert r"a\nb\r\x1b[31m[bold]x[/bold]::error::y%0A]]><script>alert(1)</script>|`*_\u202e\x00\x85@me" in message
    assert "]]><script" not in _render(hostile())
    assert HOSTILE not in message
    assert _render(hostile()).isascii()
