"""Encoded images: folders and TFRecords, through TensorFlow's decoders."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.compare.data.data import open_data
from bncheck.compare.data.records import records
from bncheck.compare.data.samples import ModelInput
from bncheck.facts.errors import BadChecksum, BncheckError, NotFound, ReadError, Truncated, UsageError
from bncheck.settings.options import Options

pytestmark = pytest.mark.tensorflow

COUNT = 24
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 5, 7, 3)).astype(np.uint8)
LABELS = np.arange(COUNT) % 3


def all_of(
    spec: object, *, shape: Any = (None, 5, 7, 3), dtype: Any = np.float32, **how: Any
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Every image and label of a source, for a model of float images of 5x7."""
    options = Options(**({"batch_size": 8, "preprocess": "0..255"} | how))
    batches = list(open_data(str(spec), [ModelInput(shape=shape, dtype=np.dtype(dtype))], options))
    labels = [part for _, part in batches if part is not None]
    return np.concatenate([images for images, _ in batches]), np.concatenate(labels) if labels else None


def same_set(images: np.ndarray[Any, Any], pixels: np.ndarray[Any, Any]) -> bool:
    """Whether both hold the same images in whatever order."""
    return sorted(image.tobytes() for image in images) == sorted(p.astype(np.float32).tobytes() for p in pixels)


@pytest.fixture(scope="module")
def encode() -> Any:
    """(height, width, channels) bytes -> a PNG."""
    tf = pytest.importorskip("tensorflow")
    return lambda pixels: tf.io.encode_png(pixels).numpy()


@pytest.fixture
def folder(tmp_path: Path, encode: Any) -> Path:
    """Three subfolders, one a class."""
    for number, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        place = tmp_path / "images" / f"class_{label}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02d}.png").write_bytes(encode(pixels))
    return tmp_path / "images"


def test_folder(folder: Path) -> None:
    """Every image once, bit for bit where the size fits; subfolders are labels only if that is asked for."""
    images, labels = all_of(folder)
    assert same_set(images, PIXELS)
    assert labels is None
    images, labels = all_of(folder, labels="folders")
    assert labels is not None
    known = {p.astype(np.float32).tobytes(): label for p, label in zip(PIXELS, LABELS, strict=True)}
    assert [known[image.tobytes()] for image in images] == labels.tolist()


def test_layouts(folder: Path) -> None:
    """Channels first, blue first, grey, and another size."""
    plain, _ = all_of(folder)
    np.testing.assert_array_equal(all_of(folder, shape=(None, 3, 5, 7))[0], np.moveaxis(plain, -1, 1))
    np.testing.assert_array_equal(all_of(folder, channel_order="bgr")[0], plain[..., ::-1])
    assert all_of(folder, shape=(None, 5, 7, 1))[0].shape == (COUNT, 5, 7, 1)
    assert all_of(folder, shape=(None, 10, 4, 3))[0].shape == (COUNT, 10, 4, 3)
    assert all_of(folder, shape=(None, None, None, 3), size=(6, 6))[0].shape == (COUNT, 6, 6, 3)
    assert all_of(folder, shape=None, size=(6, 6))[0].shape == (COUNT, 6, 6, 3)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"preprocess": None}, "--preprocess"),
        ({"preprocess": "0..2"}, "-1..1, 0..1"),
        ({"shape": (None, None, None, 3)}, "--size HEIGHTxWIDTH"),
        ({"shape": (None, 100)}, "takes samples of shape 100"),
        ({"labels": "nosuch.txt"}, "neither a file"),
    ],
)
def test_what_does_not_fit(folder: Path, how: dict[str, Any], says: str) -> None:
    """One sentence each."""
    with pytest.raises(BncheckError, match=says):
        all_of(folder, **how)


def test_damaged_image(folder: Path) -> None:
    """A file that is no image is named."""
    (folder / "class_0" / "zz.jpg").write_bytes(b"\xff\xd8 not an image")
    with pytest.raises(ReadError, match=r"zz\.jpg: not an image"):
        all_of(folder)


def example(tf: Any, **features: Any) -> bytes:
    """A serialized tf.Example of bytes, floats or integers."""
    held = {}
    for key, value in features.items():
        if isinstance(value, bytes):
            held[key] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        elif isinstance(value, int):
            held[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        else:
            held[key] = tf.train.Feature(float_list=tf.train.FloatList(value=value))
    found: bytes = tf.train.Example(features=tf.train.Features(feature=held)).SerializeToString()
    return found


@pytest.fixture
def record_file(tmp_path: Path, encode: Any) -> Path:
    """Images and labels as TensorFlow itself writes them."""
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "train-00000-of-00001"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for pixels, label in zip(PIXELS, LABELS, strict=True):
            writer.write(example(tf, **{"image/encoded": encode(pixels), "image/class/label": int(label)}))
    return path


def test_records(record_file: Path) -> None:
    """TensorFlow's own files, known by content; several by a pattern."""
    images, labels = all_of(record_file)
    assert same_set(images, PIXELS)
    known = {p.astype(np.float32).tobytes(): label for p, label in zip(PIXELS, LABELS, strict=True)}
    assert labels is not None
    assert [known[image.tobytes()] for image in images] == labels.tolist()
    (record_file.parent / "train-00001-of-00001").write_bytes(record_file.read_bytes())
    assert len(all_of(record_file.parent / "train-*")[0]) == 2 * COUNT
    with pytest.raises(NotFound):
        all_of(record_file.parent / "valid-*")


def test_records_of_numbers(tmp_path: Path) -> None:
    """Lists of floats become samples of the model's shape; of another length they are refused."""
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for pixels in PIXELS:
            writer.write(example(tf, image=pixels.ravel().astype(float)))
    assert same_set(all_of(path)[0], PIXELS)
    with pytest.raises(UsageError, match="a record holds 105 numbers, the model takes 5x8x3"):
        all_of(path, shape=(None, 5, 8, 3))
    with pytest.raises(UsageError, match="no such feature, only image"):
        all_of(path, labels="label")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, pixels in enumerate(PIXELS):
            writer.write(example(tf, image=pixels.ravel().astype(float) + (np.nan if number == 7 else 0)))
    with pytest.raises(UsageError, match="sample 7, counted from 0, holds NaN"):
        all_of(path)


def test_damaged_records(record_file: Path) -> None:
    """Cut off at any byte, or with a bit flipped in any, a file ends in an error with its offset, never in records."""
    whole = record_file.read_bytes()
    held = list(records(record_file))
    assert len(held) == COUNT
    for end in range(1, len(whole), 97):
        record_file.write_bytes(whole[:end])
        found = []
        with contextlib.suppress(Truncated):
            found.extend(records(record_file))
        assert found == held[: len(found)]
        assert len(found) < COUNT
    for place in range(0, len(whole), 61):
        record_file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises((BadChecksum, Truncated)):
            list(records(record_file))
