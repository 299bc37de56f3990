"""Data: every kind of source gives the same batches every time, and one clear sentence where it does not fit."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.compare.data.data import Data, open_data, sample_shape
from bncheck.compare.data.preprocess import preprocessed
from bncheck.compare.data.samples import ModelInput
from bncheck.facts.errors import BncheckError, NotFound, ReadError, UnknownFormat, UsageError
from bncheck.facts.inputs import RANGES
from bncheck.settings.options import Options

SHAPE = (None, 4, 6, 3)
COUNT = 37
IMAGES = np.random.default_rng(0).normal(size=(COUNT, 4, 6, 3)).astype(np.float32)
LABELS = np.arange(COUNT) % 5


def opened(spec: object, *, shape: Any = SHAPE, dtype: Any = np.float32, **how: Any) -> Data:
    """Opened for a model of float images in batches of 8, unless told otherwise."""
    return open_data(str(spec), [model_input(shape, dtype)], Options(**({"batch_size": 8} | how)))


def model_input(shape: Any, dtype: Any = np.float32) -> ModelInput:
    """The input of a model."""
    return ModelInput(shape=shape, dtype=np.dtype(dtype))


def pooled(data: Data) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """All batches in one."""
    batches = list(data)
    labels = [part for _, part in batches if part is not None]
    return np.concatenate([images for images, _ in batches]), np.concatenate(labels) if labels else None


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Images and labels, uncompressed."""
    np.savez(tmp_path / "d.npz", images=IMAGES, labels=LABELS)
    return tmp_path / "d.npz"


def test_npz(npz: Path) -> None:
    """Whole batches of distinct samples with their own labels, the same at every pass; the rest is left out."""
    data = opened(npz)
    images, labels = pooled(data)
    assert (len(images), data.samples, data.labelled) == (32, 32, True)
    assert labels is not None
    places = [int(np.flatnonzero((image == IMAGES).all(axis=(1, 2, 3)))[0]) for image in images]
    assert len(set(places)) == 32
    assert [LABELS[place] for place in places] == labels.tolist()
    np.testing.assert_array_equal(images, pooled(data)[0])
    assert places != sorted(places)


