"""`bncheck compare train-vs-eval`, end to end on genuine MobileNetV2 checkpoints: verdicts, codes, exit codes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from trained_variants import checkpoint, trained_digits

import bncheck
from bncheck.cli import main as cli
from bncheck.facts.errors import UsageError
from bncheck.facts.findings import Verdict
from bncheck.report.wire import json_v1

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """160 test digits with labels and without, in another range, and of another size."""
    found = trained_digits()
    folder = tmp_path_factory.mktemp("digits")
    images, labels = found.test_images[:160], found.test_labels[:160]
    arrays: dict[str, dict[str, Any]] = {
        "labelled": {"images": images, "labels": labels},
        "bare": {"images": images},
        "half": {"images": (images + 1) / 2, "labels": labels},
        "shifted": {"images": images, "labels": labels + 10},
        "small": {"images": images[:, ::2, ::2], "labels": labels},
        "few": {"images": images[:8], "labels": labels[:8]},
    }
    for name, held in arrays.items():
        np.savez(folder / f"{name}.npz", **held)
    return {name: str(folder / f"{name}.npz") for name in arrays}


@pytest.mark.parametrize(
    ("variant", "cause"),
    [
        ("wired", None),
        ("forgotten", "BN201"),
        ("too_early", "BN202"),
        ("decay_0.9997", "BN103"),
        ("decay_0.99", "BN103"),
    ],
)
@pytest.mark.parametrize("kind", ["labelled", "bare"])
def test_verdicts(data: dict[str, str], variant: str, cause: str | None, kind: str) -> None:
    """Junk in eval mode fails, with and without labels, and is told as what the wiring fault or decay did."""
    report = bncheck.compare_train_vs_eval(checkpoint(variant), data=data[kind])
    codes = {finding.code: finding for finding in report.findings}
    if cause is None:
        assert (report.verdict, codes) == (Verdict.PASS, {})
        return
    assert report.verdict is Verdict.FAIL
    assert {"BN301", "BN302", cause} <= set(codes)
    assert codes["BN302"].caused_by is not None
    assert codes["BN301"].caused_by is not None
    assert report.comparison is not None
    if kind == "labelled":
        accuracy = report.comparison.accuracy
        assert accuracy.train is not None
        assert accuracy.eval is not None
        assert accuracy.train > 0.85
        assert accuracy.eval < 0.3


def test_first_bad_layer_is_where_the_updates_end(data: dict[str, str]) -> None:
    """UPDATE_OPS read after layer_10: the 27 layers before it are good, all 25 behind go wrong by themselves."""
    report = bncheck.compare_train_vs_eval(checkpoint("too_early"), data=data["labelled"])
    (found,) = [finding for finding in report.findings if finding.code == "BN302"]
    assert found.layers == tuple(layer.name for layer in report.layers[27:])


def test_json(data: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """The command line: exit code 1, a document that its schema allows, the numbers in it."""
    code = cli.main(
        ["compare", "train-vs-eval", checkpoint("forgotten"), "--data", data["labelled"], "--format", "json"]
    )
    document = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(json_v1.schema()).validate(document)
    assert (code, document["exit_code"], document["verdict"]) == (1, 1, "fail")
    comparison = document["comparison"]
    assert len(comparison["layers"]) == 52
    assert comparison["first_bad_layer"] == "MobilenetV2/Conv/BatchNorm"
    assert comparison["accuracy"]["train"] > 0.85
    assert comparison["accuracy"]["eval"] < 0.3
    assert comparison["data"]["samples"] == 160
    assert "train vs eval" in document["checked"]


def test_by_name_from_the_checkpoint_alone(data: dict[str, str]) -> None:
    """The backbone's name instead of the MetaGraph: the same layers, the same numbers."""
    with_meta = bncheck.compare_train_vs_eval(checkpoint("wired"), data=data["labelled"]).comparison
    by_name = bncheck.compare_train_vs_eval(
        checkpoint("wired"), data=data["labelled"], model="mobilenet_v2:depth_multiplier=0.35"
    ).comparison
    assert with_meta is not None
    assert by_name is not None
    assert with_meta.accuracy.train == by_name.accuracy.train
    assert with_meta.accuracy.eval == by_name.accuracy.eval
    assert [layer.layer for layer in with_meta.layers] == [layer.layer for layer in by_name.layers]
    for one, other in zip(with_meta.layers, by_name.layers, strict=True):
        assert math.isclose(one.local_nmse, other.local_nmse, rel_tol=1e-3, abs_tol=1e-6)
        assert math.isclose(one.cumulative_nmse, other.cumulative_nmse, rel_tol=1e-2, abs_tol=1e-6)


