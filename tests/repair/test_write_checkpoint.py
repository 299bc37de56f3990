"""Checkpoints written anew: the vectors asked for are new, everything else is what it was, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import BFloat16, Partitioned, entry, serialized, table, write_bundle

from bncheck.facts.errors import NotFound, Unsupported, UsageError
from bncheck.repair.write_checkpoint import encoded, state_file, write_checkpoint
from bncheck.sources.bundle.checkpoint import read_checkpoint
from bncheck.sources.bundle.locate import Place, find

RANDOM = np.random.default_rng(7)
OTHERS: Mapping[str, Any] = {
    "bn/beta": RANDOM.normal(size=5).astype(np.float32),
    "conv/kernel": RANDOM.normal(size=(3, 3, 2, 5)).astype(np.float32),
    "global_step": np.array(300, np.int64),
    "half": np.array([1.5, -2.0], np.float16),
    "nan": np.array([np.nan, np.inf, -0.0], np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "names": np.array([b"", b"two\x00words", b"\xff" * 300], dtype=object),
    "split": Partitioned(np.arange(24, dtype=np.float32).reshape(8, 3), axis=0, cuts=(2, 5)),
    "flags": np.array([True, False]),
}
MEAN, VARIANCE = RANDOM.normal(size=5), RANDOM.uniform(0.1, 2.0, 5)


def place(path: Path) -> Place:
    """Where a written checkpoint is."""
    found = find(path)
    assert found is not None
    return found


def stored(**statistics: Any) -> dict[str, Any]:
    """All tensors, with these statistics between them."""
    return dict(sorted({**OTHERS, **{f"bn/{name}": value for name, value in statistics.items()}}.items()))


def raw_values(prefix: Path) -> dict[str, Any]:
    """Every tensor by bncheck's reader, as comparable Python objects."""
    return {
        key: (
            tensor.dtype,
            tensor.shape,
            tensor.read().tolist() if tensor.dtype == "string" else tensor.read().tobytes(),
        )
        for key, tensor in read_checkpoint(prefix).tensors.items()
    }


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("big_endian", [False, True])
def test_other_tensors_keep_every_bit(tmp_path: Path, shards: int, *, big_endian: bool) -> None:
    """Strings, slices, other types, several shards, either byte order: only the two vectors change."""
    zeros = np.zeros(5, np.float32)
    write_bundle(
        tmp_path / "old", stored(moving_mean=zeros, moving_variance=zeros + 1), shards=shards, big_endian=big_endian
    )
    target = Place(directory=tmp_path, stem="new")
    files = write_checkpoint(
        place(tmp_path / "old"), target, {"bn/moving_mean": MEAN, "bn/moving_variance": VARIANCE}, {}
    )
    before, after = raw_values(tmp_path / "old"), raw_values(tmp_path / "new")
    assert files[-1] == target.index
    assert len(files) == shards + 1
    assert after.pop("bn/moving_mean")[2] == MEAN.astype(np.float32).tobytes()
    assert after.pop("bn/moving_variance")[2] == VARIANCE.astype(np.float32).tobytes()
    assert after == {key: value for key, value in before.items() if not key.startswith("bn/moving")}
    changed = sum(
        np.count_nonzero(np.frombuffer(a.read_bytes(), np.uint8) != np.frombuffer(b.read_bytes(), np.uint8))
        for a, b in zip(files[:-1], (place(tmp_path / "old").shard(n, shards) for n in range(shards)), strict=True)
    )
    assert changed <= 2 * 5 * 4


def test_the_source_is_not_touched(tmp_path: Path) -> None:
    """Names, bytes and times of the source's files stay."""
    write_bundle(tmp_path / "old", stored(moving_mean=np.zeros(5, np.float32)))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    write_checkpoint(place(tmp_path / "old"), Place(directory=tmp_path, stem="new"), {"bn/moving_mean": MEAN}, {})
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


@pytest.mark.parametrize(
    ("old", "width"),
    [
        (np.zeros(5, np.float64), 0.0),
        (np.zeros(5, np.float16), 2.0**-11),
        (BFloat16(np.zeros(5, np.float32)), 2.0**-8),
        (np.zeros((1, 1, 1, 5), np.float32), 2.0**-24),
    ],
)
def test_a_vector_keeps_its_type_and_shape(tmp_path: Path, old: Any, width: float) -> None:
    """Rounded to nearest in the tensor's own type."""
    write_bundle(tmp_path / "old", stored(moving_mean=old))
    before = read_checkpoint(tmp_path / "old").tensors["bn/moving_mean"]
    write_checkpoint(place(tmp_path / "old"), Place(directory=tmp_path, stem="new"), {"bn/moving_mean": MEAN}, {})
    after = read_checkpoint(tmp_path / "new").tensors["bn/moving_mean"]
    assert (after.dtype, after.shape) == (before.dtype, before.shape)
    np.testing.assert_allclose(after.read().astype(np.float64).reshape(-1), MEAN, rtol=width, atol=0)


