"""V2 checkpoints: what is read, lazily, and every way in which a damaged one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import (
    BFloat16,
    Partitioned,
    chunk,
    entry,
    number,
    serialized,
    slice_key,
    table,
    varint,
    write_bundle,
)

from bncheck.facts.errors import BadChecksum, Malformed, NotFound, ReadError, Truncated, UnknownFormat, Unsupported
from bncheck.sources.bundle.checkpoint import read_checkpoint
from bncheck.sources.bundle.crc32c import crc32c
from bncheck.sources.raw import RawTensor

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)
SMALL = {
    "bn/beta": np.zeros(2, np.float32),
    "bn/moving_mean": np.float32([0.5, -1.0]),
    "name": b"text",
    "step": np.int64(7),
}


def values(tensors: Mapping[str, RawTensor]) -> dict[str, Any]:
    """Everything that can be read, as plain data."""
    return {name: (tensor.dtype, tensor.shape, tensor.read().tolist()) for name, tensor in sorted(tensors.items())}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("big_endian", [False, True])
def test_all_types(tmp_path: Path, shards: int, *, big_endian: bool) -> None:
    """Every dtype comes back, from any number of shards, in either byte order."""
    written: dict[str, Any] = {
        kind: np.array([[0, 1, 2], [3, 1, 0]]).astype(kind)
        for kind in (
            "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 complex64 complex128"
        ).split()
    }
    written |= {"bool": np.array([True, False]), "scalar": np.float32(2.5), "empty": np.zeros((0, 3), np.float32)}
    write_bundle(tmp_path / "m", written, shards=shards, big_endian=big_endian)
    tensors = read_checkpoint(tmp_path / "m").tensors
    assert list(tensors) == sorted(written)
    for name, value in written.items():
        found = tensors[name].read()
        assert found.dtype == np.asarray(value).dtype
        assert found.dtype.isnative
        assert tensors[name].dtype == found.dtype.name
        np.testing.assert_array_equal(found, value)
        assert not found.flags.writeable


@pytest.mark.parametrize("big_endian", [False, True])
def test_strings_and_bfloat16(tmp_path: Path, *, big_endian: bool) -> None:
    """Strings come as bytes in an object array, bfloat16 widened to float32."""
    texts = np.array([[b"", b"a"], [b"\0" * 300, b"last"]], object)
    write_bundle(tmp_path / "m", {"s": texts, "b": BFloat16(np.float32([1.5, -2.0]))}, big_endian=big_endian)
    tensors = read_checkpoint(tmp_path / "m").tensors
    assert tensors["s"].dtype == "string"
    assert tensors["s"].read().tolist() == texts.tolist()
    assert tensors["b"].dtype == "bfloat16"
    assert tensors["b"].read().dtype == np.float32
    assert tensors["b"].read().tolist() == [1.5, -2.0]


@pytest.mark.parametrize("shards", [1, 2])
def test_partitioned(tmp_path: Path, shards: int) -> None:
    """A partitioned variable is put together from its slices, whose own keys are not listed."""
    rows = np.arange(800, dtype=np.float32).reshape(200, 4)
    columns = np.arange(2 * 9000, dtype=np.int32).reshape(2, 9000)
    write_bundle(
        tmp_path / "m",
        {"rows": Partitioned(rows, 0, (3, 100)), "columns": Partitioned(columns, 1, (70,))},
        shards=shards,
    )
    tensors = read_checkpoint(tmp_path / "m").tensors
    assert list(tensors) == ["columns", "rows"]
    np.testing.assert_array_equal(tensors["rows"].read(), rows)
    np.testing.assert_array_equal(tensors["columns"].read(), columns)
    assert tensors["rows"].crc32c is None


def test_checksum_is_unmasked(tmp_path: Path) -> None:
    """The recorded checksum is that of the bytes, ready to be compared with a constant's."""
    write_bundle(tmp_path / "m", SMALL)
    tensors = read_checkpoint(tmp_path / "m").tensors
    assert tensors["bn/beta"].crc32c == crc32c(bytes(8))
    assert tensors["name"].crc32c is None


