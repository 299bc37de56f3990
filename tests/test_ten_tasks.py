"""Ten things that people come for, done from README and documentation alone, each in at most two commands.

The commands are typed as the pages print them, in a folder that holds files of the names that the pages use.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import renew_readme

ROOT = renew_readme.ROOT
STORY = ROOT / "fixtures" / "mobilenet_v2"
KERAS = ROOT / "fixtures" / "tiny" / "bn101_never_moved"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="typed into a POSIX shell")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What somebody might have: checkpoints of several runs, Keras files."""
    for variant, place in (
        ("forgotten", "logs"),
        ("wired", "models"),
        ("decay_0.99", "."),
        ("forgotten", "runs/a"),
        ("wired", "runs/b"),
    ):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for file in (STORY / variant).glob("model.ckpt-300.*"):
            shutil.copy(file, tmp_path / place)
    shutil.copy(KERAS / "broken_keras" / "model.keras", tmp_path / "new.keras")
    for name in ("released", "model"):
        shutil.copy(KERAS / "clean_keras" / "model.keras", tmp_path / f"{name}.keras")
    return tmp_path


def type_in(folder: Path, page: str, *commands: str) -> tuple[list[int], str]:
    """(exit codes, all that was printed) of commands of a page, as they stand there."""
    assert len(commands) <= 2
    text = (ROOT / page).read_text(encoding="utf-8")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "100", "TF_CPP_MIN_LOG_LEVEL": "3"}
    codes, printed = [], ""
    for command in commands:
        assert command in text, f"{page} does not say `{command}`"
        line = command.replace("bncheck ", f"'{sys.executable}' -m bncheck ", 1)
        done = subprocess.run(
            ["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        codes.append(done.returncode)
        printed += done.stdout + done.stderr
    return codes, printed


def test_1_a_broken_slim_checkpoint(folder: Path) -> None:
    """What is wrong with it, and what the training code lacks."""
    codes, printed = type_in(folder, "docs/how-to/checkpoint.md", "bncheck check logs/model.ckpt-300")
    assert codes == [1]
    assert "BN201" in printed
    assert "tf.control_dependencies(update_ops)" in printed


def test_2_a_keras_file(folder: Path) -> None:
    """A healthy one passes."""
    codes, printed = type_in(folder, "docs/how-to/keras.md", "bncheck check model.keras")
    assert codes == [0]
    assert printed.startswith("PASS")


@pytest.mark.tensorflow
def test_3_a_tflite_file_and_its_source(folder: Path) -> None:
    """Whose statistics it has folded in is proved."""
    code = (
        "import sys, tensorflow as tf; m = tf.keras.models.load_model(sys.argv[1]); "
        "open(sys.argv[2], 'wb').write(tf.lite.TFLiteConverter.from_keras_model(m).convert())"
    )
    subprocess.run(
        [sys.executable, "-c", code, "model.keras", "int8.tflite"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=300,
    )
    codes, printed = type_in(
        folder,
        "docs/how-to/tflite.md",
        "bncheck check int8.tflite",
        "bncheck check int8.tflite --reference model.keras",
    )
    assert codes == [0, 0]
    assert "hold the stored statistics" in printed


def test_4_a_gate_in_ci(folder: Path) -> None:
    """One line, one exit code, files for whatever shows them; and the snippet for a CI."""
    codes, _ = type_in(folder, "README.md", "bncheck check models/ --output bncheck.xml --output bncheck.sarif")
    assert codes == [0]
    assert {"bncheck.xml", "bncheck.sarif"} <= {path.name for path in folder.iterdir()}
    codes, printed = type_in(folder, "docs/how-to/ci.md", "bncheck init")
    assert codes == [0]
    assert "uses: OWNER/bncheck@main" in printed


@pytest.mark.tensorflow
def test_5_no_data(folder: Path) -> None:
    """A repair from decay and number of updates; that nothing confirms it is said."""
    codes, printed = type_in(
        folder,
        "docs/how-to/no-data.md",
        "bncheck check model.ckpt-300",
        "bncheck repair model.ckpt-300 -o fixed.ckpt --debias",
    )
    assert codes == [1, 3]
    assert "BN103" in printed
    assert (folder / "fixed.ckpt.index").is_file()


def test_6_two_models_compared(folder: Path) -> None:
    """The new one has a fault that the released one had not, and its layers differ."""
    codes, printed = type_in(
        folder,
        "docs/how-to/compare-models.md",
        "bncheck diff released.keras new.keras",
        "bncheck gate new.keras --against released.keras",
    )
    assert codes == [1, 1]
    assert printed.count("BN101 never-moved") == 2
    assert "Statistics of 1 layer in both" in printed


def test_7_what_is_bn103(folder: Path) -> None:
    """Its page, in the terminal and in the documentation."""
    codes, printed = type_in(folder, "docs/rules/index.md", "bncheck explain BN201")
    assert codes == [0]
    assert "BN201 update-not-wired" in printed
    page = (ROOT / "docs" / "rules" / "BN103.md").read_text(encoding="utf-8")
    assert "# BN103 init-share-too-high" in page
    assert "## Fix" in page


def test_8_a_folder_of_runs(folder: Path) -> None:
    """All of them, by one glob, with the worst exit code."""
    codes, printed = type_in(folder, "docs/how-to/folder.md", "bncheck check 'runs/*/model.ckpt-*'")
    assert codes == [1]
    assert printed.count("model.ckpt-300 · TF1 checkpoint") == 2


@pytest.mark.tensorflow
def test_9_repair_it_and_check_it(folder: Path) -> None:
    """The copy passes on data that did not make it."""
    digits = pytest.importorskip("fixtures.digits").digits()
    np.savez(folder / "train.npz", images=digits.train_images[:640], labels=digits.train_labels[:640])
    np.savez(folder / "test.npz", images=digits.test_images, labels=digits.test_labels)
    codes, printed = type_in(
        folder,
        "docs/how-to/repair.md",
        "bncheck repair model.ckpt-300 -o fixed.ckpt --data train.npz",
        "bncheck gate fixed.ckpt --data test.npz",
    )
    assert codes == [0, 0], printed


def test_10_an_ignore(folder: Path) -> None:
    """The page's own table, with the code at hand: the finding no longer fails, and its reason is shown."""
    page = (ROOT / "docs" / "how-to" / "ignore.md").read_text(encoding="utf-8")
    table = page.partition("```toml\n")[2].partition("```")[0].replace('layer = "head/*"', 'layer = "*"')
    (folder / "pyproject.toml").write_text(table.replace('["BN107"]', '["BN1", "BN2"]'))
    codes, printed = type_in(folder, "docs/how-to/ignore.md", "bncheck check logs/model.ckpt-300 --output report.json")
    assert codes == [0]
    assert "2 suppressed" in printed
    suppressed = json.loads((folder / "report.json").read_text())["suppressed"]
    assert ["pruned on purpose" in entry["by"] for entry in suppressed] == [True, True]
