"""The process around a command: streams that are full or closed, folders that are gone, signals at any time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import write_bundle

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, and a shell")

FIXTURES = Path(__file__).parents[2] / "fixtures"
SOURCE = FIXTURES / "mobilenet_v2" / "decay_0.99" / "model.ckpt-300"
needs_fixtures = pytest.mark.skipif(
    not SOURCE.with_name(f"{SOURCE.name}.index").exists(), reason="the MobileNetV2 fixtures are absent"
)


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line of the shell in which BNCHECK and CHECKPOINT stand for the command and a healthy checkpoint."""
    vector = np.linspace(0.5, 2, 4, dtype=np.float32)
    if folder.is_dir():
        write_bundle(folder / "m.ckpt", {f"bn/{name}": vector for name in ("moving_mean", "moving_variance", "gamma")})
    line = line.replace("BNCHECK", f"{sys.executable} -m bncheck").replace("CHECKPOINT", str(folder / "m.ckpt"))
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60, cwd=folder)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("BNCHECK inspect checkpoint CHECKPOINT > /dev/full", "standard output cannot be written to: No space left"),
        ("BNCHECK explain BN101 > /dev/full", "standard output cannot be written to: No space left"),
        ("BNCHECK --help > /dev/full", "No space left"),
        ("BNCHECK inspect checkpoint CHECKPOINT >&-", "standard output is closed"),
        ("BNCHECK explain BN101 >&-", "standard output is closed"),
        ("BNCHECK inspect checkpoint nothing 2> /dev/full", ""),
        ("BNCHECK inspect checkpoint nothing 2>&-", ""),
        ("BNCHECK inspect checkpoint nothing <&- >&- 2>&-", ""),
        ("BNCHECK nothing 2> /dev/full", ""),
        ("BNCHECK nothing 2>&-", ""),
    ],
)
def test_streams_that_are_full_or_closed(tmp_path: Path, line: str, says: str) -> None:
    """One sentence where there is a place for it, exit code 2, and no word of an internal error."""
    done = shell(line, tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == bool(says)
    assert "internal error" not in done.stderr


def test_closed_streams_do_not_matter_where_nothing_goes_to_them(tmp_path: Path) -> None:
    """A report into a file needs no standard output; standard error is for errors."""
    assert shell("BNCHECK inspect checkpoint CHECKPOINT --output out.txt >&- 2>&- <&-", tmp_path).returncode == 0
    assert (tmp_path / "out.txt").read_text().startswith("PASS")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("BNCHECK inspect checkpoint CHECKPOINT", 0),
        ("BNCHECK inspect checkpoint m.ckpt", 2),
        ("BNCHECK inspect checkpoint CHECKPOINT --output json=out.json", 2),
    ],
)
def test_a_working_folder_that_was_deleted(tmp_path: Path, line: str, code: int) -> None:
    """Absolute paths work as ever; what is relative is not there."""
    done = shell(f"mkdir gone && cd gone && rmdir ../gone && {line}", tmp_path)
    assert done.returncode == code
    assert "internal error" not in done.stderr
    assert done.stderr.count("\n") == bool(code)


@needs_fixtures
@pytest.mark.parametrize("out", ["fixed.ckpt", "absent/fixed.ckpt"])
def test_a_repair_without_room(tmp_path: Path, out: str) -> None:
    """A disk that fills up, as a limit of sizes acts it, leaves one sentence and nothing else."""
    (tmp_path / "out").mkdir()
    done = shell(f"cd out; ulimit -f 100; BNCHECK repair {SOURCE} -o {out} --debias", tmp_path)
    assert done.returncode == 2
    assert "fixed.ckpt: cannot be written: File too large" in done.stderr or "no such folder" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


@needs_fixtures
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_no_temporaries(tmp_path: Path, end: signal.Signals) -> None:
    """A repair that is asked to end once its hidden folder is there takes that folder away."""
    command = [sys.executable, "-m", "bncheck", "repair", str(SOURCE), "-o", str(tmp_path / "out.ckpt"), "--debias"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not any(tmp_path.iterdir()) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(end)
        assert process.stderr is not None
        errors = process.stderr.read()
    if process.returncode not in (0, 3):  # had it not ended before
        assert process.returncode == 128 + end
        assert errors.strip().endswith(("bncheck: terminated", "bncheck: interrupted"))
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_early_interrupt_is_no_traceback_of_ours(tmp_path: Path) -> None:
    """At whatever moment it comes: what comes before `run` cannot be helped."""
    command = [sys.executable, "-m", "bncheck", "inspect", "checkpoint", str(tmp_path / "nothing")]
    for delay in np.linspace(0.02, 0.3, 15):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(float(delay))
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            errors = process.stderr.read()
        assert "in run\n" not in errors, f"after {delay:.2f} s: {errors}"


def test_a_file_that_hdf5_cannot_open_ends_in_a_sentence(tmp_path: Path) -> None:
    """HDF5 is taken down after Python, and crashed on what an error still held."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "cut.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("moving_mean", data=np.zeros(4000))
    path.write_bytes(path.read_bytes()[:3000])
    done = subprocess.run(
        [sys.executable, "-m", "bncheck", "check", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "byte 3,000: the file ends inside the HDF5 file" in done.stderr
