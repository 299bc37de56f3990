"""JUnit XML, as Jenkins, GitLab and Azure read it: a test case for each rule that ran and each thing not checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from bncheck.facts.findings import ExitCode, Finding, Report, RuleInfo, StageState, Verdict, fails
from bncheck.report.escape import visible, xml_text


def write(report: Report, stream: TextIO) -> None:
    """Writes one report as one test suite."""
    write_run([report], stream)


def write_run(reports: Sequence[Report], stream: TextIO) -> None:
    """Writes a test suite a report."""
    root = Element("testsuites", name="bncheck")
    for report in reports:
        root.append(_suite(report))
    indent(root)
    # character references for all beyond ASCII: right in UTF-8 and in whatever encoding the stream has
    text = tostring(root, encoding="us-ascii").decode("ascii")
    stream.write(f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')


def _suite(report: Report) -> Element:
    name = visible(report.target.path)
    cases = _stage_cases(report, name) + [_rule_case(info, report, name) for info in report.rules]
    cases += [_skipped(entry.what, f"{entry.why}. {entry.how}".rstrip(" ."), name) for entry in report.not_checked]
    if report.verdict is Verdict.INCONCLUSIVE:
        cases.append(_verdict_case(report, name))
    seconds = f"{sum(report.timing.values()):.3f}"
    suite = Element(
        "testsuite",
        name=f"bncheck {name}",
        tests=str(len(cases)),
        failures=str(_number(cases, "failure")),
        errors=str(_number(cases, "error")),
        skipped=str(_number(cases, "skipped")),
        time=seconds,
    )
    suite.extend(cases)
    return suite


def _stage_cases(report: Report, name: str) -> list[Element]:
    """A case with its time for each stage of a gate that was done; the others are among what was not checked."""
    stages = () if report.gate is None else report.gate.stages
    return [
        Element("testcase", classname=name, name=f"stage: {stage.name}", time=f"{stage.seconds or 0:.3f}")
        for stage in stages
        if stage.state is StageState.DONE
    ]


def _rule_case(info: RuleInfo, report: Report, name: str) -> Element:
    case = Element("testcase", classname=name, name=f"{info.code} {info.slug}", time="0")
    found = [f for f in report.findings if f.code == info.code]
    failing = [f for f in found if fails(f, report.fail_on)]
    for finding in failing[:1]:
        text = "\n\n".join(_told(f) for f in failing)
        failure = SubElement(case, "failure", message=visible(finding.message), type=finding.severity.value)
        failure.text = xml_text(text)
    rest = [_told(f) for f in found if f not in failing]
    rest += [f"suppressed ({s.by}): {s.finding.message}" for s in report.suppressed if s.finding.code == info.code]
    if rest:
        SubElement(case, "system-out").text = xml_text("\n\n".join(rest))
    return case


def _told(finding: Finding) -> str:
    parts = [f"{finding.severity.value}: {visible(finding.message)}"]
    parts += [f"explained by {finding.caused_by}"] if finding.caused_by else []
    parts += [f"Layers: {', '.join(visible(layer) for layer in finding.layers)}"] if finding.layers else []
    parts += [f"Effect: {visible(finding.why)}"] if finding.why else []
    parts += [f"Fix: {finding.fix}"] if finding.fix else []
    return "\n".join(parts)


def _skipped(what: str, why: str, name: str) -> Element:
    case = Element("testcase", classname=name, name=f"not checked: {visible(what)}", time="0")
    SubElement(case, "skipped", message=visible(why))
    return case


def _verdict_case(report: Report, name: str) -> Element:
    case = Element("testcase", classname=name, name="verdict", time="0")
    if report.exit_code == ExitCode.PASS:
        SubElement(case, "skipped", message=visible(report.headline))
    else:
        SubElement(case, "error", message=visible(report.headline), type=report.verdict.value)
    return case


def _number(cases: Sequence[Element], tag: str) -> int:
    return sum(case.find(tag) is not None for case in cases)