def test_index_only(tmp_path: Path) -> None:
    """Without data files the tensors are listed with shape and checksum, and cannot be read."""
    write_bundle(tmp_path / "m", SMALL, data=False)
    model = read_checkpoint(tmp_path / "m")
    assert model.notes == ("the data file is absent: only the index was read",)
    tensor = model.tensors["bn/beta"]
    assert tensor.unavailable == "its data file m.data-00000-of-00001 is absent"
    assert tensor.crc32c == crc32c(bytes(8))
    with pytest.raises(NotFound, match="absent"):
        tensor.read()


def test_one_shard_absent(tmp_path: Path) -> None:
    """Of two shards the absent one takes only its own tensors with it."""
    write_bundle(tmp_path / "m", {"a": WEIGHTS, "b": WEIGHTS}, shards=2)
    (tmp_path / "m.data-00001-of-00002").unlink()
    model = read_checkpoint(tmp_path / "m")
    assert "1 of 2 data files absent, m.data-00001-of-00002" in model.notes[0]
    assert [tensor.unavailable is None for tensor in model.tensors.values()] == [True, False]
    np.testing.assert_array_equal(model.tensors["a"].read(), WEIGHTS)


def test_truncated_shard(tmp_path: Path) -> None:
    """A shard that ends early names itself and its length, and only for the tensors that it lacks."""
    write_bundle(tmp_path / "m", {"a": WEIGHTS, "b": WEIGHTS})
    shard = tmp_path / "m.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-1])
    tensors = read_checkpoint(tmp_path / "m").tensors
    np.testing.assert_array_equal(tensors["a"].read(), WEIGHTS)
    with pytest.raises(Truncated, match="ends before b") as error:
        tensors["b"].read()
    assert (error.value.path, error.value.offset) == (str(shard), 95)


def test_shard_is_lfs_pointer(tmp_path: Path) -> None:
    """A data file that Git LFS has not fetched is called that, not truncated."""
    write_bundle(tmp_path / "m", {"a": np.zeros(1000)})
    (tmp_path / "m.data-00000-of-00001").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UnknownFormat, match="git lfs pull"):
        read_checkpoint(tmp_path / "m").tensors["a"].read()


def test_flipped_bit_in_data(tmp_path: Path) -> None:
    """A flipped bit in the data is found by the checksum of its tensor."""
    write_bundle(tmp_path / "m", {"a": WEIGHTS, "b": WEIGHTS})
    shard = tmp_path / "m.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[50] ^= 4
    shard.write_bytes(bytes(data))
    tensors = read_checkpoint(tmp_path / "m").tensors
    np.testing.assert_array_equal(tensors["a"].read(), WEIGHTS)
    with pytest.raises(BadChecksum, match="b does not match its checksum") as error:
        tensors["b"].read()
    assert error.value.offset == 48


def test_object_graph(tmp_path: Path) -> None:
    """A checkpoint with an object graph is a TF2 one, and the graph is parsed."""
    attribute = chunk(1, b"VARIABLE_VALUE") + chunk(2, b"bn/gamma") + chunk(3, b"g/.ATTRIBUTES/VARIABLE_VALUE")
    graph = chunk(1, chunk(1, number(1, 1) + chunk(2, b"g"))) + chunk(1, chunk(2, attribute))
    write_bundle(tmp_path / "m", {"_CHECKPOINTABLE_OBJECT_GRAPH": graph, "g/.ATTRIBUTES/VARIABLE_VALUE": WEIGHTS})
    model = read_checkpoint(tmp_path / "m")
    assert model.format.label == "TF2 checkpoint"
    assert model.object_graph.nodes[0].children[0].local_name == "g"
    assert model.object_graph.nodes[1].attributes[0].full_name == "bn/gamma"


