"""`bncheck compare float-vs-quantized`, end to end on genuine models: who loses what, codes, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from trained_variants import ROOT, checkpoint, trained_digits

import bncheck
from bncheck.cli import main as cli
from bncheck.compare.attribution import QUANTIZED, REESTIMATED
from bncheck.facts.errors import BncheckError, UsageError
from bncheck.facts.findings import Report, Severity, Verdict
from bncheck.facts.measurements import Attribution, Cell, CellStatistics, Measure, Precision
from bncheck.report.wire import json_v1

pytestmark = pytest.mark.tensorflow

VWW = ROOT.parent / "shared" / "real" / "mlperf_tiny_vww"
real = pytest.mark.skipif(not VWW.is_dir(), reason="the real models are not beside this checkout")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """128 test digits, with labels and without."""
    found = trained_digits()
    folder = tmp_path_factory.mktemp("digits")
    images, labels = found.test_images[:128], found.test_labels[:128]
    arrays: dict[str, dict[str, Any]] = {
        "labelled": {"images": images, "labels": labels},
        "bare": {"images": images},
        "few": {"images": images[:8]},
        "crops": {"images": photographs()},
    }
    for name, held in arrays.items():
        np.savez(folder / f"{name}.npz", **held)
    return {name: str(folder / f"{name}.npz") for name in arrays}


def photographs() -> np.ndarray[Any, Any]:
    """64 squares of 96x96 pixels from scikit-learn's two photographs, in [0, 1]."""
    from sklearn.datasets import load_sample_images

    images, random = load_sample_images().images, np.random.default_rng(0)
    found = []
    for number in range(64):
        image, step = images[number % 2], int(random.integers(1, 5))
        top, left = (int(random.integers(0, edge - 96 * step + 1)) for edge in image.shape[:2])
        found.append(image[top : top + 96 * step : step, left : left + 96 * step : step])
    return (np.stack(found) / 255).astype(np.float32)


def attribution(report: Report) -> Attribution:
    """Of a report that has one."""
    assert report.quantized is not None
    assert report.quantized.attribution is not None
    return report.quantized.attribution


def cell(report: Report, statistics: CellStatistics, arithmetic: Precision) -> Cell:
    """One number of the square."""
    cells = attribution(report).cells
    return next(c for c in cells if c.place == (statistics, arithmetic))


def test_a_healthy_model_passes(data: dict[str, str]) -> None:
    """No finding, int8 keeps the class of 97 % or more, nothing is unmatched, no new statistics are asked for."""
    report = bncheck.compare_float_vs_quantized(checkpoint("wired"), data=data["labelled"])
    assert (report.verdict, report.exit_code, report.findings) == (Verdict.PASS, 0, ())
    measured = report.quantized
    assert measured is not None
    assert (measured.outputs[0].agreement or 0) >= 0.97
    assert measured.unmatched == ()
    assert {layer.name for layer in report.layers} <= {operator.layer for operator in measured.operators}
    assert abs(attribution(report).quantization) < 0.03
    assert cell(report, REESTIMATED, QUANTIZED).nmse is None
    assert cell(report, REESTIMATED, QUANTIZED).why
    assert report.folded is None
    assert {"train vs eval", "float vs quantized"} <= set(report.checked)


@pytest.mark.parametrize(
    ("variant", "cause", "kind"),
    [
        ("forgotten", "BN201", "labelled"),
        ("decay_0.99", "BN103", "bare"),
        ("decay_0.9997", "BN103", "labelled"),
    ],
)
def test_a_model_that_was_broken_before(data: dict[str, str], variant: str, cause: str, kind: str) -> None:
    """BN408 explained by its cause: the statistics have 90 % of the loss or more, and new ones win it back."""
    report = bncheck.compare_float_vs_quantized(checkpoint(variant), data=data[kind])
    codes = {finding.code: finding for finding in report.findings}
    assert report.verdict is Verdict.FAIL
    assert {"BN408", cause} <= set(codes)
    assert codes["BN408"].caused_by is not None
    assert not {"BN401", "BN402"} & set(codes)
    found = attribution(report)
    assert found.measure is (Measure.ACCURACY if kind == "labelled" else Measure.AGREEMENT)
    assert (found.statistics_share or 0) >= 0.9
    assert found.statistics > 0.6
    assert report.quantized is not None
    assert (report.quantized.outputs[0].agreement or 0) > 0.97
    again = cell(report, REESTIMATED, QUANTIZED)
    assert ((again.accuracy if kind == "labelled" else again.agreement) or 0) > 0.85


