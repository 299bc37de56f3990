"""The HTML page as a file: what it holds, what it hides, what it refuses, how large it is."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import html_examples as examples
import numpy as np
import pytest
from report_example import example

from bncheck import testing
from bncheck.facts.extras import install
from bncheck.facts.findings import Gate, Report, Stage, StageName, StageState, Verdict
from bncheck.facts.measurements import Attribution, Measure
from bncheck.judge.judge import judge
from bncheck.report.html import html
from bncheck.report.html import page as _html_page
from bncheck.report.html.channels import channel_document, channels_of
from bncheck.report.html.layers import layer_views
from bncheck.report.html.quantized import rounding_floor, waterfall_steps
from bncheck.testing.quantized import attributed, operator_loss

VOID = {"meta", "img", "input", "wbr", "br", "path", "circle", "link"}
KINDS: dict[str, Callable[[], Report]] = {
    "52 layers": examples.mobilenet,
    "healthy": examples.healthy,
    "nothing": examples.nothing,
    "one layer": examples.one_layer,
    "hostile": examples.hostile,
    "not finite": examples.not_finite,
    "findings of all kinds": example,
}


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, text, scripts; refuses what is not well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element; it is open until its end."""
        known = {name: value or "" for name, value in attrs}
        self.elements.append((tag, known))
        if tag == "script":
            self.scripts.append((known, ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Ends the innermost element, which must be this one."""
        if tag not in VOID:
            assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        """Keeps text apart from scripts."""
        if self.open and self.open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif not self.open or self.open[-1] != "style":
            self.text.append(data)

    def words(self) -> str:
        """All text, white space as single spaces."""
        return " ".join(" ".join(self.text).split())

    def data(self) -> dict[str, Any]:
        """The JSON of the page's data scripts by their ids."""
        return {a["id"]: json.loads(text) for a, text in self.scripts if a.get("type") == "application/json"}

    def having(self, **attributes: str) -> list[str]:
        """Tags of the elements that have these attributes."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [tag for tag, known in self.elements if wanted.items() <= known.items()]


@cache
def written(kind: str) -> str:
    """The page of one kind of report."""
    stream = StringIO()
    html.write(KINDS[kind](), stream)
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_well_formed(kind: str) -> None:
    """Every element ends where it should, ids are unique, and what refers to an id finds it."""
    page = Page(written(kind))
    ids = [known["id"] for _, known in page.elements if "id" in known]
    assert len(ids) == len(set(ids))
    referred = [known["data-spec"] for _, known in page.elements if "data-spec" in known]
    referred += [known["href"][1:] for _, known in page.elements if known.get("href", "").startswith("#")]
    assert set(referred) <= set(ids)
    assert written(kind).isascii()


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_names_its_scripts_and_forbids_the_rest(kind: str) -> None:
    """The checksums are those of the two scripts that run, and no element refers to anything outside."""
    text = written(kind)
    page = Page(text)
    policy = next(k["content"] for tag, k in page.elements if k.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    running = [script for known, script in page.scripts if "type" not in known]
    sums = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in running}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == sums
    assert len(running) == 2
    outside = [
        (tag, name, value)
        for tag, known in page.elements
        for name, value in known.items()
        if name in {"src", "href", "srcset", "action", "data", "poster"} and not value.startswith("#")
    ]
    assert outside == []
    assert not [name for _, known in page.elements for name in known if name.startswith("on")]
    assert "@import" not in text.partition("</style>")[0]
    assert "url(" not in text.partition("</style>")[0]


def test_52_layers_stay_under_3_megabytes() -> None:
    """Charts, their library and 52 layers of full width, measured in every way, are a file one can send."""
    assert len(KINDS["52 layers"]().layers) == 52
    assert 1e6 < len(written("52 layers")) < 3e6


def test_500_layers_of_4096_channels_stay_small() -> None:
    """Of two million channels the page keeps the farthest of each layer, and says so."""
    stream = StringIO()
    html.write(examples.huge(), stream)
    assert len(stream.getvalue()) < 6e6
    channels = Page(stream.getvalue()).data()["r0-channel-data"]["layers"]
    assert len(channels) == 500
    assert {layer["count"] for layer in channels} == {4096}
    assert all(100 < len(layer["kept"]) < 4096 for layer in channels)
    assert all(len(values) == len(layer["kept"]) for layer in channels for values in layer["values"].values())


def test_the_channels_that_are_kept_are_the_farthest() -> None:
    """Where not all fit, those that stand out in any series stay."""
    shift, ratio = np.zeros(100), np.zeros(100)
    shift[17], ratio[42] = 5.0, -4.0
    shift[99] = np.nan
    report = judge(
        testing.compared(testing.difference("bn", channels=100, mean_shift=shift, log_variance_ratio=ratio), layers=[])
    )
    (layer,) = channel_document(channels_of(report, layer_views(report)), budget=40)["layers"]
    assert {17, 42, 99} <= set(layer["kept"])
    assert len(layer["kept"]) == 20
    assert layer["values"]["shift"][layer["kept"].index(99)] is None


def test_the_story_is_told_in_order() -> None:
    """Verdict, cause, what it explains, effect, both fixes with code to copy, then what was not checked."""
    page = Page(written("findings of all kinds"))
    words = page.words()
    order = [
        "FAIL",
        "BN201",
        "None of the 6 update ops",
        "BN101",
        "Effect",
        "Fix",
        "tf.control_dependencies(update_ops)",
    ]
    order += ["BN107", "BN218", "What was and was not checked", "Suppressed", "pruned before export"]
    places = [words.index(part) for part in order]
    assert places == sorted(places)
    assert ("pre", {"tabindex": "0"}) in page.elements
    assert "button" in page.having(class_="copy")
    assert "update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS)\nwith tf.control" in "".join(page.text)


def test_what_is_measured_is_drawn_and_told() -> None:
    """Each chart has its data, a sentence, a name for screen readers and a table."""
    page = Page(written("52 layers"))
    specs = {key.removesuffix("-spec"): spec for key, spec in page.data().items() if key.endswith("-spec")}
    charts = ("attribution-waterfall", "train-eval-error", "train-eval-shift", "train-eval-ratio", "quantized-loss")
    charts += ("quantized-parts", "init-init", "folded-fold")
    assert {f"r0-{name}" for name in charts} <= set(specs)
    assert {f"r0-ch-{name}" for name in ("shift", "ratio", "init", "fold", "quant", "scale")} <= set(specs)
    for key in specs:
        (known,) = (known for _, known in page.elements if known.get("id") == key)
        assert known["role"] == "img"
        assert len(known["aria-label"]) > 15
    local = [row for row in _rows(specs["r0-train-eval-error"]) if row.get("s") == "local error"]
    assert [row["o"] for row in local] == list(range(1, 53))
    assert local[1]["y"] == pytest.approx(0.1)
    assert local[1]["t"] == "10\u00a0% (10.0 dB)"
    words = page.words().replace("\u00a0", " ")
    assert "94.9 % \u2192 10.5 % \u2192 9.5 %" in words
    assert "85.4 points of accuracy lost: 84.4 by the stored statistics, 1.0 by quantization. 98.8 %" in words
    assert "51 of 52 layers of model.tflite hold the statistics stored in model.ckpt-300" in words
    tables = page.elements.count(("table", {"class": "plain"}))
    assert tables > len(charts)


def test_the_waterfall_ends_where_the_model_does() -> None:
    """Losses hang between what the model has before and after; what repair would give stands beside."""
    rows = _rows(Page(written("52 layers")).data()["r0-attribution-waterfall-spec"])
    bars = {row["l"]: (row["a"], row["b"], row["k"], row["t"]) for row in rows}
    assert bars["batch statistics, float"] == (0, 0.949, "total", "94.9\u00a0%")
    low, high, kind, text = bars["stored statistics"]
    assert (low, high, kind, text) == (pytest.approx(0.105), 0.949, "loss", "\u221284.4 points")
    assert bars["quantization"][:2] == (pytest.approx(0.095), pytest.approx(0.105))
    assert bars["stored, quantized"][1] == pytest.approx(0.095)
    assert bars["re-estimated, quantized"][2] == "repaired"


def test_batch_noise_is_no_loss() -> None:
    """What batch noise does to the reference's agreement with itself is taken off before the fall begins."""
    cells = attributed(0.03, 0.02, start=0.95, measure=Measure.AGREEMENT).cells
    found = Attribution(
        cells=cells, measure=Measure.AGREEMENT, statistics=0.03, quantization=0.02, statistics_share=0.6
    )
    bars = {step.label: (step.start, step.end) for step in waterfall_steps(found)}
    assert bars["batch statistics, less noise"] == (0, pytest.approx(0.95))
    assert bars["stored statistics"] == (pytest.approx(0.95), pytest.approx(0.92))
    assert bars["stored, quantized"] == (0, pytest.approx(0.90))


def test_energies_hang_from_each_other() -> None:
    """Losses in NMSE do not add up to the error of the quantized model, which stands apart."""
    levels = attributed(0.5, 0.1, start=1.0, measure=Measure.NMSE)
    bars = {step.label: (step.start, step.end, step.kind) for step in waterfall_steps(levels)}
    assert bars["stored statistics"] == (0, 0.5, "loss")
    assert bars["quantization"] == (0.5, 0.6, "loss")
    assert bars["stored, quantized"] == (0, pytest.approx(0.6), "total")
    assert "batch statistics, float" not in bars


def test_what_was_not_measured_is_no_bar() -> None:
    """Without a stored float cell, or where a loss is NaN, there is a table and no chart."""
    assert waterfall_steps(replace(attributed(), cells=())) == []
    assert waterfall_steps(replace(attributed(), statistics=float("nan"))) == []


def test_the_rounding_floor_is_the_known_one() -> None:
    """An error of 1 / sqrt(12) scales is rounding alone (METRICS); four times that has 16 times the energy."""
    assert rounding_floor(operator_loss(local=1e-4, rmse=1 / math.sqrt(12))) == pytest.approx(1e-4)
    assert rounding_floor(operator_loss(local=1e-4, rmse=4 / math.sqrt(12))) == pytest.approx(1e-4 / 16)
    assert rounding_floor(operator_loss(rmse=None)) is None


def test_hostile_names_stay_text() -> None:
    """A name that ends elements makes none, in text, attributes and data, and templates in it are not run."""
    page = Page(written("hostile"))
    assert not page.having(src="x")
    assert "img" not in {tag for tag, _ in page.elements}
    assert examples.SCRIPT in page.words()
    assert "{{ 7 * 7 }}" in page.words()
    assert any(examples.SCRIPT in json.dumps(data) for data in page.data().values())


def test_invisible_characters_are_spelled_out() -> None:
    """A name that turns the reading direction or ends a line shows it."""
    report = judge(
        testing.compared(testing.difference("a\u202eb\nc\x00"), layers=[testing.batch_norm("a\u202eb\nc\x00")])
    )
    text = html.page_text([report], many=False)
    assert r"a\u202eb\nc\x00" in Page(text).words()
    assert "\x00" not in text
    assert "&#8238;" not in text
    assert r"a\u202eb\nc\x00" in [layer["name"] for layer in Page(text).data()["r0-channel-data"]["layers"]]
    assert "\u202e" not in json.dumps(Page(text).data(), ensure_ascii=False)


def test_numbers_that_are_none_are_told() -> None:
    """NaN and infinity are counted and named, and never become part of the page's JSON."""
    page = Page(written("not finite"))
    words = page.words()
    assert "1 of 2 have values that are NaN or infinite" in words
    assert "not finite" in words
    rows = _rows(page.data()["r0-train-eval-error-spec"])
    assert [row["n"] for row in rows if row["t"] == "NaN or infinite"] == ["a"]


def test_nothing_to_judge_is_no_pass() -> None:
    """The page of an empty report says INCONCLUSIVE and why, and offers no chart."""
    page = Page(written("nothing"))
    assert "INCONCLUSIVE" in page.words()
    assert "no batch norm was found" in page.words()
    assert page.data() == {}


def test_a_run_is_one_page() -> None:
    """A row and a part for each checkpoint, the last one that has something to tell open."""
    stream = StringIO()
    html.write_run(examples.run(), stream)
    page = Page(stream.getvalue())
    parts = [known for tag, known in page.elements if tag == "details" and known.get("class") == "report"]
    assert [known["id"] for known in parts] == ["r0", "r1", "r2", "r3"]
    assert [known["id"] for known in parts if "open" in known] == ["r2"]
    words = page.words()
    assert "4 checkpoints of one run: " in words
    assert all(f"model.ckpt-{step}" in words for step in (100, 200, 300, 400))
    assert {row["n"] for row in _rows(page.data()["run-chart-spec"])} == {f"model.ckpt-{n}00" for n in range(1, 5)}


def test_several_models_are_no_run() -> None:
    """Models of other folders are judged by themselves: no line is drawn through them."""
    page = Page(html.page_text([examples.healthy(), examples.one_layer()], many=True))
    assert "2 pass" in page.words()
    assert "run-chart-spec" not in page.data()


def test_a_long_run_keeps_its_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the layers of a run are too many, older checkpoints lose their charts, not their findings; it is said."""
    monkeypatch.setattr(_html_page, "FULL_LAYERS", 60)
    text = html.page_text(examples.run(), many=True)
    page = Page(text)
    assert "r2-channel-data" in page.data()
    assert "r0-channel-data" not in page.data()
    assert page.words().count("charts and tables are left out here") == 3
    assert page.words().count("BN201") >= 2


def test_the_stages_of_a_gate_are_shown() -> None:
    """What ran, what was left out and why."""
    stages = (
        Stage(name="static", state=StageState.DONE),
        Stage(name=StageName.MODES, state=StageState.LEFT_OUT, why="no data"),
    )
    words = Page(html.page_text([replace(example(), gate=Gate(stages=stages))], many=False)).words()
    assert "Stages of the gate static done train vs eval left out : no data" in words


def test_both_reports_of_one_text_are_equal() -> None:
    """The page holds no clock and no chance: the same report gives the same bytes."""
    report = examples.healthy()
    assert html.page_text([report], many=False) == html.page_text([report], many=False)


def test_fixes_come_as_prose_and_code() -> None:
    """Lines that are indented are code, without the indentation they share; the rest is prose, joined."""
    found = _html_page.blocks("First\nline:\n\n    a = 1\n        b\n\n    c\nLast.")
    assert [(block.kind, block.text) for block in found] == [
        ("prose", "First line:"),
        ("code", "a = 1\n    b\n\nc"),
        ("prose", "Last."),
    ]


def test_a_notebook_shows_the_page_in_a_frame() -> None:
    """The frame holds the whole page as its source, may run scripts, and is no part of the notebook's origin."""
    report = examples.one_layer()
    frame = Page(report._repr_html_())
    ((tag, known),) = frame.elements
    assert tag == "iframe"
    assert known["sandbox"] == "allow-scripts allow-downloads"
    assert known["srcdoc"] == html.page_text([report], many=False)
    assert known["title"] == "bncheck: pass, model.ckpt"


def test_without_the_extra_a_notebook_shows_text() -> None:
    """The text report, escaped, and one sentence that says what is missing."""
    code = (
        "import sys; sys.modules['altair'] = None; import html_examples; print(html_examples.hostile()._repr_html_())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(examples.__file__).parent)
    shown = Page(done.stdout)
    assert {tag for tag, _ in shown.elements} == {"pre", "p", "small"}
    assert install("html") in shown.words()
    assert "FAIL" in shown.words()


def test_without_the_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    """One sentence, exit code 2, no file; other formats do not mind."""
    code = (
        "import importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'altair' else real(name, *rest)\n"
        "from bncheck.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "inspect", "checkpoint", str(examples.MODELS / "wired")]
    wanted = [*command, "--output", f"html={tmp_path / 'r.html'}"]
    done = subprocess.run(wanted, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"bncheck: --format html needs altair: install with: {install('html')}\n"
    assert list(tmp_path.iterdir()) == []
    assert subprocess.run([*command, "--format", "json"], capture_output=True, check=False).returncode == 0


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    """--output html=FILE beside the text on standard output; the verdict's exit code."""
    place = tmp_path / "report.html"
    path = str(examples.MODELS / "forgotten")
    command = [sys.executable, "-m", "bncheck", "inspect", "checkpoint", path, "--output", f"html={place}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "BN201" in done.stdout
    assert "BN201" in Page(place.read_text(encoding="ascii")).words()


def test_verdicts_of_all_kinds_are_named() -> None:
    """Colour is never the only sign."""
    for verdict in Verdict:
        words = Page(html.page_text([replace(example(), verdict=verdict)], many=False)).words()
        assert verdict.value.upper() in words


def _rows(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows of a chart's data, also of its layers."""
    found = [row for rows in spec.get("datasets", {}).values() for row in rows]
    for part in [spec, *spec.get("layer", [])]:
        found += part.get("data", {}).get("values", [])
        found += [row for inner in part.get("layer", []) for row in inner.get("data", {}).get("values", [])]
    return found


def test_words_can_be_read_on_their_backgrounds() -> None:
    """In both themes every colour of text has a contrast of 4.5 on what it stands on (WCAG 2, AA)."""
    style = (Path(html.__file__).parents[1] / "assets" / "page.css").read_text("utf-8")
    tokens = dict(re.findall(r"--([\w-]+): light-dark\((#\w{6}, #\w{6})\)", style))
    plain = ("text", "muted", "link", "error", "warning", "pass")
    pairs = [(word, ground) for word in plain for ground in ("bg", "surface", "raised")]
    pairs += [(word, f"{word}-soft") for word in ("error", "warning", "info", "pass")] + [("text", "code")]
    for theme in (0, 1):
        for word, ground in pairs:
            light, dark = sorted((luminance(tokens[name].split(", ")[theme]) for name in (word, ground)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (word, ground, theme)


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, as WCAG 2 has it."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