def test_no_object_graph(tmp_path: Path) -> None:
    """A checkpoint without an object graph is a TF1 one."""
    write_bundle(tmp_path / "m", SMALL)
    model = read_checkpoint(tmp_path / "m")
    assert (model.format.label, model.object_graph) == ("TF1 checkpoint", None)


def test_damaged_object_graph(tmp_path: Path) -> None:
    """Bytes that are no object graph are malformed."""
    write_bundle(tmp_path / "m", {"_CHECKPOINTABLE_OBJECT_GRAPH": b"\xff\xff\xff"})
    with pytest.raises(Malformed, match="TrackableObjectGraph"):
        read_checkpoint(tmp_path / "m")


@pytest.mark.parametrize(("dtype", "name"), [(20, "resource"), (21, "variant"), (24, "float8_e5m2"), (29, "int4")])
def test_types_that_are_only_listed(tmp_path: Path, dtype: int, name: str) -> None:
    """Resources, variants and sub-byte types are listed, say why they cannot be read, and refuse to be."""
    tensor = one_entry(tmp_path, entry(dtype, [2], size=2, checksum=0))
    assert tensor.dtype == name
    assert tensor.unavailable == f"bncheck does not read tensors of type {name}"
    with pytest.raises(Unsupported, match=name):
        tensor.read()


def test_more_dimensions_than_numpy(tmp_path: Path) -> None:
    """TensorFlow allows 254 dimensions, numpy 32: such a tensor is listed and not read."""
    tensor = one_entry(tmp_path, entry(1, [1] * 100, size=4, checksum=crc32c(bytes(4))))
    assert tensor.unavailable == "bncheck does not read tensors of 100 dimensions"
    with pytest.raises(Unsupported, match="100 dimensions"):
        tensor.read()


def one_entry(folder: Path, value: bytes, header: bytes | None = None, data: bytes = bytes(64)) -> RawTensor:
    """The tensor "t" of an index that holds this entry."""
    header = number(1, 1) + chunk(3, number(1, 1)) if header is None else header
    (folder / "m.index").write_bytes(table([(b"", header), (b"t", value)]))
    (folder / "m.data-00000-of-00001").write_bytes(data)
    return read_checkpoint(folder / "m").tensors["t"]


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (entry(0, [2], size=8), Malformed, "unknown data type 0"),
        (entry(99, [2], size=8), Malformed, "unknown data type 99"),
        (entry(1, [2], size=7), Malformed, "has 7 bytes"),
        (entry(1, [2], size=8, shard=1), Malformed, "data file 1 of 1"),
        (entry(1, [2], size=8, shard=-1), Malformed, "data file -1 of 1"),
        (entry(1, [2], size=8, offset=-1), Malformed, "lies at byte -1"),
        (entry(1, [-2], size=8), Malformed, "a dimension of -2"),
        (entry(1, [1 << 40, 1 << 40], size=8), Malformed, "impossible shape"),
        (entry(1, [0, 1 << 62], size=0), Malformed, "impossible shape"),
        (entry(1, [1] * 255, size=4), Malformed, "255 dimensions"),
        (number(1, 1) + chunk(2, number(3, 1)), Malformed, "unknown rank"),
        (number(1, 1) + number(2, 1), Malformed, "a shape is stored with wire type 0"),
        (number(1, 1) + number(6, 1), Malformed, "a checksum is stored with wire type 0"),
        (number(1, 1) + chunk(5, b"x"), Malformed, "wire type 2"),
        (b"\x0b", Malformed, "wire type 3"),
        (b"\x00\x00", Malformed, "numbered 0"),
        (b"\x12\x05", Truncated, "runs over its message"),
        (b"\x08", Truncated, "varint is cut short"),
        (b"\x08" + b"\xff" * 10, Malformed, "over 10 bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", Malformed, "more than 64 bits"),
    ],
)
def test_malformed_entries(tmp_path: Path, value: bytes, error: type[ReadError], says: str) -> None:
    """Each way in which an entry contradicts itself is named, with the index's path and an offset in it."""
    with pytest.raises(error, match=says) as caught:
        one_entry(tmp_path, value)
    assert caught.value.path == str(tmp_path / "m.index")
    assert caught.value.offset is not None


