"""Models of tensorflow-model-optimization: what its quantization-aware training folded, and both modes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bncheck.commands.compare import compare_train_vs_eval
from bncheck.commands.inspect import inspect_model
from bncheck.foldproof.prove import prove
from bncheck.sources import open_model

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        find_spec("tensorflow_model_optimization") is None, reason="needs tensorflow-model-optimization"
    ),
]

SCRIPT = Path(__file__).parents[1] / "support" / "tfmot_model.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with q.h5, saved_model, q.tflite and test.npz."""
    folder = tmp_path_factory.mktemp("tfmot")
    # tfmot takes Keras 2, which is settled when TensorFlow is imported
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_converted_file_holds_the_stored_statistics(trained: Path) -> None:
    """Three of three folds, within what rounding to 8 bits allows."""
    lite = open_model(trained / "q.tflite", graph=None, use_graph=True)
    proof = prove(open_model(trained / "q.h5", graph=None, use_graph=True), lite)
    assert len(proof.layers) == 3
    report = inspect_model(trained / "q.tflite", reference=trained / "q.h5")
    assert not {"BN407", "BN409"} & {finding.code for finding in report.findings}


def test_a_healthy_model_passes_in_both_modes(trained: Path) -> None:
    """Its SavedModel runs with its rounding in either; nothing is accused."""
    report = compare_train_vs_eval(trained / "saved_model", data=trained / "test.npz")
    assert report.comparison is not None
    assert len(report.comparison.layers) == 3
    assert "BN410" not in {finding.code for finding in report.findings}
    assert report.comparison.accuracy.train == pytest.approx(report.comparison.accuracy.eval, abs=0.05)