def test_sorted_classes_are_mixed(tmp_path: Path) -> None:
    """A file sorted by class does not give batches of one class, whose statistics would be that class's."""
    np.savez(tmp_path / "d.npz", images=IMAGES, labels=np.sort(LABELS))
    assert all(labels is not None and len(set(labels.tolist())) > 2 for _, labels in opened(tmp_path / "d.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_stored_or_compressed(tmp_path: Path, save: Any, order: Any) -> None:
    """Mapped into memory or unpacked, in either order of axes: the same numbers."""
    save(tmp_path / "d.npz", images=np.array(IMAGES, order=order), labels=LABELS)
    np.save(tmp_path / "d.npy", IMAGES)
    np.testing.assert_array_equal(pooled(opened(tmp_path / "d.npz"))[0], pooled(opened(tmp_path / "d.npy"))[0])


def test_batches(npz: Path) -> None:
    """`batches` limits; a source smaller than one batch gives what it has."""
    assert [len(images) for images, _ in opened(npz, batches=2)] == [8, 8]
    assert [len(images) for images, _ in opened(npz, batch_size=64)] == [COUNT]
    assert opened(npz, batch_size=64).batch_size == COUNT
    with pytest.raises(UsageError, match="must be 1 or more"):
        opened(npz, batch_size=0)


@pytest.mark.parametrize("kind", ["npy", "npz", "txt", "one-hot"])
def test_labels_beside(tmp_path: Path, kind: str) -> None:
    """Labels from a file of their own, in any of its forms."""
    np.save(tmp_path / "x.npy", IMAGES)
    file = tmp_path / f"labels.{'npy' if kind == 'one-hot' else kind}"
    if kind == "txt":
        file.write_text("\n".join(map(str, LABELS)))
    elif kind == "npz":
        np.savez(file, labels=LABELS)
    else:
        np.save(file, np.eye(5)[LABELS] if kind == "one-hot" else LABELS)
    np.savez(tmp_path / "both.npz", images=IMAGES, labels=LABELS)
    np.testing.assert_array_equal(
        pooled(opened(tmp_path / "x.npy", labels=str(file)))[1], pooled(opened(tmp_path / "both.npz"))[1]
    )


def test_named_array_as_labels(tmp_path: Path) -> None:
    """`--labels y` takes that array of the file."""
    np.savez(tmp_path / "d.npz", images=IMAGES, y=LABELS)
    assert not opened(tmp_path / "d.npz").labelled
    assert opened(tmp_path / "d.npz", labels="y").labelled


def test_the_one_array_besides_labels_holds_the_samples(tmp_path: Path) -> None:
    """Whatever it is called, with `labels` beside it, or with what `--labels` names."""
    np.savez(tmp_path / "both.npz", images=IMAGES, labels=LABELS)
    np.savez(tmp_path / "d.npz", x=IMAGES, labels=LABELS)
    np.savez(tmp_path / "e.npz", x=IMAGES, y=LABELS)
    wanted = pooled(opened(tmp_path / "both.npz"))
    for found in (opened(tmp_path / "d.npz"), opened(tmp_path / "e.npz", labels="y")):
        for part, other in zip(pooled(found), wanted, strict=True):
            np.testing.assert_array_equal(part, other)
    with pytest.raises(ReadError, match=r"no array 'images', only x, y \(save the samples as 'images'\)"):
        opened(tmp_path / "e.npz")


def test_bytes_need_a_range(tmp_path: Path) -> None:
    """Bytes for a model of floats are not guessed at; named, they are scaled; floats stay as they are."""
    levels = np.tile(np.array([0, 255, 51], np.uint8), (COUNT, 4, 6, 1))
    np.save(tmp_path / "b.npy", levels)
    with pytest.raises(UsageError, match=r"--preprocess -1\.\.1 \| 0\.\.1"):
        opened(tmp_path / "b.npy")
    for name, pixel in (("-1..1", (-1, 1, -0.6)), ("0..1", (0, 1, 0.2)), ("0..255", (0, 255, 51))):
        images, _ = pooled(opened(tmp_path / "b.npy", preprocess=name))
        np.testing.assert_allclose(images[0, 0, 0], pixel, rtol=1e-6)
        assert images.dtype == np.float32
    assert pooled(opened(tmp_path / "b.npy", dtype=np.uint8))[0].dtype == np.uint8
    np.save(tmp_path / "f.npy", IMAGES)
    np.testing.assert_array_equal(
        pooled(opened(tmp_path / "f.npy", preprocess="-1..1"))[0], pooled(opened(tmp_path / "f.npy"))[0]
    )
    assert "used unchanged" in opened(tmp_path / "f.npy", preprocess="-1..1").description


@pytest.mark.parametrize("name", RANGES)
def test_ranges_in_either_layout(name: str) -> None:
    """Channels first gives channels last, transposed; blue first gives red first, reversed."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    kind = np.dtype(np.float32)
    last = preprocessed(pixels, name, kind, "")
    first = preprocessed(np.moveaxis(pixels, -1, 1), name, kind, "", channels_first=True)
    np.testing.assert_array_equal(first, np.moveaxis(last, -1, 1))
    swapped = preprocessed(pixels[..., ::-1], name, kind, "", channel_order="bgr")
    np.testing.assert_array_equal(swapped, last[..., ::-1])


def broken(folder: Path, kind: str) -> tuple[Path, dict[str, Any]]:
    """A source that cannot serve, and how it is asked for."""
    path = folder / "x.npz"
    if kind == "missing":
        return folder / "none.npz", {}
    if kind == "text":
        (folder / "notes.md").write_text("no data")
        return folder / "notes.md", {}
    if kind == "damaged":
        path.write_bytes(b"PK\x03\x04 not really")
        return path, {}
    if kind == "pickled":
        np.savez(path, images=np.array([{}, {}], object))
        return path, {}
    if kind == "no images":
        np.savez(path, first=IMAGES, second=IMAGES)
        return path, {}
    if kind == "empty folder":
        return folder, {}
    arrays: dict[str, Any] = {
        "transposed": {"images": np.moveaxis(IMAGES, -1, 1)},
        "other size": {"images": IMAGES[:, :2]},
        "flat": {"images": IMAGES.reshape(COUNT, -1)},
        "few labels": {"images": IMAGES, "labels": LABELS[:-1]},
        "odd labels": {"images": IMAGES, "labels": LABELS + 0.5},
        "no samples": {"images": IMAGES[:0]},
    }
    np.savez(path, **arrays[kind])
    return path, {"labels": "labels"} if kind == "odd labels" else {}


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        ("missing", NotFound, "--data takes a folder of images"),
        ("text", UnknownFormat, "no samples that bncheck can read"),
        ("damaged", ReadError, "cannot be read as arrays"),
        ("pickled", ReadError, "Python objects|Object arrays"),
        ("no images", ReadError, "no array 'images', only first, second"),
        ("empty folder", UsageError, "holds no images"),
        ("transposed", UsageError, "3x4x6, the model takes 4x6x3: its channels are on another axis"),
        ("other size", UsageError, "2x6x3, the model takes 4x6x3: resize them"),
        ("flat", UsageError, "72, the model takes 4x6x3"),
        ("few labels", ReadError, "36 labels for 37 samples"),
        ("odd labels", ReadError, "one integer per sample"),
        ("no samples", UsageError, "holds no samples"),
    ],
)
def test_one_clear_sentence(tmp_path: Path, kind: str, error: type[BncheckError], says: str) -> None:
    """Whatever is wrong is said, with what to do, before the model runs."""
    path, how = broken(tmp_path, kind)
    with pytest.raises(error, match=says):
        opened(path, **how)


@pytest.mark.parametrize(("dtype", "value"), [(np.float32, np.nan), (np.float16, np.inf), (np.float64, 1e300)])
def test_what_is_not_finite_is_named_by_its_number(tmp_path: Path, dtype: Any, value: float) -> None:
    """Also what is finite in the file and not in the model's type."""
    images = IMAGES.astype(dtype)
    images[[3, 20], 1, 2, 0] = value
    np.save(tmp_path / "x.npy", images)
    with pytest.raises(UsageError, match=r"sample (3|20), counted from 0, holds NaN or infinity as float32"):
        pooled(opened(tmp_path / "x.npy", batch_size=8))


def test_synthetic() -> None:
    """Seeded, in the model's shape and range, labelled as what it is, and never with labels; 64 unless told."""
    data = opened("synthetic")
    images, labels = pooled(data)
    assert (images.shape, labels) == ((64, 4, 6, 3), None)
    assert data.synthetic
    assert opened("synthetic", batch_size=32).samples == 64
    assert opened("synthetic", batch_size=32, batches=3).samples == 96
    assert opened("synthetic", batch_size=100).samples == 100
    assert "synthetic noise" in data.description
    assert -1 <= images.min() < -0.5 < 0.5 < images.max() <= 1
    np.testing.assert_array_equal(images, pooled(opened("synthetic"))[0])
    assert pooled(opened("synthetic", shape=(None, 30)))[0].shape == (64, 30)
    assert pooled(opened("synthetic", shape=(None, 3, 32, 32)))[0].shape == (64, 3, 32, 32)
    with pytest.raises(UsageError, match="--size"):
        opened("synthetic", shape=(None, None, None, 3))
    assert pooled(opened("synthetic", shape=(None, None, None, 3), size=(5, 7)))[0].shape == (64, 5, 7, 3)
    with pytest.raises(UsageError, match="no labels"):
        opened("synthetic", labels="folders")
    with pytest.raises(UsageError, match="cannot be made up"):
        opened("synthetic", shape=(None, 30), dtype=np.int32)


def test_sample_shape(tmp_path: Path, npz: Path) -> None:
    """Known of arrays and of a given size, else not."""
    assert sample_shape(npz) == (4, 6, 3)
    assert sample_shape(tmp_path, (5, 7)) == (5, 7, None)
    assert sample_shape(tmp_path) is None
    assert sample_shape("synthetic") is None


def test_rows_are_read_where_they_lie(tmp_path: Path) -> None:
    """Uncompressed files are read sample by sample, in any order, whatever the archive, layout and type."""
    from bncheck.compare.data.arrays import OnDisk, _read

    random = np.random.default_rng(0)
    for number, dtype in enumerate(("<f4", ">f4", "u1", "<f8", "?", "<f2")):
        values = (random.normal(size=(7, 3, 2)) * 50).astype(dtype)
        np.save(tmp_path / f"{number}.npy", values)
        np.savez(tmp_path / f"{number}.npz", labels=np.arange(7), images=values)
        np.savez_compressed(tmp_path / f"{number}c.npz", labels=np.arange(7), images=values)
        np.save(tmp_path / f"{number}f.npy", np.asfortranarray(values))
        for name, lies in ((f"{number}.npy", True), (f"{number}.npz", True), (f"{number}c.npz", False)):
            images, _ = _read(tmp_path / name, None)
            assert isinstance(images, OnDisk) is lies
        for name in (f"{number}.npy", f"{number}.npz", f"{number}c.npz", f"{number}f.npy"):
            images, _ = _read(tmp_path / name, None)
            np.testing.assert_array_equal(images[np.array([5, 0, 6])], values[[5, 0, 6]])
            np.testing.assert_array_equal(images[:1], values[:1])


def test_file_that_shrinks_is_named(tmp_path: Path) -> None:
    """A file cut short is refused when it is opened, and one cut while it is read is named with the offset."""
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((8, 100), np.float32))
    data = open_data(path, [model_input((None, 100))], Options(batch_size=4))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ReadError, match="ends before its last sample"):
        list(data)
    with pytest.raises(ReadError, match="ends before its last sample"):
        open_data(path, [model_input((None, 100))])


