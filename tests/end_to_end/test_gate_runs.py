"""`bncheck gate` on models that are really run: the story's checkpoints, before and after repair, and failures."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from trained_variants import checkpoint, trained_digits

import bncheck
from bncheck.cli import main as cli
from bncheck.facts.findings import Report, StageName, Verdict
from bncheck.report.wire import json_v1

pytestmark = pytest.mark.tensorflow

ALL = {StageName.STATIC: "done", StageName.MODES: "done", StageName.QUANTIZED: "done"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """160 test digits with labels."""
    found = trained_digits()
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, images=found.test_images[:160], labels=found.test_labels[:160])
    return str(path)


def _states(report: Report) -> dict[str, str]:
    assert report.gate is not None
    return {stage.name: stage.state.value for stage in report.gate.stages}


def _codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings}


@pytest.fixture(scope="module")
def wired(digits: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON report of the healthy model, with data, by a process that tells what it loaded."""
    path = tmp_path_factory.mktemp("reports") / "wired.json"
    code = (
        "import sys, pathlib, bncheck\n"
        f"report = bncheck.gate({checkpoint('wired')!r}, data={digits!r})\n"
        f"pathlib.Path({str(path)!r}).write_text(report.to_json())\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines() == ["False"], "the process that asks must not load TensorFlow itself"
    return path


def test_healthy(wired: Path) -> None:
    """All stages in one run: int8 agrees for 97 % and more, the document is its schema's."""
    document = json.loads(wired.read_text())
    jsonschema.Draft202012Validator(json_v1.schema()).validate(document)
    assert (document["verdict"], document["exit_code"], document["findings"]) == ("pass", 0, [])
    assert {stage["name"]: stage["state"] for stage in document["gate"]["stages"]} == ALL
    assert document["gate"]["peak_memory"] > 300
    assert document["comparison"]["agreement"] >= 0.97
    assert [c["mode"] for c in document["comparisons"]] == ["float-vs-quantized", "train-vs-eval"]


@pytest.mark.parametrize("variant", ["forgotten", "decay_0.99", pytest.param("decay_0.9997", marks=pytest.mark.slow)])
def test_broken(variant: str, wired: Path, digits: str) -> None:
    """Static faults do not end the gate early: it tells that the loss was there before quantization (BN408).

    Held against the healthy model, it is worse (BN501).
    """
    report = bncheck.gate(checkpoint(variant), data=digits, against=wired)
    assert (report.verdict, report.exit_code) == (Verdict.FAIL, 1)
    assert _states(report) == {**ALL, StageName.AGAINST: "done"}
    assert {"BN301", "BN408", "BN501"} <= _codes(report)
    assert _codes(report) & {"BN103", "BN201"}
    assert report.quantized is not None
    assert report.quantized.attribution is not None
    assert report.quantized.attribution.statistics_share is not None
    assert report.quantized.attribution.statistics_share >= 0.9
    (lost,) = [finding for finding in report.findings if finding.code == "BN501"]
    assert "accuracy in eval mode" in lost.message
    assert "accuracy in quantized" in lost.message


@pytest.mark.slow
def test_repair_verdict(digits: str, tmp_path: Path) -> None:
    """After repair the same gate passes; tests/test_ten_tasks.py sees it of another checkpoint each time."""
    out = tmp_path / "fixed.ckpt"
    assert cli.main(["repair", checkpoint("forgotten"), "-o", str(out), "--data", digits]) == 0
    assert cli.main(["gate", str(out), "--data", digits]) == 0


def test_against_a_model(digits: str) -> None:
    """The earlier model is run on the same data; without the quantized stage for either."""
    report = bncheck.gate(checkpoint("wired"), data=digits, against=checkpoint("decay_0.99"), quantize=False)
    assert _states(report) == {
        StageName.STATIC: "done",
        StageName.MODES: "done",
        StageName.QUANTIZED: "left out",
        StageName.AGAINST: "done",
    }
    assert report.exit_code == 0


def test_other_data_are_not_compared(wired: Path, digits: str) -> None:
    """Accuracy on fewer samples says nothing of getting worse, and that is said."""
    report = bncheck.gate(checkpoint("wired"), data=digits, batches=2, against=wired, quantize=False)
    assert report.exit_code == 0
    (entry,) = [entry for entry in report.not_checked if "worse" in entry.what]
    assert "was measured on digits.npz" in entry.why


def test_time_is_limited(digits: str) -> None:
    """A healthy model whose run is ended is no pass."""
    report = bncheck.gate(checkpoint("wired"), data=digits, max_time=1.5)
    assert (report.exit_code, _states(report)[StageName.MODES]) == (3, "over budget")


def test_memory_is_limited(digits: str) -> None:
    """A run that is ended takes nothing along of what the files show."""
    report = bncheck.gate(checkpoint("forgotten"), data=digits, max_memory=150.0)
    assert (report.exit_code, _states(report)[StageName.MODES]) == (1, "over budget")
    assert {"BN101", "BN201"} <= _codes(report)


def test_wrong_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data that do not fit are the call's fault: one sentence, exit code 2, no report."""
    path, out = tmp_path / "bad.npz", tmp_path / "r.json"
    np.savez(path, images=np.zeros((64, 5, 5, 3), np.float32))
    assert cli.main(["gate", checkpoint("forgotten"), "--data", str(path), "--output", f"json={out}"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = [line for line in shown.err.splitlines() if line.startswith("bncheck: ")]
    assert "5" in line
    assert not out.exists()


def _unconvertible(folder: Path) -> str:
    """A small TF1 model with an op that TFLite lacks behind its batch norm, trained for 60 steps."""
    import tensorflow as tf

    from bncheck.backbones.mobilenet_v2 import slim

    v1 = tf.compat.v1
    with tf.Graph().as_default(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        v1.set_random_seed(0)
        images = v1.placeholder(tf.float32, [None, 8, 8, 3], name="images")
        labels = v1.placeholder(tf.int64, [None], name="labels")
        norm = {"is_training": True, "decay": 0.5}
        net = slim.conv2d(images, 9, 3, normalizer_fn=slim.batch_norm, normalizer_params=norm, scope="conv")
        matrices = tf.reshape(tf.reduce_mean(net, [1, 2]), [-1, 3, 3]) + 4.0 * tf.eye(3)
        logits = tf.reshape(tf.linalg.inv(matrices), [-1, 9])
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        step = v1.train.get_or_create_global_step()
        with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
            train_op = v1.train.GradientDescentOptimizer(0.01).minimize(loss, step)
        random = np.random.default_rng(0)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for _ in range(60):
                feed = {images: random.normal(2.0, 1.0, (32, 8, 8, 3)), labels: random.integers(0, 9, 32)}
                session.run(train_op, feed)
            return str(v1.train.Saver().save(session, str(folder / "model.ckpt"), 60))


def test_conversion_that_fails(tmp_path: Path) -> None:
    """An op that TFLite lacks: both modes are judged, one sentence names the op, no pass; left out, it passes."""
    model = _unconvertible(tmp_path)
    data = tmp_path / "data.npy"
    np.save(data, np.random.default_rng(1).normal(2.0, 1.0, (128, 8, 8, 3)).astype(np.float32))
    report = bncheck.gate(model, data=data)
    assert _states(report) == {StageName.STATIC: "done", StageName.MODES: "done", StageName.QUANTIZED: "could not run"}
    assert (report.verdict, report.exit_code) == (Verdict.INCONCLUSIVE, 3)
    (entry,) = [entry for entry in report.not_checked if entry.what == StageName.QUANTIZED]
    assert "MatrixInverse" in entry.why
    assert "\n" not in entry.why
    assert "--no-quantize" in entry.how
    assert bncheck.gate(model, data=data, quantize=False).exit_code == 0
