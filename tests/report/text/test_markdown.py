"""Markdown for job summaries: the golden text, and names that stay text."""

from __future__ import annotations

import io
import re
from dataclasses import replace

from report_example import HOSTILE, assert_golden, example, hostile

from bncheck.facts.findings import Report, Verdict
from bncheck.report.text import markdown


def _render(*reports: Report) -> str:
    stream = io.StringIO()
    markdown.write_run(reports, stream)
    return stream.getvalue()


def test_golden() -> None:
    """The whole text of the shared report."""
    stream = io.StringIO()
    markdown.write(example(), stream)
    assert_golden("example.md", stream.getvalue())


def test_code_of_a_fix_is_fenced() -> None:
    """Code stands in a fence, its own indentation kept."""
    block = re.search(r"```\n(.*?)\n```", _render(example()), re.DOTALL)
    assert block
    assert block.group(1).splitlines()[2] == "    train_op = optimizer.minimize(loss, global_step)"


def test_hostile_names_stay_text() -> None:
    """No HTML, mention, table cell, emphasis or line of a name gets through, outside code or inside."""
    shown = _render(hostile())
    assert "<script" not in re.sub(r"(?s)```.*?```", "", shown).replace(r"`*_", "")
    fenced = re.sub(r"(?s)(`{3,}).*?\1", "", shown)
    assert not re.search(r"(?<![\w`])@me", fenced)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert r"\[bold\]x\[/bold\]" in fenced


def test_code_fence_is_longer_than_any_in_the_code() -> None:
    """Code that holds a fence cannot end its own."""
    finding = replace(example().findings[0], caused_by=None, fix="Run:\n    ```\n    x = 1\n")
    shown = _render(replace(example(), findings=(finding,)))
    assert "````\n```\nx = 1\n````" in shown


def test_many_layers_fold_away() -> None:
    """A long list of layers hides behind a summary line and is complete."""
    names = tuple(f"layer_{n}" for n in range(52))
    finding = replace(example().findings[0], caused_by=None, layers=names)
    shown = _render(replace(example(), findings=(finding,)))
    assert "<details><summary>52 layers</summary>" in shown
    assert all(f"- `{name}`\n" in shown for name in names)


def test_inconclusive_says_why() -> None:
    """The reason is in bold under the headline."""
    report = replace(
        example(), verdict=Verdict.INCONCLUSIVE, exit_code=3, findings=(), headline="no *batch* norm <was> found"
    )
    assert "**no \\*batch\\* norm &lt;was&gt; found**" in _render(report)
    assert HOSTILE not in _render(report)