@pytest.mark.parametrize(
    ("declared", "asked", "taken"), [(12, None, 12), (12, 4, 4), (None, None, 32), (1, None, 32), (1, 1, 1)]
)
def test_batches_as_the_graph_has_them(tmp_path: Path, declared: int | None, asked: int | None, taken: int) -> None:
    """A fixed batch dimension is used and told of, unless somebody asks otherwise; one of 1 teaches nothing."""
    np.save(tmp_path / "x.npy", np.zeros((64, 5), np.float32))
    data = open_data(tmp_path / "x.npy", [model_input((declared, 5))], Options(batch_size=asked))
    assert data.batch_size == taken
    assert ("as the graph has it" in data.description) is (declared == taken == 12)


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        (LABELS.astype(np.float32), True),
        (np.eye(12)[LABELS % 12], True),
        (LABELS > 3, True),
        (LABELS / 7, False),
        (np.zeros((len(LABELS), 8, 8), np.uint8), False),
        (np.ones((len(LABELS), 4), np.float32), False),
    ],
)
def test_targets_are_no_labels(targets: np.ndarray[Any, Any], tmp_path: Path, *, classes: bool) -> None:
    """Amounts, masks and boxes called `labels` are left aside, and it is said; asked for by name, they are refused."""
    np.savez(tmp_path / "d.npz", images=IMAGES, labels=targets)
    found = opened(tmp_path / "d.npz")
    assert found.labelled is classes
    assert ("they are targets, not classes" in found.description) is not classes
    if not classes and targets.ndim != 2:
        with pytest.raises(ReadError, match="expected one integer per sample"):
            opened(tmp_path / "d.npz", labels="labels")