def test_unknown_fields_are_skipped(tmp_path: Path) -> None:
    """Fields of a later TensorFlow are passed over, as protobuf does."""
    _, _, stored, checksum = serialized(np.float32([1, 2]))
    extra = number(50, 3) + chunk(51, b"later") + varint(52 << 3 | 5) + bytes(4) + varint(53 << 3 | 1) + bytes(8)
    assert one_entry(tmp_path, entry(1, [2], size=8, checksum=checksum) + extra, data=stored).read().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("header", "error", "says"),
    [
        (b"", Malformed, "declares 0 data shards"),
        (number(1, -1), Malformed, "declares -1 data shards"),
        (number(1, 1 << 30), Malformed, "data shards"),
        (number(1, 1) + number(2, 2), Malformed, "byte order 2"),
        (number(1, 1) + chunk(3, number(1, 9) + number(2, 2)), Unsupported, "bundle version 2"),
        (chunk(1, b""), Malformed, "the header of a V1 checkpoint"),
    ],
)
def test_headers(tmp_path: Path, header: bytes, error: type[ReadError], says: str) -> None:
    """Headers that are malformed, of a later version or of V1 are refused by name."""
    with pytest.raises(error, match=says):
        one_entry(tmp_path, entry(1, [2], size=8), header)


def test_no_header(tmp_path: Path) -> None:
    """A table without the empty key is no bundle."""
    (tmp_path / "m.index").write_bytes(table([(b"t", b"")]))
    with pytest.raises(Malformed, match="no bundle header"):
        read_checkpoint(tmp_path / "m")


@pytest.mark.parametrize(
    ("extents", "says"),
    [
        ([(0, 5)], "outside of the shape"),
        ([(3, 2)], "outside of the shape"),
        ([(-1, 2)], "outside of the shape"),
        ([(1, None)], "outside of the shape"),
        ([(0, 2), (0, 1)], "outside of the shape"),
        ([(0, 2)], "not in the index"),
    ],
)
def test_malformed_slices(tmp_path: Path, extents: list[tuple[int, int | None]], says: str) -> None:
    """Slices outside of their variable, or not in the index, are malformed."""
    with pytest.raises(Malformed, match=says):
        one_entry(tmp_path, entry(1, [4], slices=[extents]))


@pytest.mark.parametrize(
    ("shape", "dtype", "says"),
    [
        ((1,), 1, "type and shape declared"),
        ((2,), 3, "type and shape declared"),
        ((2,), 1, "do not cover"),
    ],
)
def test_slices_that_do_not_fit(tmp_path: Path, shape: tuple[int, ...], dtype: int, says: str) -> None:
    """A slice of another shape or type than declared, and slices that leave a hole, are malformed."""
    pairs = [
        (b"", number(1, 1)),
        (slice_key("t", [(0, 2)]), entry(dtype, shape, size=4 * shape[0], checksum=crc32c(bytes(4 * shape[0])))),
        (b"t", entry(1, [4], slices=[[(0, 2)]])),
    ]
    (tmp_path / "m.index").write_bytes(table(pairs))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(8))
    with pytest.raises(Malformed, match=says):
        read_checkpoint(tmp_path / "m").tensors["t"].read()


def test_hole_costs_no_memory(tmp_path: Path) -> None:
    """A partitioned variable of a petabyte with a slice of 8 bytes is refused before memory is taken."""
    pairs = [
        (b"", number(1, 1)),
        (slice_key("t", [(0, 2)]), entry(1, [2], size=8, checksum=crc32c(bytes(8)))),
        (b"t", entry(1, [1 << 48], slices=[[(0, 2)]])),
    ]
    (tmp_path / "m.index").write_bytes(table(pairs))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(8))
    with pytest.raises(Malformed, match="do not cover"):
        read_checkpoint(tmp_path / "m").tensors["t"].read()


