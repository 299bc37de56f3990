"""A repair that is killed, at any point: under the final name there is a whole copy or none, and the source stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import write_bundle
from keras_writer import batch_norm, bn_values, conv, h5_file, inputs, scoped, sequential

from bncheck.facts.errors import UsageError
from bncheck.repair.write import destination
from bncheck.sources import open_model
from bncheck.sources.bundle.checkpoint import read_checkpoint

FIXTURES = Path(__file__).parents[2] / "fixtures"
SOURCE = FIXTURES / "mobilenet_v2" / "decay_0.99" / "model.ckpt-300"

CRASHES = """
import json, os, sys
from pathlib import Path
from bncheck.repair.write import destination
from bncheck.sources import open_model
import numpy as np

source, folder, name, keys = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
raw = open_model(source, use_graph=False)
vectors = {key: np.full(raw.tensors[key].shape, 0.25) for key in keys}
WRITES = ("open", "os.link", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")
point = 0
while True:
    point += 1
    out = folder / str(point)
    out.mkdir()
    child = os.fork()
    if not child:
        left = [point]
        def hook(event, _):
            if event in WRITES:
                left[0] -= 1
                if not left[0]:
                    os._exit(9)
        place = destination(raw, out / name)
        sys.addaudithook(hook)
        place.write(vectors, {}, json.dumps({"tool": {"name": "bncheck"}, "output": name, "run": point}))
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print(json.dumps(point))
        break
"""
"""Crashes a write at its first event that touches a file, at its second, and so on until one ends well."""


def crashed_everywhere(source: Path, folder: Path, name: str, keys: list[str]) -> int:
    """The number of crash points; `folder/<n>` is left as the n-th crash left it, the last one is undisturbed."""
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, str(source), str(folder), name, *keys],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    points: int = json.loads(done.stdout)
    return points


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def test_a_checkpoint_survives_a_crash_at_every_point(tmp_path: Path) -> None:
    """An index never stands without all of its data, `.meta` and provenance."""
    source = tmp_path / "run" / "model"
    tensors = {"bn/moving_mean": np.zeros(2, np.float32), "w": np.arange(9, dtype=np.float32)}
    write_bundle(source, tensors, shards=2)
    source.with_name("model.meta").write_bytes(b"a graph")
    before = {path.name: path.read_bytes() for path in source.parent.iterdir()}
    points = crashed_everywhere(source, tmp_path, "out", ["bn/moving_mean"])
    assert points > 20
    whole = 0
    for point in range(1, points + 1):
        out = tmp_path / str(point)
        if (out / "out.index").exists():
            whole += 1
            found = read_checkpoint(out / "out").tensors
            assert found["bn/moving_mean"].read().tolist() == [0.25, 0.25]
            assert found["w"].read().tolist() == list(range(9))
            assert (out / "out.meta").read_bytes() == b"a graph"
            assert json.loads((out / "out.bncheck.json").read_text())["output"] == "out"
        if (out / "checkpoint").exists():
            assert read_checkpoint(out).path == out / "out"
    assert 0 < whole < points
    assert {path.name: path.read_bytes() for path in source.parent.iterdir()} == before


def test_a_keras_file_survives_a_crash_at_every_point(tmp_path: Path) -> None:
    """The copy appears whole or not at all."""
    config = sequential(inputs("in"), conv("c"), batch_norm("bn"))
    source = h5_file(tmp_path / "m.h5", config, {"bn": scoped("bn", bn_values())})
    before = source.read_bytes()
    points = crashed_everywhere(source, tmp_path, "out.h5", ["bn/moving_mean", "bn/moving_variance"])
    whole = 0
    for point in range(1, points + 1):
        out = tmp_path / str(point) / "out.h5"
        if out.exists():
            whole += 1
            found = open_model(out).tensors
            assert found["bn/moving_mean"].read().tolist() == [0.25] * 4
            assert found["bn/gamma"].read().tolist() == open_model(source).tensors["bn/gamma"].read().tolist()
    assert 0 < whole < points
    assert source.read_bytes() == before


def test_a_saved_model_survives_a_crash_at_every_point(tmp_path: Path) -> None:
    """The folder appears whole or not at all."""
    source = FIXTURES / "tiny" / "healthy" / "keras_export" / "model"
    raw = open_model(source)
    key = next(key for key, tensor in raw.tensors.items() if tensor.dtype == "float32" and len(tensor.shape) == 1)
    points = crashed_everywhere(source, tmp_path, "out", [key])
    whole = 0
    for point in range(1, points + 1):
        out = tmp_path / str(point) / "out"
        if out.exists():
            whole += 1
            found = open_model(out).tensors
            assert set(found[key].read().tolist()) == {0.25}
            assert all(found[other].read().shape == raw.tensors[other].shape for other in raw.tensors)
            assert (out / "saved_model.pb").read_bytes() == (source / "saved_model.pb").read_bytes()
    assert 0 < whole < points


def rerun(source: Path, output: Path, keys: list[str]) -> None:
    """The same repair into the same place, by a run of its own."""
    raw = open_model(source, use_graph=False)
    vectors = {key: np.full(raw.tensors[key].shape, 0.25) for key in keys}
    note = json.dumps({"tool": {"name": "bncheck"}, "output": output.name, "run": "again"})
    destination(raw, output).write(vectors, {}, note)
    assert json.loads(output.with_name(f"{output.name}.bncheck.json").read_text())["run"] == "again"


@pytest.mark.parametrize("form", ["checkpoint", "h5", "saved model"])
def test_a_run_that_was_killed_can_be_run_again(tmp_path: Path, form: str) -> None:
    """Whatever a crash left behind, short of the output itself, is no obstacle, and ends as an undisturbed run does."""
    keys = ["bn/moving_mean"]
    name = "out"
    if form == "checkpoint":
        source = tmp_path / "model"
        write_bundle(source, {"bn/moving_mean": np.zeros(2, np.float32), "w": np.ones(9, np.float32)}, shards=2)
        source.with_name("model.meta").write_bytes(b"a graph")
    elif form == "h5":
        config = sequential(inputs("in"), conv("c"), batch_norm("bn"))
        source, name = h5_file(tmp_path / "m.h5", config, {"bn": scoped("bn", bn_values())}), "out.h5"
    else:
        source = FIXTURES / "tiny" / "healthy" / "keras_export" / "model"
        tensors = open_model(source).tensors.items()
        keys = [key for key, tensor in tensors if tensor.dtype == "float32" and len(tensor.shape) == 1][:1]
    points = crashed_everywhere(source, tmp_path, name, keys)
    resumed = 0
    for point in range(1, points + 1):
        output = tmp_path / str(point) / name
        if output.exists() or output.with_name(f"{name}.index").exists():
            continue
        resumed += output.with_name(f"{name}.bncheck.json").exists()
        rerun(source, output, keys)
        assert np.all(open_model(output, use_graph=False).tensors[keys[0]].read() == 0.25)
    assert resumed


def test_what_others_left_is_in_the_way(tmp_path: Path) -> None:
    """A provenance file of no bncheck, or of another output, and data files without one are not taken over."""
    source = tmp_path / "model"
    write_bundle(source, {"bn/moving_mean": np.zeros(2, np.float32)})
    raw = open_model(source, use_graph=False)
    note = tmp_path / "out.bncheck.json"
    for text in ("{", "[]", '{"tool": {"name": "bncheck"}, "output": "other"}', '{"tool": 1, "output": "out"}'):
        note.write_text(text)
        with pytest.raises(UsageError, match=r"out\.bncheck\.json exists without an index"):
            destination(raw, tmp_path / "out")
    note.write_text('{"tool": {"name": "bncheck"}, "output": "out"}')
    data = tmp_path / "out.data-00000-of-00001"
    data.write_bytes(b"another's")
    with pytest.raises(UsageError, match=r"out\.data-00000-of-00001 already exists"):
        destination(raw, tmp_path / "out").write({}, {}, "{}")
    assert data.read_bytes() == b"another's"


KILLED = """
import sys
from bncheck.cli.main import main
print("ready", flush=True)
sys.exit(main(["repair", sys.argv[1], "-o", sys.argv[2], "--debias"]))
"""


def killed_after(delay: float | None, output: Path) -> float:
    """Repairs in a process of its own and kills it after `delay` seconds (None: lets it end); seconds it ran."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(SOURCE), str(output)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        start = time.perf_counter()
        if delay is not None:
            time.sleep(delay)
            process.kill()
        process.stdout.read()
        return time.perf_counter() - start


def check_whole_or_absent(output: Path) -> bool:
    """Whether a checkpoint of that name exists; if so, every tensor of it is read, checksums and all."""
    if not output.with_name(f"{output.name}.index").exists():
        return False
    tensors = read_checkpoint(output).tensors
    for key in tensors:
        tensors[key].read()
    assert json.loads(output.with_name(f"{output.name}.bncheck.json").read_text())["method"] == "debias"
    assert output.with_name(f"{output.name}.meta").read_bytes() == SOURCE.with_name("model.ckpt-300.meta").read_bytes()
    return True


@pytest.mark.parametrize("tries", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_repair_killed_at_random_leaves_a_whole_copy_or_none(tmp_path: Path, tries: int) -> None:
    """SIGKILL at moments spread over the length of an undisturbed repair of MobileNetV2."""
    before = {path.name: path.read_bytes() for path in SOURCE.parent.iterdir()}
    length = killed_after(None, tmp_path / "undisturbed")
    assert check_whole_or_absent(tmp_path / "undisturbed")
    delays = np.random.default_rng(tries).uniform(0.0, length, tries)
    for number, delay in enumerate(delays.tolist()):
        killed_after(delay, tmp_path / f"out{number}")
        check_whole_or_absent(tmp_path / f"out{number}")
    assert {path.name: path.read_bytes() for path in SOURCE.parent.iterdir()} == before