def test_another_range_is_the_datas_fault(data: dict[str, str]) -> None:
    """Images in 0..1 for a model of -1..1: BN304 tells so by the factor of the first layer, and nothing is accused."""
    report = bncheck.compare_train_vs_eval(checkpoint("wired"), data=data["half"])
    codes = {finding.code: finding for finding in report.findings}
    assert report.verdict is Verdict.INCONCLUSIVE
    assert set(codes) == {"BN304"}
    assert codes["BN304"].layers == ("MobilenetV2/Conv/BatchNorm",)
    assert "0..1 to a model of -1..1" in codes["BN304"].message


@pytest.mark.parametrize("variant", ["wired", "forgotten"])
def test_synthetic_blames_no_healthy_model(variant: str) -> None:
    """On noise only the files are judged, and that is said."""
    report = bncheck.compare_train_vs_eval(checkpoint(variant), data="synthetic", batches=2)
    assert report.verdict is (Verdict.INCONCLUSIVE if variant == "wired" else Verdict.FAIL)
    assert not any(finding.code.startswith("BN3") for finding in report.findings)
    assert any("synthetic" in entry.why for entry in report.not_checked)


@pytest.mark.parametrize(
    ("kind", "options", "code", "says"),
    [
        ("few", (), 3, "8 samples are too few"),
        ("labelled", ("--batch-size", "2"), 3, "8 values"),
        ("shifted", (), 3, "the labels are numbered differently"),
        ("small", (), 2, "32x32x3, the model takes 64x64x3"),
        ("labelled", ("--outputs", "nosuch"), 2, "bncheck takes MobilenetV2/Logits/Squeeze"),
        ("labelled", ("--inputs", "nosuch"), 2, "bncheck takes images:0"),
        ("labelled", ("--no-graph",), 2, "give --graph, --model or --builder"),
        ("labelled", ("--model", "mobilenet_v3"), 2, "no backbone 'mobilenet_v3'"),
        ("labelled", ("--labels", "nosuch"), 2, "neither a file nor an array"),
        ("labelled", ("--size", "64"), 2, "HEIGHTxWIDTH"),
        ("labelled", ("--graph", "x", "--no-graph"), 2, "exclude each other"),
    ],
)
def test_exit_codes(  # noqa: PLR0917 - the table's columns
    data: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    kind: str,
    options: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    """Too little to judge is 3, what does not fit together 2, each with its sentence."""
    found = cli.main(["compare", "train-vs-eval", checkpoint("wired"), "--data", data[kind], *options])
    printed = capsys.readouterr()
    assert found == code
    assert says in " ".join((printed.out + printed.err).split())


def test_model_and_builder(data: dict[str, str]) -> None:
    """Both say what the network is: not together."""
    with pytest.raises(UsageError, match="exclude each other"):
        bncheck.compare_train_vs_eval(checkpoint("wired"), data=data["bare"], model="mobilenet_v2", builder="a.b:c")
    with pytest.raises(UsageError, match="exclude each other"):
        bncheck.compare_train_vs_eval(checkpoint("wired"), data=data["bare"], model="mobilenet_v2", graph="x.meta")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_data_that_are_not_finite_are_wrong_usage(
    data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    """Exit 2 and the sample; no report, and so no word on the model."""
    with np.load(data["bare"]) as held:
        images = held["images"].copy()
    images[5, 3, 2, 1] = value
    np.save(tmp_path / "spoilt.npy", images)
    found = cli.main(["compare", "train-vs-eval", checkpoint("wired"), "--data", str(tmp_path / "spoilt.npy")])
    printed = capsys.readouterr()
    assert found == 2
    assert not printed.out
    assert "sample 5, counted from 0, holds NaN or infinity" in " ".join(printed.err.split())


def test_made_up_data_are_no_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """A healthy model run on noise is not judged by it: exit 3, and 0 where that is allowed.

    How long it will take is told before, but with -q.
    """
    command = ["compare", "train-vs-eval", checkpoint("wired"), "--data", "synthetic", "--batches", "1"]
    assert cli.main(command) == 3
    told = capsys.readouterr()
    assert "synthetic noise" in told.out
    assert re.search(r"synthetic samples will take about [0-9.]+ s", told.err)
    assert cli.main([*command, "--allow-empty", "-q"]) == 0
    assert "will take" not in capsys.readouterr().err