@pytest.mark.slow
def test_repair_verdict_it_passes(data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint that `repair` writes goes through the same comparison without a finding."""
    fixed = str(tmp_path / "fixed.ckpt")
    assert cli.main(["repair", checkpoint("forgotten"), "-o", fixed, "--data", data["labelled"]]) == 0
    capsys.readouterr()
    code = cli.main(["compare", "float-vs-quantized", fixed, "--data", data["labelled"], "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(json_v1.schema()).validate(document)
    assert (code, document["verdict"]) == (0, "pass")
    assert [one["mode"] for one in document["comparisons"]] == ["float-vs-quantized", "train-vs-eval"]
    assert document["comparison"]["accuracy"]["quantized"] > 0.85
    assert document["comparison"]["attribution"]["measure"] == "accuracy"


def test_made_up_data_give_no_verdict() -> None:
    """Synthetic noise is converted and measured, and nothing is said of the output."""
    expected: list[float] = []
    report = bncheck.compare_float_vs_quantized(
        checkpoint("forgotten"), data="synthetic", batches=2, expected=expected.append
    )
    assert len(expected) == 1
    assert expected[0] > 0
    assert report.quantized is not None
    assert report.quantized.data.synthetic
    assert report.quantized.attribution is None
    assert report.exit_code in {1, 3}
    assert not {"BN301", "BN401", "BN402", "BN408"} & {finding.code for finding in report.findings}
    assert any("quantized" in entry.what for entry in report.not_checked)


@real
def test_a_given_file(data: dict[str, str]) -> None:
    """A stranger's int8 file against the Keras model it came from: all layers matched, folded as stored."""
    report = bncheck.compare_float_vs_quantized(
        VWW / "vww_96.h5", data=data["crops"], quantized=VWW / "vww_96_int8.tflite"
    )
    assert report.quantized is not None
    assert report.quantized.scheme == "given"
    assert report.quantized.unmatched == ()
    assert sum(operator.layer is not None for operator in report.quantized.operators) >= 27
    assert report.fold is not None
    assert {layer.folded for layer in report.fold.layers} == {"stored"}
    codes = {finding.code: finding for finding in report.findings}
    assert not {"BN401", "BN407", "BN409"} & set(codes)
    assert all(finding.severity is not Severity.ERROR for finding in codes.values())


@real
def test_without_data_the_fold_is_proved() -> None:
    """From the files alone; what was not run is said."""
    report = bncheck.compare_float_vs_quantized(VWW / "vww_96.h5", quantized=VWW / "vww_96_float.tflite")
    assert report.exit_code == 0
    assert report.fold is not None
    assert [layer.folded for layer in report.fold.layers] == ["stored"] * 27
    assert max(layer.error for layer in report.fold.layers) < 1e-6
    assert {"train vs eval", "float vs quantized"} <= {entry.what for entry in report.not_checked}
    assert report.quantized is None


@real
def test_two_tflite_files(data: dict[str, str]) -> None:
    """No train mode: nothing tells whether it was broken before, which is said."""
    both = {"quantized": VWW / "vww_96_int8.tflite"}
    report = bncheck.compare_float_vs_quantized(VWW / "vww_96_float.tflite", data=data["crops"], **both)
    assert report.quantized is not None
    assert report.quantized.attribution is None
    assert len(report.quantized.operators) >= 28
    assert any(entry.what == "train vs eval" for entry in report.not_checked)
    few = bncheck.compare_float_vs_quantized(
        VWW / "vww_96_float.tflite", data=data["crops"], batch_size=8, batches=1, **both
    )
    assert (few.verdict, few.exit_code) == (Verdict.INCONCLUSIVE, 3)
    assert "8 samples are too few" in few.headline


@real
@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        (VWW / "vww_96_float.tflite", {"data": "synthetic"}, "give the quantized file with --quantized"),
        (VWW / "vww_96_float.tflite", {"quantized": VWW / "vww_96_int8.tflite"}, "needs --data"),
        (VWW / "vww_96.h5", {}, "give --data, or the quantized file"),
        (VWW / "vww_96.h5", {"quantized": VWW / "vww_96.h5"}, "not a TFLite file"),
        (VWW / "vww_96.h5", {"quantized": VWW / "vww_96_int8.tflite", "scheme": "int8"}, "is already quantized"),
        (VWW / "vww_96.h5", {"data": "synthetic", "scheme": "int4"}, "int8-per-tensor"),
    ],
)
def test_what_does_not_go_together(path: Path, options: dict[str, Any], words: str) -> None:
    """One sentence says what to give instead."""
    with pytest.raises(UsageError, match=words):
        bncheck.compare_float_vs_quantized(path, **options)


@real
def test_a_file_of_another_model(data: dict[str, str]) -> None:
    """The checkpoint of one model, the TFLite file of another: one sentence, no report."""
    with pytest.raises(BncheckError, match=r"another model|not a quantized form"):
        bncheck.compare_float_vs_quantized(checkpoint("wired"), data=data["bare"], quantized=VWW / "vww_96_int8.tflite")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3 and numpy 2
def test_dense_layers_are_folded(tf: Any, tmp_path: Path) -> None:
    """As the user's own conversion folds them: nothing is left over, and no operator without its layer."""
    keras = tf.keras
    keras.utils.set_random_seed(1)
    entry = keras.Input((16,))
    net = entry
    for number in range(2):
        net = keras.layers.Dense(24, use_bias=False, name=f"dense_{number}")(net)
        net = keras.layers.BatchNormalization(name=f"bn_{number}")(net)
        net = keras.layers.ReLU()(net)
    model = keras.Model(entry, keras.layers.Dense(4)(net))
    images = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    keras.Model(entry, [layer.output for layer in model.layers if "bn_" in layer.name])(images, training=True)
    model.save(tmp_path / "dense.keras")
    np.savez(tmp_path / "noise.npz", images=images)
    report = bncheck.compare_float_vs_quantized(tmp_path / "dense.keras", data=tmp_path / "noise.npz")
    assert report.quantized is not None
    kinds = [operator.kind for operator in report.quantized.operators]
    assert kinds == ["QUANTIZE", "FULLY_CONNECTED", "FULLY_CONNECTED", "FULLY_CONNECTED"]
    assert [operator.layer for operator in report.quantized.operators] == [None, "bn_0", "bn_1", None]
    assert not {"BN406", "BN409"} & {finding.code for finding in report.findings}
