"""Float against quantized in reports: text, JSON with its schema, Markdown, and who is said to lose what."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from formats import document, written
from report_example import HOSTILE

from bncheck.facts.findings import Report, Verdict
from bncheck.facts.measurements import FoldedLayer, FoldProof, Measure
from bncheck.judge.judge import judge
from bncheck.report import FORMATS, reporter
from bncheck.report.views.quantized import attribution_told
from bncheck.testing.quantized import (
    attributed,
    operator_loss,
    quantized,
    quantized_classes,
    quantized_features,
    unmatched,
)

SAME = quantized_classes(1.0, 3e-5)


def junk() -> Report:
    """The story: broken before it was quantized, and quantizing it loses nothing."""
    layers = [operator_loss(f"net/block_{n}/bn", local=1e-4 * (n + 1)) for n in range(12)]
    found = attributed(0.806, 0.003, start=0.909, repaired=(0.904, 0.901))
    return judge(quantized(*layers, output=SAME, accuracy=(0.103, 0.1), train=(0.909, 0.1), attribution=found))


def collapsed() -> Report:
    """A healthy float model of which one kernel collapses."""
    layers = [operator_loss(f"net/block_{n}/bn") for n in range(12)]
    layers[4] = operator_loss("net/block_4/bn", local=0.6, rmse=4.0, weight_nmse=0.3, weight_per_channel=False)
    measured = quantized(
        *layers,
        output=quantized_classes(0.12),
        accuracy=(0.966, 0.10),
        train=(0.949, 0.95),
        scheme="int8-per-tensor",
        attribution=attributed(-0.017, 0.866, start=0.949),
    )
    return judge(measured)


@pytest.mark.parametrize(
    ("statistics", "quantization", "words"),
    [
        (
            0.798,
            0.003,
            "80.1 points of accuracy lost: 79.8 by the stored statistics, 0.3 by quantization",
        ),
        (0.798, -0.003, "79.8 points of accuracy lost, all by the stored statistics; quantization gains 0.3"),
        (0.798, 0.0, "79.8 points of accuracy lost, all by the stored statistics"),
        (-0.017, 0.003, "0.3 points of accuracy lost, all by quantization; the stored statistics gain 1.7"),
        (0.0, 0.0, "no points of accuracy lost: the stored statistics lose nothing, quantization loses nothing"),
        (math.nan, 0.0, "the loss is NaN"),
    ],
)
def test_attribution_in_words(statistics: float, quantization: float, words: str) -> None:
    """Each step's share in points, whichever gains or loses."""
    assert attribution_told(attributed(statistics, quantization)) == words


def test_attribution_of_features() -> None:
    """Where there are no classes, the error is told as energy."""
    told = attribution_told(attributed(0.8, 0.01, measure=Measure.NMSE))
    assert told == "the stored statistics put the output off by 80.0 %, quantization by 1.0 %"
    told = attribution_told(attributed(-0.001, 0.01, measure=Measure.NMSE))
    assert told == "the stored statistics put the output off no further than batch noise, quantization by 1.0 %"


def test_text_of_the_story() -> None:
    """The verdict, the words and the square of numbers, no wider than 80 columns, the worst operators in order."""
    shown = written(junk())
    assert "BN408" in shown
    assert "by the stored statistics" in shown
    rows = {line.split("  ")[1]: line.split() for line in shown.splitlines() if "statistics  " in line}
    assert rows["batch statistics"][-2:] == ["%", "-"]
    assert any(line.split()[0] == "re-estimated" and "90.1 %" in line for line in shown.splitlines() if line.strip())
    assert max(map(len, shown.splitlines())) <= 80
    table = shown[shown.index("Float vs int8") : shown.index("Train mode vs")]
    blocks = [line.split()[0] for line in table.splitlines() if line.startswith("  block_")]
    assert len(blocks) == 4
    assert blocks == sorted(blocks, key=lambda row: int(row.removeprefix("block_")))
    assert "and 8 operators with a smaller error" in table
    assert "with a smaller error" not in written(junk(), verbose=True)


def test_text_names_the_operator_that_loses() -> None:
    """Its row says so, and what most of its loss is."""
    shown = written(collapsed())
    (row,) = [line for line in shown.splitlines() if line.startswith("  block_4 ") and "loses" in line]
    assert row.split()[-2:] == ["4.00", "rounding"]


def test_json_of_the_story() -> None:
    """`comparison` is float against quantized, `comparisons` holds both, the attribution is in numbers."""
    found = document(junk())
    comparison = found["comparison"]
    assert comparison["mode"] == "float-vs-quantized"
    assert [one["mode"] for one in found["comparisons"]] == ["float-vs-quantized", "train-vs-eval"]
    assert found["comparisons"][0] == comparison
    assert comparison["accuracy"] == {"train": 0.909, "eval": 0.103, "quantized": 0.1}
    assert comparison["agreement"] == 1.0
    assert comparison["sqnr_db"] == pytest.approx(45.2, abs=0.1)
    assert comparison["first_bad_layer"] is None
    assert comparison["attribution"]["statistics_share"] > 0.99
    assert len(comparison["attribution"]["cells"]) == 6
    assert len(comparison["layers"]) == 12
    assert comparison["layers"][0]["statistics_nmse"] == 1e-2


def test_json_names_the_first_bad_layer() -> None:
    """The operator that BN402 accuses."""
    found = document(collapsed())
    assert found["comparison"]["first_bad_layer"] == "net/block_4/bn"
    assert [one["state"] for one in found["comparison"]["layers"]].count("loses") == 1
    assert found["verdict"] == "fail"


def test_json_of_a_fold_proof() -> None:
    """Layer by layer, which statistics were baked in."""
    layer = FoldedLayer(layer="bn", operator="conv", folded="stored", error=2e-7, tolerance=1e-5)
    report = replace(junk(), fold=FoldProof(path="m.tflite", source="m.h5", layers=(layer,)))
    assert document(report)["fold"]["layers"][0]["folded"] == "stored"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_it(name: str) -> None:
    """No format fails on numbers that are none, and on names that are hostile."""
    nan = operator_loss(
        HOSTILE, local=math.nan, non_finite=3, channel_nmse=np.full(4, np.nan), tensor=HOSTILE, reference=HOSTILE
    )
    report = judge(
        quantized(
            nan,
            output=quantized_features(math.nan, cosine=math.nan),
            unmatched=(unmatched(HOSTILE),),
            attribution=attributed(math.nan, 0.1),
            scheme="given",
        )
    )
    assert report.verdict is Verdict.FAIL
    stream = io.StringIO()
    reporter(name).write(report, stream)
    assert "\x1b" not in stream.getvalue()
    document(report)


def test_synthetic_is_labelled() -> None:
    """Made-up data are called so, and give no verdict on the output."""
    report = judge(quantized(operator_loss("a"), output=quantized_classes(0.1), train=(0.9, 0.1), synthetic=True))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert written(report).count("synthetic noise") >= 2
    assert any("synthetic" in entry.why and "quantized" in entry.what for entry in report.not_checked)


def test_two_files_tell_that_train_mode_was_not_run() -> None:
    """Without a train mode nothing vouches for the statistics, which is said."""
    report = judge(quantized(operator_loss("a"), scheme="given"))
    assert "model.tflite" in written(report)
    assert any(entry.what == "train vs eval" for entry in report.not_checked)
