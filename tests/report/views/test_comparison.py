"""The comparison in reports: text, JSON with its schema, Markdown, and which layer is named."""

from __future__ import annotations

import io

import numpy as np
import pytest
from formats import document, written
from report_example import HOSTILE

from bncheck.facts.findings import Report, Verdict
from bncheck.judge.judge import judge
from bncheck.report import FORMATS, reporter
from bncheck.testing import classes_compared, compared, difference, features_compared

LAYERS = [difference(f"net/block_{n}/bn") for n in range(12)]


def corrupted(place: int = 4) -> Report:
    """Twelve layers, one of which goes wrong by itself while all behind inherit it; the output is junk."""
    layers = [
        difference(f"net/block_{n}/bn", local=0.3 if n == place else 1e-3, cumulative_nmse=0.4 if n >= place else 1e-3)
        for n in range(12)
    ]
    return judge(compared(*layers, output=classes_compared(0.4), accuracy=(0.95, 0.4)))


def test_first_bad_layer() -> None:
    """The layer that goes wrong is named first bad; those behind inherit, those before are good."""
    found = document(corrupted())["comparison"]
    assert found["first_bad_layer"] == "net/block_4/bn"
    assert [layer["state"] for layer in found["layers"]] == ["good"] * 4 + ["diverges"] + ["inherits"] * 7
    assert found["accuracy"] == {"train": 0.95, "eval": 0.4, "quantized": None}
    assert found["agreement"] == 0.4
    assert found["outputs"][0]["agreement_floor"] == 0.97


@pytest.mark.parametrize(("arrives", "named"), [(0.3, 0), (0.6, 3)])
def test_the_table_counts_as_the_message_does(arrives: float, named: int) -> None:
    """On few images more has to arrive at a layer before it inherits: in the finding, the states and the page alike."""
    healthy = [difference(f"behind_{n}", cumulative_nmse=arrives) for n in range(3)]
    facts = compared(difference("bad", local=0.5, cumulative_nmse=0.5), *healthy, samples=64, accuracy=(0.95, 0.4))
    report = judge(facts)
    (told,) = [finding.message for finding in report.findings if finding.code == "BN302"]
    assert told.count(f"{named} later layers only inherit the error") == told.count("inherit") == bool(named)
    assert [layer["state"] for layer in document(report)["comparison"]["layers"]].count("inherits") == named


def test_nothing_bad() -> None:
    """A healthy model has no first bad layer, passes, and tells its numbers all the same."""
    report = judge(compared(*LAYERS, accuracy=(0.95, 0.96)))
    assert report.verdict is Verdict.PASS
    found = document(report)["comparison"]
    assert found["first_bad_layer"] is None
    assert {layer["state"] for layer in found["layers"]} == {"good"}
    assert "train mode 95.0 %, eval mode 96.0 %" in written(report)


def test_text_shows_the_worst_in_forward_order() -> None:
    """Four rows without --verbose, the bad layer among them, in order; scopes that all share stand in the head."""
    shown = written(corrupted())
    rows = [line.split()[0] for line in shown.splitlines() if line.startswith("  block_")]
    assert len(rows) == 4
    assert rows == sorted(rows, key=lambda row: int(row.removeprefix("block_")))
    assert "net/…/bn" in shown
    assert any("block_4" in line and "diverges" in line for line in shown.splitlines())
    assert "and 8 layers with a smaller error" in shown
    assert "with a smaller error" not in written(corrupted(), verbose=True)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_it(name: str) -> None:
    """No format fails on numbers that are none, and on names that are hostile."""
    nan = difference(HOSTILE, local=float("nan"), mean_shift=np.full(4, np.nan), log_variance_ratio=np.full(4, np.inf))
    report = judge(compared(nan, output=features_compared(float("nan"), cosine=float("nan"), floor=None)))
    stream = io.StringIO()
    reporter(name).write(report, stream)
    assert "\x1b" not in stream.getvalue()
    document(report)


def test_synthetic_is_labelled() -> None:
    """Made-up data are called so in the text, the JSON and among what was not checked."""
    report = judge(compared(*LAYERS, output=classes_compared(0.1), synthetic=True))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "synthetic noise" in written(report)
    assert document(report)["comparison"]["data"]["synthetic"] is True
    assert any("synthetic" in entry.why for entry in report.not_checked)


def test_too_little_data_is_no_verdict() -> None:
    """BN303: inconclusive, exit code 3, the reason in the headline."""
    report = judge(compared(*LAYERS, samples=8))
    assert (report.verdict, report.exit_code) == (Verdict.INCONCLUSIVE, 3)
    assert "8 samples are too few" in report.headline


def test_places_of_a_shared_layer() -> None:
    """Each has a row with its number; where they only differ among themselves, the layer is no bad one."""
    places = [difference("siamese/bn", local=0.3, cumulative_nmse=0.05) for _ in range(2)]
    together = difference("siamese/bn", local=1e-3)
    report = judge(compared(*places, difference("head/bn"), shared=(together,)))
    assert [finding.code for finding in report.findings] == ["BN302"]
    assert report.verdict is Verdict.PASS
    assert document(report)["comparison"]["first_bad_layer"] is None
    shown = written(report)
    assert "siamese/bn #1" in shown or "siamese #1" in shown
    assert not [line for line in shown.splitlines() if "#" in line and "diverges" in line]
