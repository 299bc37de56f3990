"""The text report: what it says, how it fits, and that names cannot break it."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from report_example import HOSTILE, assert_golden, example, hostile

from bncheck.facts.findings import Report, Severity, Verdict
from bncheck.report.text import text
from bncheck.report.text.layout import cells, cut, pad, wrap


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


def _render(report: Report, **options: bool) -> str:
    stream = io.StringIO()
    text.write(report, stream, **options)
    return stream.getvalue()


class Encoded(io.StringIO):
    """A stream that says which encoding it has, and whether it is a terminal."""

    def __init__(self, encoding: str, *, tty: bool = False) -> None:
        super().__init__()
        self._encoding, self._tty = encoding, tty

    @property
    def encoding(self) -> str:
        """As the stream of a terminal or pipe has it."""
        return self._encoding

    def isatty(self) -> bool:
        """Whether it plays a terminal."""
        return self._tty


def test_golden() -> None:
    """The whole text of the shared report: headline, stories, notes, last line."""
    assert_golden("example.txt", _render(example()))


def test_golden_verbose() -> None:
    """With --verbose: all layers, measurements, suppressed findings, timing."""
    assert_golden("example-verbose.txt", _render(example(), verbose=True))


def test_golden_quiet() -> None:
    """With --quiet: the verdict, a line for each finding, the counts."""
    assert_golden("example-quiet.txt", _render(example(), quiet=True))


def test_cause_comes_with_what_it_explains() -> None:
    """BN101 is told inside BN201 and has no block of its own."""
    shown = _render(example())
    assert shown.index("BN201 update-not-wired · error · 3 of 3 layers") < shown.index("Causes   BN101 never-moved")
    assert "\nBN101" not in shown


def test_code_of_a_fix_is_kept_verbatim() -> None:
    """Code lines are neither wrapped nor joined; their relative indentation stays."""
    lines = _render(example()).splitlines()
    first = next(n for n, line in enumerate(lines) if "update_ops = tf.get_collection" in line)
    indent = len(lines[first]) - len(lines[first].lstrip())
    assert lines[first + 2] == " " * (indent + 4) + "train_op = optimizer.minimize(loss, global_step)"


@pytest.mark.parametrize("columns", [40, 60, 80, 110, 300])
def test_prose_fits_the_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line but code, commands and layer tables is wider than the terminal, at any width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    code = ("tf.", "optimizer", "    bncheck ")
    prose = [line for line in _render(example()).splitlines() if not any(mark in line for mark in code)]
    assert max(map(len, prose)) <= columns


def test_no_control_codes_in_a_pipe() -> None:
    """A pipe gets no colour."""
    assert "\x1b" not in _render(example())


@pytest.mark.parametrize(("variable", "coloured"), [("", True), ("NO_COLOR", False)])
def test_colour_on_a_terminal(variable: str, coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a parameter
    """A terminal gets colour unless NO_COLOR is set; the words are the same."""
    if variable:
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Encoded("utf-8", tty=True)
    text.write(example(), stream)
    assert ("\x1b[" in stream.getvalue()) is coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()) == _render(example())


def test_hostile_names_stay_on_their_line() -> None:
    """No control, escape or direction-changing character of a name reaches the terminal; markup is shown as it is."""
    for options in ({}, {"verbose": True}, {"quiet": True}):
        shown = _render(hostile(), **options)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
        assert "[bold]x[/bold]" in re.sub(r"\n *", "", shown)
        assert not re.search(r"(?m)^b\\r", shown)


def test_hostile_names_on_a_terminal() -> None:
    """Rich takes no name for its own markup: [bold] is printed, not obeyed."""
    stream = Encoded("utf-8", tty=True)
    text.write(hostile(), stream)
    assert "[bold]x[/bold]" in re.sub(r"\n *", "", re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()))
    assert "\x1b[31m" not in stream.getvalue()


def test_ascii_stream() -> None:
    """A stream that knows only ASCII gets dots as dashes and letters spelled out, never an exception."""
    stream = Encoded("ascii")
    text.write(example(("层/bn", "net/é", "net/c")), stream)
    shown = stream.getvalue()
    assert shown.isascii()
    assert "FAIL  model.ckpt-300 - TF1 checkpoint" in shown
    assert r"\u5c42/bn" in shown


def test_inconclusive_says_why() -> None:
    """The reason stands under the headline."""
    report = replace(example(), verdict=Verdict.INCONCLUSIVE, exit_code=3, headline="no batch norm was found")
    assert _render(report).splitlines()[0].startswith("INCONCLUSIVE  model.ckpt-300")
    assert "  no batch norm was found" in _render(report).splitlines()[:3]


def test_many_layers_fit_one_screen() -> None:
    """52 layers at fault take a screen: their names are cut short and the rest is counted."""
    report = example()
    names = tuple(f"MobilenetV2/expanded_conv_{n}/depthwise/BatchNorm" for n in range(51))
    layers = tuple(replace(report.layers[0], name=name) for name in (*names, "logits"))
    finding = replace(report.findings[0], layers=names)
    shown = _render(replace(report, layers=layers, findings=(finding,)))
    assert "51 of 52 layers" in shown
    assert "and 48 more" in shown
    assert len(shown.splitlines()) <= 24


def test_verbose_names_every_layer() -> None:
    """With --verbose no name is left out, however long."""
    report = example()
    names = tuple("x" * 100 + str(n) for n in range(60))
    layers = tuple(replace(report.layers[0], name=name) for name in names)
    shown = _render(replace(report, layers=layers, findings=()), verbose=True)
    joined = "".join(line for line in shown.splitlines() if "  4  " not in line)
    assert all(name in joined for name in names)


def test_run_table() -> None:
    """A run gives one line a checkpoint, then the last one with findings in full."""
    good = replace(example(), verdict=Verdict.PASS, exit_code=0, findings=())
    early = replace(good, target=replace(good.target, path="runs/model.ckpt-100", step=100))
    unread = replace(
        good,
        target=replace(good.target, path="runs/model.ckpt-400", step=None),
        verdict=Verdict.INCONCLUSIVE,
        exit_code=2,
        layers=(),
        headline="it ends at byte 7",
    )
    stream = io.StringIO()
    text.write_run([early, example(), unread], stream)
    assert_golden("run.txt", stream.getvalue())


def test_long_hostile_path_in_run_table() -> None:
    """A name longer than the table is cut with dots."""
    report = replace(example(), target=replace(example().target, path="runs/" + "n" * 200))
    stream = io.StringIO()
    text.write_run([report], stream, quiet=True)
    assert max(map(len, stream.getvalue().splitlines())) <= 80
    assert "n…" in stream.getvalue()


def test_hostile_is_spelled_out() -> None:
    """What a name hides becomes visible."""
    assert r"a\nb\r\x1b[31m" in re.sub(r"\n *", "", _render(hostile()))
    assert "\u202e" in HOSTILE


@pytest.mark.parametrize(
    ("words", "width", "lines"),
    [
        ("it makes up 83.1 % of it", 15, ["it makes up", "83.1 % of it"]),
        ("in batches of 32, 0.8 s", 21, ["in batches of 32,", "0.8 s"]),
        ("1 s", 2, ["1 ", "s"]),
        ("one two three", 7, ["one two", "three"]),
        ("", 10, [""]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("层层层 a", 4, ["层层", "层 a"]),
    ],
)
def test_wrap(words: str, width: int, lines: list[str]) -> None:
    """Lines are measured in terminal cells; a word that is too long is cut, none is lost; numbers keep their units."""
    assert wrap(words, width) == lines


def test_cells_of_wide_and_combining_characters() -> None:
    """Wide characters take two cells, combining ones none; cutting always advances."""
    assert (cells("层a"), cells("e\u0301"), pad("层", 4), pad("a", 3, right=True)) == (3, 1, "层  ", "  a")
    assert cut("层", 1) == "层"


def test_milder_cause_is_headed_by_both_severities() -> None:
    """A warning that explains an error counts as both."""
    report = example()
    findings = tuple(replace(f, severity=Severity.WARNING) if f.code == "BN201" else f for f in report.findings)
    shown = _render(replace(report, findings=findings))
    assert "BN201 update-not-wired · 1 error, 1 warning · 3 of 3 layers" in shown
    assert "Causes   BN101 never-moved (error)" in shown


def test_command_is_one_line_that_can_be_copied() -> None:
    """However long its path, no command is wrapped or cut, in the fix, in a sentence, or in what is not checked."""
    command = f"bncheck repair runs/{'deep/' * 30}model.ckpt-300 -o fixed.ckpt --data images/"
    report = example()
    finding = replace(report.findings[1], fix=f"This checkpoint, without retraining:\n    {command}")
    found = replace(report, findings=(finding,))
    clean = replace(report, findings=(), not_checked=(replace(report.not_checked[0], how=command),))
    for shown in (_render(found), _render(found, quiet=True), _render(clean, verbose=True)):
        assert [line.strip() for line in shown.splitlines()].count(command) == 1


def test_quiet_is_a_whole_sentence() -> None:
    """The first sentence of a message, never cut; the second is for those who ask."""
    report = example()
    long = "It has " + "very " * 80 + "many words."
    shown = _render(replace(report, findings=(replace(report.findings[1], message=f"{long} And more."),)), quiet=True)
    assert long in " ".join(shown.split())
    assert "And more" not in shown


def test_first_screen_leaves_evidence_and_effect_to_verbose() -> None:
    """A finding is its cause and its fix in ten lines at most; nothing is lost with --verbose."""
    report = replace(example(), findings=example().findings[:2])
    short, full = _render(report), _render(report, verbose=True)
    assert "Effect" not in short
    assert report.findings[1].why in " ".join(full.split())
    assert report.findings[0].message in " ".join(full.split())
    assert len(short.split("\n\n")[1].splitlines()) <= 10


def test_models_of_one_name_are_told_apart() -> None:
    """Two checkpoints with one name in two folders are headed by their folders too."""
    one, two = (replace(example(), target=replace(example().target, path=f"{x}/model.ckpt-300")) for x in "ab")
    stream = io.StringIO()
    text.write_models([one, two], stream, quiet=True)
    assert [line for line in stream.getvalue().splitlines() if line.startswith("FAIL  ")] == [
        f"FAIL  {x}/model.ckpt-300 · TF1 checkpoint + MetaGraph · 3 batch norm layers" for x in "ab"
    ]
