"""Keras files written anew: the vectors asked for are new, every other weight and member is what it was."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from keras_writer import archive, batch_norm, bn_values, conv, h5_file, inputs, scoped, sequential

from bncheck.facts.errors import Unsupported, UsageError
from bncheck.repair.write import destination
from bncheck.repair.write_keras import write_keras
from bncheck.sources import open_model
from bncheck.sources.raw import RawModel

CONFIG = sequential(inputs("in"), conv("c"), batch_norm("bn"))
KERNEL = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)
MEAN, VARIANCE = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.5, 2.5, 3.5, 4.5])


def h5(path: Path) -> Path:
    """The layout of Keras 2, weights by name."""
    return h5_file(path, CONFIG, {"c": scoped("c", {"kernel": KERNEL}), "bn": scoped("bn", bn_values())})


def keras(path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive of Keras 3, weights by position."""
    groups = {
        "layers/conv2d": ("c", [KERNEL]),
        "layers/batch_normalization": ("bn", list(bn_values().values())),
    }
    return archive(path, CONFIG, groups, compression=compression)


def statistics(raw: RawModel) -> tuple[str, str]:
    """Keys of moving mean and variance."""
    values = {key: tensor.read() for key, tensor in raw.tensors.items()}
    mean, variance = (bn_values()[role] for role in ("moving_mean", "moving_variance"))
    found = [next(k for k, v in values.items() if np.array_equal(v, wanted)) for wanted in (mean, variance)]
    return found[0], found[1]


@pytest.mark.parametrize("kind", ["h5", "keras", "packed"])
def test_other_weights_keep_every_bit(tmp_path: Path, kind: str) -> None:
    """HDF5 by name, an archive by position, stored and packed."""
    source = h5(tmp_path / "m.h5") if kind == "h5" else keras(tmp_path / "m.keras", 8 if kind == "packed" else 0)
    before = source.read_bytes()
    raw = open_model(source)
    mean, variance = statistics(raw)
    target = tmp_path / f"out{source.suffix}"
    write_keras(raw, target, {mean: MEAN, variance: VARIANCE})
    after = open_model(target)
    assert after.tensors[mean].read().tobytes() == MEAN.astype(np.float32).tobytes()
    assert after.tensors[variance].read().tobytes() == VARIANCE.astype(np.float32).tobytes()
    for key, tensor in raw.tensors.items():
        if key not in (mean, variance):
            assert after.tensors[key].read().tobytes() == tensor.read().tobytes()
    assert source.read_bytes() == before


def test_other_members_of_an_archive_stay(tmp_path: Path) -> None:
    """Names, order, dates, packing and bytes; what Keras does not know of is kept too."""
    source = keras(tmp_path / "m.keras")
    with zipfile.ZipFile(source, "a") as file:
        file.writestr(zipfile.ZipInfo("assets/words.txt", (2001, 2, 3, 4, 5, 6)), b"kept", zipfile.ZIP_DEFLATED)
        file.comment = b"mine"
    raw = open_model(source)
    mean, _ = statistics(raw)
    write_keras(raw, tmp_path / "out.keras", {mean: MEAN})
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "out.keras") as new:
        assert new.testzip() is None
        assert new.comment == b"mine"
        for a, b in zip(old.infolist(), new.infolist(), strict=True):
            assert (a.filename, a.date_time, a.compress_type) == (b.filename, b.date_time, b.compress_type)
            if a.filename != "model.weights.h5":
                assert old.read(a) == new.read(b)


def test_types_of_datasets_are_kept(tmp_path: Path) -> None:
    """float16, big-endian float64 and packed chunks."""
    source = h5(tmp_path / "m.h5")
    with h5py.File(source, "r+") as file:
        group = file["model_weights/bn/bn"]
        for name, dtype, chunked in (("moving_mean:0", "<f2", False), ("moving_variance:0", ">f8", True)):
            values = group[name][()].astype(dtype)
            del group[name]
            group.create_dataset(name, data=values, **({"chunks": (2,), "compression": "gzip"} if chunked else {}))
    raw = open_model(source)
    write_keras(raw, tmp_path / "out.h5", {"bn/moving_mean": MEAN, "bn/moving_variance": VARIANCE})
    with h5py.File(tmp_path / "out.h5") as file:
        group = file["model_weights/bn/bn"]
        assert group["moving_mean:0"].dtype == np.dtype("<f2")
        assert group["moving_mean:0"][()].tolist() == MEAN.astype(np.float16).tolist()
        assert group["moving_variance:0"].dtype == np.dtype(">f8")
        assert group["moving_variance:0"].compression == "gzip"
        assert group["moving_variance:0"][()].tolist() == VARIANCE.tolist()


@pytest.mark.parametrize(("name", "out", "ending"), [("m.h5", "o.keras", ".h5"), ("m.weights.h5", "o.h5", ".weights")])
def test_the_ending_must_be_the_sources(tmp_path: Path, name: str, out: str, ending: str) -> None:
    """Keras loads by the ending of the name."""
    with pytest.raises(UsageError, match=f"must end in {ending}"):
        destination(open_model(h5(tmp_path / name)), tmp_path / out)


def test_unpacked_archives_are_refused(tmp_path: Path) -> None:
    """A folder is no file to copy; it says what to do."""
    with zipfile.ZipFile(keras(tmp_path / "m.keras")) as file:
        file.extractall(tmp_path / "m")
    with pytest.raises(Unsupported, match="zip the folder"):
        destination(open_model(tmp_path / "m"), tmp_path / "out")
