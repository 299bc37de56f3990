"""GitHub workflow commands: one line each, whatever names hold."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from report_example import assert_golden, example, hostile

from bncheck.facts.findings import Report, Verdict
from bncheck.report.wire import github


def _render(*reports: Report) -> str:
    stream = io.StringIO()
    github.write_run(reports, stream)
    return stream.getvalue()


def test_golden() -> None:
    """The whole output of the shared report."""
    assert_golden("example.github.txt", _render(example()))


@pytest.mark.parametrize("report", [example(), hostile()], ids=["example", "hostile"])
def test_every_line_is_one_command(report: Report) -> None:
    """Nothing but commands is written, and a name cannot begin one of its own or end a property."""
    for line in _render(report).removesuffix("\n").split("\n"):
        command = re.fullmatch(r"::(error|warning|notice) file=([^:,\r]*),title=([^:,\r]*)::(.*)", line)
        assert command, line
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line)
        assert not re.search(r"%(?!25|0A|0D|3A|2C)", line)


def test_levels() -> None:
    """A story has the level of its worst finding; what is explained makes no annotation of its own."""
    assert re.findall(r"(?m)^::(\w+) .*?title=(BN\d+)", _render(example())) == [
        ("error", "BN201"),
        ("warning", "BN107"),
        ("notice", "BN218"),
    ]


def test_pass_is_a_notice() -> None:
    """A passing report says what was checked."""
    passing = replace(example(), verdict=Verdict.PASS, exit_code=0, findings=())
    expected = "::notice file=runs/model.ckpt-300,title=bncheck pass::3 batch norm layers, no findings; checked: values"
    assert _render(passing).startswith(expected)


@pytest.mark.parametrize(("code", "level"), [(3, "error"), (0, "notice")])
def test_inconclusive(code: int, level: str) -> None:
    """Nothing to judge is an error, unless allowed."""
    report = replace(
        example(), verdict=Verdict.INCONCLUSIVE, exit_code=code, findings=(), headline="no batch norm, 100%"
    )
    assert _render(report) == (
        f"::{level} file=runs/model.ckpt-300,title=bncheck inconclusive::no batch norm, 100%25\n"
    )
