"""Pipes, devices and links in the place of files: a sentence, never a hang, a full memory, or a file from elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import bncheck
from bncheck.cli.main import main
from bncheck.compare.data.data import open_data
from bncheck.compare.data.samples import ModelInput, read_labels
from bncheck.compare.litert.recipes import recipe
from bncheck.facts.errors import ReadError
from bncheck.repair.write import destination
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.sources.files import require_inside

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes and devices here")

FIXTURES = Path(__file__).parents[2] / "fixtures"
ENDLESS = "/dev/zero"


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    """What waits for a writer, or reads without end, is ended after a minute."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a checkpoint, and a pipe that nobody writes to."""
    source = min(FIXTURES.rglob("*.index"), key=lambda p: p.stat().st_size).with_suffix("")
    for part in source.parent.glob(f"{source.name}.*"):
        shutil.copy(part, tmp_path / part.name.replace(source.name, "model.ckpt", 1))
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("special", ["pipe", ENDLESS, "."])
@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "checkpoint", "model.ckpt", "--graph"),
        ("inspect", "checkpoint", "model.ckpt", "--baseline"),
        ("inspect", "checkpoint", "model.ckpt", "--config"),
        ("inspect", "checkpoint", "model.ckpt", "--reference"),
        ("inspect", "model"),
        ("inspect", "graph"),
        ("inspect", "checkpoint"),
        ("gate", "model.ckpt", "--against"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_named_is_a_regular_file(
    command: tuple[str, ...], special: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever a file may be named on the command line."""
    if special == "." and command[-1] in ("checkpoint", "model", "--reference", "--against"):
        pytest.skip("a folder may be one")
    assert main([*command, special]) == 2
    told = capsys.readouterr().err
    assert "internal error" not in told
    assert special in told


@pytest.mark.parametrize("special", ["pipe", ENDLESS])
@pytest.mark.parametrize("name", ["{}", "images.npy", "images.npz", "rows.tfrecord", "rows-*.tfrecord"])
def test_data_are_regular_files(folder: Path, special: str, name: str) -> None:
    """Links to what is none included."""
    path = Path(name.format(special).replace("*", "1"))
    if not path.exists():
        path.symlink_to(folder / special)
    with pytest.raises(ReadError, match="not a file"):
        open_data(name.format(special), [ModelInput(names=("x",), shape=(None, 4), dtype=np.dtype("f4"))])
    with pytest.raises(ReadError, match="not a file"):
        read_labels(path, 3)


@pytest.mark.parametrize("kind", ["pipe", "device", "out", "dangling"])
def test_a_folder_of_images_holds_files_of_its_own(folder: Path, kind: str) -> None:
    """A pipe would hang, a link to a device fill the memory, one to elsewhere show what lies there."""
    images = folder / "images" / "a"
    images.mkdir(parents=True)
    target = {"device": ENDLESS, "out": str(folder / "model.ckpt.index"), "dangling": "nowhere"}.get(kind)
    if target is None:
        os.mkfifo(images / "1.png")
    else:
        (images / "1.png").symlink_to(target)
    with pytest.raises(ReadError, match=r"not a file|leads out of|does not exist"):
        open_data(folder / "images", [ModelInput(names=("x",), shape=(None, 4, 4, 3), dtype=np.dtype("f4"))])


def test_links_within_a_folder_are_its_own(folder: Path) -> None:
    """And a folder may itself be reached by a link."""
    (folder / "real").mkdir()
    (folder / "real" / "a").write_text("a")
    (folder / "real" / "b").symlink_to("a")
    (folder / "link").symlink_to("real")
    require_inside(folder / "link" / "b", folder / "link")


@pytest.fixture
def saved_model(folder: Path) -> Path:
    """The files of a SavedModel; what they hold does not matter to the copy."""
    model = folder / "saved"
    (model / "assets").mkdir(parents=True)
    (model / "assets" / "labels.txt").write_text("cat\ndog\n")
    source = FIXTURES / "tiny" / "healthy" / "keras_export" / "model"
    shutil.copytree(source / "variables", model / "variables")
    shutil.copy(source / "saved_model.pb", model)
    return model


@pytest.mark.parametrize("kind", ["pipe", "device", "out", "folder", "loop"])
def test_a_repaired_saved_model_copies_files_of_its_own(saved_model: Path, kind: str) -> None:
    """What the source links to elsewhere is not brought along, and nothing hangs or is left behind."""
    evil = saved_model / "assets" / "evil"
    if kind == "pipe":
        os.mkfifo(evil)
    else:
        targets = {"device": ENDLESS, "out": "/etc/hostname", "folder": "/etc", "loop": str(saved_model)}
        evil.symlink_to(targets[kind])
    output = saved_model.parent / "fixed"
    with pytest.raises(ReadError, match=r"not a file|leads out of"):
        destination(open_model(saved_model), output).write({}, {}, "{}")
    assert [p.name for p in saved_model.parent.iterdir() if "fixed" in p.name] == []


def test_a_clean_saved_model_is_copied(saved_model: Path) -> None:
    """Links within it are followed, so that the copy stands alone."""
    (saved_model / "assets" / "words.txt").symlink_to("labels.txt")
    destination(open_model(saved_model), saved_model.parent / "fixed").write({}, {}, "{}")
    copied = saved_model.parent / "fixed" / "assets" / "words.txt"
    assert not copied.is_symlink()
    assert copied.read_text() == "cat\ndog\n"


@pytest.mark.parametrize("special", ["pipe", ENDLESS])
@pytest.mark.usefixtures("folder")
def test_a_quantized_file_is_a_regular_file(special: str) -> None:
    """Beside a TFLite file it is read as it is."""
    model = FIXTURES / "tiny" / "bn405_bias_saturated" / "broken" / "model.tflite"
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(ReadError, match="not a file"):
        bncheck.compare_float_vs_quantized(model, quantized=special, data="synthetic")


@pytest.mark.parametrize("special", ["pipe", ENDLESS])
@pytest.mark.usefixtures("folder")
def test_a_recipe_is_a_regular_file(special: str) -> None:
    """ai-edge-quantizer opens whatever is called like the recipe."""
    pytest.importorskip("ai_edge_quantizer")
    with pytest.raises(ReadError, match="not a file"):
        recipe(special)


def test_options_name_what_they_take() -> None:
    """The options that name a file, so that a new one is not forgotten here."""
    paths = {name for name, field in Options.__dataclass_fields__.items() if "Path" in str(field.type)}
    assert paths == {"data", "quantized", "against", "graph", "reference"}


_NAMES = (
    *("checkpoint", "model.ckpt.index", "model.ckpt.meta", "model.ckpt.data-00000-of-00001", "other.meta"),
    *("model.ckpt.bncheck.json", "saved_model.pb", "config.json", "bncheck.toml", "pyproject.toml"),
)


@pytest.mark.parametrize("special", ["pipe", ENDLESS])
@pytest.mark.parametrize("name", _NAMES)
def test_nor_does_what_lies_beside_a_model_hang(folder: Path, name: str, special: str) -> None:
    """What no one named: read because it lies there, or passed by."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(special)
    for command in (("inspect", "checkpoint", "model.ckpt"), ("inspect", "model", "."), ("inspect", "run", ".")):
        assert main(list(command)) in (0, 1, 2, 3)


@pytest.mark.parametrize(
    "line", ["baseline = '{}'", "reference = '{}'", "[gate]\ndata = '{}'\n", "[gate]\nagainst = '{}'\n"]
)
@pytest.mark.parametrize("special", ["pipe", ENDLESS])
def test_nor_does_what_a_configuration_names(folder: Path, line: str, special: str) -> None:
    """The same files, named by a file."""
    (folder / ".git").mkdir()
    (folder / "bncheck.toml").write_text(line.format(special))
    command = ["gate", "model.ckpt"] if "gate" in line else ["inspect", "checkpoint", "model.ckpt"]
    assert main(command) in (0, 1, 2, 3)