TWO = [
    ModelInput(shape=(None, 4, 6, 3), dtype=np.dtype(np.float32), names=("left", "serving_default_left")),
    ModelInput(shape=(None, 5), dtype=np.dtype(np.int64), names=("right",)),
]


def test_an_array_for_each_input(tmp_path: Path) -> None:
    """Under any of its names; samples stay together, with their labels, however they are shuffled."""
    numbers = np.arange(COUNT)[:, None] * np.ones(5, np.int64)
    np.savez(tmp_path / "d.npz", serving_default_left=IMAGES, right=numbers, labels=LABELS)
    data = open_data(tmp_path / "d.npz", TWO, Options(batch_size=8))
    (batch, labels), *_ = data
    assert data.description.endswith("37 samples of serving_default_left 4x6x3, right 5")
    assert batch.dtype.names == ("serving_default_left", "right")
    np.testing.assert_array_equal(batch["serving_default_left"], IMAGES[batch["right"][:, 0]])
    np.testing.assert_array_equal(labels, LABELS[batch["right"][:, 0]])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"left": IMAGES}, "no array for the input right; it has left"),
        ({"left": IMAGES, "right": np.zeros((3, 5))}, "arrays of 3, 37 samples"),
        ({"left": IMAGES, "right": np.zeros((COUNT, 6), np.int64)}, "of shape 6, the model takes 5"),
        ({}, r"takes 2 inputs \(left, right\): give --data FILE.npz with an array for each"),
    ],
)
def test_inputs_that_are_missing(arrays: dict[str, Any], says: str, tmp_path: Path) -> None:
    """One sentence that names them."""
    path = tmp_path / ("d.npz" if arrays else "synthetic")
    if arrays:
        np.savez(path, **arrays)
    with pytest.raises((ReadError, UsageError), match=says):
        open_data(path, TWO, Options(batch_size=8))


def test_strings_are_no_numbers(npz: Path) -> None:
    """A model that decodes images itself is told apart before anything is read."""
    with pytest.raises(UsageError, match="takes strings at images, such as encoded images: name the tensor of numbers"):
        open_data(npz, [model_input((None,), object)], Options())


LYING = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1924145348608,)}",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (1387184, 1387184)}",
    "{'descr': '|S0', 'fortran_order': False, 'shape': (1924145348608,)}",
    f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 30},)}}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}",
    "{",
    "-" * 5000 + "1",
)


@pytest.mark.parametrize("text", LYING)
@pytest.mark.parametrize("kind", ["npy", "npz", "packed", "labels"])
def test_headers_that_lie(tmp_path: Path, kind: str, text: str) -> None:
    """What a header declares and the file does not hold is refused before memory is taken for it."""
    content = f"{text}\n".encode()
    array = b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content + bytes(16)
    path = tmp_path / ("d.npy" if kind == "npy" else "d.npz")
    if kind == "npy":
        path.write_bytes(array)
    else:
        np.savez(path, images=IMAGES)
        packing = zipfile.ZIP_DEFLATED if kind == "packed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "a" if kind == "labels" else "w", packing) as file:
            file.writestr("labels.npy" if kind == "labels" else "images.npy", array)
    with pytest.raises(
        ReadError, match=r"cannot be read as arrays|not a NumPy array|has 16 bytes|is damaged"
    ) as caught:
        opened(path)
    assert caught.value.path == str(path)