@pytest.mark.parametrize("cut", [b"", b"\x05", b"\x02\x02"])
def test_strings_that_do_not_fit(tmp_path: Path, cut: bytes) -> None:
    """A string tensor whose lengths do not add up is refused."""
    with pytest.raises(ReadError) as error:
        one_entry(tmp_path, entry(7, [2], size=len(cut)), data=cut).read()
    assert error.value.offset == 0 or error.value.offset == len(cut)


def test_huge_sparse_shard(tmp_path: Path) -> None:
    """A tensor at byte 100 GB of a sparse file is read without touching the rest."""
    far = 100 << 30
    _, _, stored, checksum = serialized(WEIGHTS)
    value = entry(1, WEIGHTS.shape, offset=far, size=len(stored), checksum=checksum)
    tensor = one_entry(tmp_path, value)
    with (tmp_path / "m.data-00000-of-00001").open("r+b") as file:
        file.seek(far)
        file.write(stored)
    np.testing.assert_array_equal(tensor.read(), WEIGHTS)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The prefix of a small checkpoint, in a directory of its own."""
    write_bundle(tmp_path / "s" / "m", SMALL, block_size=64)
    return tmp_path / "s" / "m"


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_truncated_at_every_offset(small: Path, suffix: str) -> None:
    """Cut at any byte, either file ends in a named error."""
    file = small.parent / (small.name + suffix)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ReadError) as error:
            values(read_checkpoint(small).tensors)
        assert error.value.path


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_every_flipped_bit(small: Path, suffix: str) -> None:
    """With any one bit flipped, either file ends in a named error, or in the same values (bytes that nothing reads)."""
    expected = values(read_checkpoint(small).tensors)
    file = small.parent / (small.name + suffix)
    whole = file.read_bytes()
    same = 0
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bytes(flipped))
        try:
            found = values(read_checkpoint(small).tensors)
        except ReadError as error:
            assert str(error)  # noqa: PT017 - both outcomes are right, a third is not
        else:
            assert found == expected
            same += 1
    unread = 13 + 40 if suffix == ".index" else 0
    assert same <= 8 * unread


REAL = Path(__file__).parents[3].parent / "shared" / "real"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real models are not beside this checkout")
@pytest.mark.parametrize(
    ("path", "tensors", "form"),
    [
        ("chiron_dna", 167, "TF1 checkpoint"),
        ("basic_pitch/nmp/variables/variables", 74, "TF2 checkpoint"),
        ("mlperf_tiny_kws/kws_ref_model/variables", 142, "TF2 checkpoint"),
        ("handtracking_meta/model.ckpt.meta", 325, "TF1 checkpoint"),
        ("spleeter_meta/2stems/model", 149, "TF1 checkpoint"),
    ],
)
def test_real_models(path: str, tensors: int, form: str) -> None:
    """Strangers' checkpoints are read whole, as many tensors as TensorFlow's own reader lists."""
    model = read_checkpoint(REAL / path)
    assert (len(model.tensors), model.format.label) == (tensors, form)
    for tensor in model.tensors.values():
        if tensor.unavailable is None:
            assert tensor.read().shape == tensor.shape


@pytest.mark.parametrize("content", [b"\xff\xff\xff", np.array([b"", b""], object), WEIGHTS])
def test_errors_of_object_graphs_name_the_checkpoint(tmp_path: Path, content: Any) -> None:
    """No serialized object graph, two of them, or numbers in its place: the path comes first, then the key."""
    write_bundle(tmp_path / "m", {"_CHECKPOINTABLE_OBJECT_GRAPH": content})
    with pytest.raises(Malformed, match=r"m: _CHECKPOINTABLE_OBJECT_GRAPH holds") as caught:
        read_checkpoint(tmp_path / "m")
    assert caught.value.path == str(tmp_path / "m")