def test_slices_of_a_partitioned_vector_are_replaced_each(tmp_path: Path) -> None:
    """A vector that lies in two slices, in two shards, comes back whole."""
    write_bundle(tmp_path / "old", {"bn/moving_mean": Partitioned(np.zeros(5, np.float32), 0, (2,))}, shards=2)
    write_checkpoint(place(tmp_path / "old"), Place(directory=tmp_path, stem="new"), {"bn/moving_mean": MEAN}, {})
    found = read_checkpoint(tmp_path / "new").tensors["bn/moving_mean"].read()
    np.testing.assert_array_equal(found, MEAN.astype(np.float32))


def test_vectors_that_are_missing_are_added(tmp_path: Path) -> None:
    """A key that the source lacks is appended to the last shard; what was there keeps its bytes."""
    write_bundle(tmp_path / "old", stored(), shards=2)
    write_checkpoint(
        place(tmp_path / "old"),
        Place(directory=tmp_path, stem="new"),
        {},
        {"bn/moving_mean": MEAN, "bn/moving_variance": VARIANCE},
    )
    after = raw_values(tmp_path / "new")
    assert after.pop("bn/moving_mean") == ("float32", (5,), MEAN.astype(np.float32).tobytes())
    assert after.pop("bn/moving_variance") == ("float32", (5,), VARIANCE.astype(np.float32).tobytes())
    assert after == raw_values(tmp_path / "old")


def test_an_absent_shard_is_refused(tmp_path: Path) -> None:
    """What is not there cannot be copied."""
    write_bundle(tmp_path / "old", stored(moving_mean=np.zeros(5, np.float32)), shards=2)
    (tmp_path / "old.data-00001-of-00002").unlink()
    with pytest.raises(NotFound, match="data file is needed"):
        write_checkpoint(place(tmp_path / "old"), Place(directory=tmp_path, stem="new"), {"bn/moving_mean": MEAN}, {})


@pytest.mark.parametrize("at", [0, 4, 16])
def test_tensors_that_share_bytes_are_refused(tmp_path: Path, at: int) -> None:
    """Changing one would change the other."""
    number, shape, content, checksum = serialized(np.zeros(5, np.float32))
    other = np.zeros(5, np.float32)
    write_bundle(tmp_path / "old", {"bn/moving_mean": other, "x": other})
    pairs = {
        b"": b"\x08\x01\x1a\x02\x08\x01",
        b"bn/moving_mean": entry(number, shape, size=len(content), checksum=checksum),
        b"x": entry(number, shape, offset=at, size=len(content), checksum=checksum),
    }
    (tmp_path / "old.index").write_bytes(table(sorted(pairs.items())))
    with pytest.raises(Unsupported, match="share the bytes"):
        write_checkpoint(place(tmp_path / "old"), Place(directory=tmp_path, stem="new"), {"bn/moving_mean": MEAN}, {})


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (np.zeros(5, np.float16), np.full(5, 1e6), "does not fit"),
        (np.zeros(4, np.float32), MEAN, "no room for 5"),
        (np.zeros(5, np.int32), MEAN, "tensor of int32"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, old: Any, new: Any, reason: str) -> None:
    """No value is written as something else: too large for its type, too many, or no number of that kind."""
    write_bundle(tmp_path / "old", {"bn/moving_mean": old})
    with pytest.raises(UsageError, match=reason):
        write_checkpoint(place(tmp_path / "old"), Place(directory=tmp_path, stem="new"), {"bn/moving_mean": new}, {})


def test_bfloat16_is_rounded_to_nearest_even() -> None:
    """Ties go to the even neighbour, as TensorFlow's cast does it."""
    values = np.array([1.0, 1.00390625, 1.01171875, 1.005, -1.005])
    bits = np.frombuffer(encoded(values, "bfloat16", key="k"), "<u2")
    assert bits.tolist() == [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xBF81]


def test_the_state_file_quotes_its_names() -> None:
    """Quotes and backslashes of a name do not end the text."""
    assert state_file('a"b\\c').splitlines()[0] == r'model_checkpoint_path: "a\"b\\c"'


@pytest.mark.tensorflow
def test_tensorflow_restores_what_was_written(tmp_path: Path) -> None:
    """TensorFlow's own reader gives the new vectors and, bit for bit, everything else, of a bundle of two shards."""
    tf = pytest.importorskip("tensorflow")
    zeros = np.zeros(5, np.float32)
    write_bundle(tmp_path / "old", stored(moving_mean=zeros, bf=BFloat16(zeros)), shards=2)
    write_checkpoint(
        place(tmp_path / "old"),
        Place(directory=tmp_path, stem="new"),
        {"bn/moving_mean": MEAN, "bn/bf": MEAN},
        {"bn/moving_variance": VARIANCE},
    )
    old, new = (tf.train.load_checkpoint(str(tmp_path / stem)) for stem in ("old", "new"))
    assert set(new.get_variable_to_shape_map()) == {*old.get_variable_to_shape_map(), "bn/moving_variance"}
    np.testing.assert_array_equal(new.get_tensor("bn/moving_mean"), MEAN.astype(np.float32))
    np.testing.assert_array_equal(new.get_tensor("bn/moving_variance"), VARIANCE.astype(np.float32))
    np.testing.assert_array_equal(new.get_tensor("bn/bf"), tf.cast(MEAN, tf.bfloat16).numpy())
    for key in OTHERS:
        before, after = old.get_tensor(key), new.get_tensor(key)
        assert before.dtype == after.dtype
        assert before.tolist() == after.tolist() if before.dtype == object else before.tobytes() == after.tobytes()
