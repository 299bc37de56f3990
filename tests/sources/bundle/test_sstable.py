"""The table of a checkpoint's index, on files written byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from bundle_writer import block, masked, table, varint

from bncheck.facts.errors import (
    BadChecksum,
    Malformed,
    ReadError,
    TooLarge,
    Truncated,
    UnknownFormat,
    Unreadable,
    Unsupported,
)
from bncheck.sources.bundle import sstable
from bncheck.sources.bundle.crc32c import crc32c
from bncheck.sources.bundle.sstable import MAGIC, entries, open_table

PAIRS = [(f"layer_{number:03d}/weights".encode(), bytes([number]) * (number % 5)) for number in range(60)]


def read(path: Path) -> list[tuple[bytes, bytes]]:
    """All pairs of a table on disk."""
    return [(entry.key, entry.value) for entry in entries(open_table(path))]


def one_block(path: Path, body: bytes, *, compression: int = 0, checksum: int | None = None) -> Path:
    """A table whose only data block is `body`."""

    def closed(content: bytes, kind: int, stored: int | None = None) -> bytes:
        trailer = bytes([kind])
        return content + trailer + struct.pack("<I", masked(crc32c(content + trailer)) if stored is None else stored)

    first = closed(body, compression, checksum)
    handle = varint(0) + varint(len(body))
    index = block([(b"\xff", handle)], 1)
    footer = varint(0) + varint(0) + varint(len(first)) + varint(len(index))
    path.write_bytes(first + closed(index, 0) + footer.ljust(40, b"\0") + MAGIC)
    return path


@pytest.mark.parametrize("block_size", [1, 64, 4096])
@pytest.mark.parametrize("restart_interval", [1, 3, 16])
def test_reads_back(tmp_path: Path, block_size: int, restart_interval: int) -> None:
    """Keys and values come back whatever the sizes of blocks and restart intervals."""
    path = tmp_path / "t.index"
    path.write_bytes(table(PAIRS, block_size=block_size, restart_interval=restart_interval))
    assert read(path) == PAIRS


def test_offsets(tmp_path: Path) -> None:
    """The offset of an entry is where its value stands in the file."""
    path = tmp_path / "t.index"
    path.write_bytes(table(PAIRS, block_size=100))
    data = path.read_bytes()
    assert all(data[e.offset : e.offset + len(e.value)] == e.value for e in entries(open_table(path)))


def test_long_numbers(tmp_path: Path) -> None:
    """Keys and values above 127 bytes take the slow path of the lengths."""
    pairs = [(b"a" * 200, b"v" * 1000), (b"a" * 199 + b"b" * 300, b"")]
    path = tmp_path / "t.index"
    path.write_bytes(table(pairs))
    assert read(path) == pairs


def test_empty_table(tmp_path: Path) -> None:
    """A table without entries is one."""
    path = tmp_path / "t.index"
    path.write_bytes(table([]))
    assert read(path) == []


def test_lazy(tmp_path: Path) -> None:
    """A damaged second block is met only when its entries are asked for."""
    path = tmp_path / "t.index"
    data = bytearray(table(PAIRS, block_size=200))
    second = open_table_of(bytes(data), tmp_path).blocks[1][0]
    data[second] ^= 1
    path.write_bytes(bytes(data))
    found = entries(open_table(path))
    assert next(found).key == PAIRS[0][0]
    with pytest.raises(BadChecksum) as error:
        list(found)
    assert error.value.offset is not None
    assert error.value.offset > second


def open_table_of(data: bytes, folder: Path) -> sstable.SortedTable:
    """The table of these bytes."""
    path = folder / "whole.index"
    path.write_bytes(data)
    return open_table(path)


def test_not_a_table(tmp_path: Path) -> None:
    """A file without the magic at its end is another format."""
    path = tmp_path / "t.index"
    path.write_bytes(b"hello, I am a text file\n" * 10)
    with pytest.raises(UnknownFormat, match="does not end as a checkpoint index"):
        open_table(path)


def test_only_a_magic(tmp_path: Path) -> None:
    """A file shorter than a footer is cut short even where it ends in the magic."""
    path = tmp_path / "t.index"
    path.write_bytes(b"1234" + MAGIC)
    with pytest.raises(Truncated, match="less than a table's footer"):
        open_table(path)


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index above the limit is refused before it is read."""
    path = tmp_path / "t.index"
    path.write_bytes(table(PAIRS))
    monkeypatch.setattr(sstable, "MAX_INDEX", 100)
    with pytest.raises(ReadError, match="at most 100"):
        open_table(path)


def test_directory(tmp_path: Path) -> None:
    """A directory where the index should be is named as one."""
    with pytest.raises(Unreadable, match="a directory, not a file"):
        open_table(tmp_path)


@pytest.mark.parametrize("block_size", [64, 4096])
def test_snappy_blocks(tmp_path: Path, block_size: int) -> None:
    """Compressed blocks, as some of Google's own checkpoints have them, read back as others do."""
    pytest.importorskip("cramjam")
    path = tmp_path / "t.index"
    path.write_bytes(table(PAIRS, block_size=block_size, compression=1))
    assert read(path) == PAIRS


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        (b"\xff\xff\xff\xff\x0fjunk", TooLarge, "declares 4,294,967,295 bytes"),
        (b"\x40junkjunk", Malformed, "compressed block .* is damaged"),
        (b"\x02\x04abc", Malformed, "damaged|no room"),
    ],
)
def test_damaged_snappy_blocks(tmp_path: Path, body: bytes, error: type[ReadError], text: str) -> None:
    """A compressed block that lies about its size, or holds something else, is refused before it is unpacked."""
    pytest.importorskip("cramjam")
    with pytest.raises(error, match=text):
        read(one_block(tmp_path / "t.index", body, compression=1))


def test_other_compression(tmp_path: Path) -> None:
    """A block in a compression that TensorFlow does not write is refused by name."""
    path = one_block(tmp_path / "t.index", block([(b"k", b"v")], 16), compression=4)
    with pytest.raises(Unsupported, match="compressed \\(zstd\\)"):
        read(path)


def test_bad_checksum(tmp_path: Path) -> None:
    """A block with another checksum is damaged, and the error says where."""
    path = one_block(tmp_path / "t.index", block([(b"k", b"v")], 16), checksum=1)
    with pytest.raises(BadChecksum) as error:
        read(path)
    assert error.value.path == str(path)
    assert error.value.offset == len(block([(b"k", b"v")], 16)) + 1


def test_handle_outside(tmp_path: Path) -> None:
    """A block handle that points past the footer is cut short."""
    path = tmp_path / "t.index"
    path.write_bytes((varint(0) + varint(0) + varint(10**9) + varint(5)).ljust(40, b"\0") + MAGIC)
    with pytest.raises(Truncated, match="runs into the footer"):
        open_table(path)


def test_endless_varint(tmp_path: Path) -> None:
    """A handle whose number never ends is malformed."""
    path = tmp_path / "t.index"
    path.write_bytes(b"\xff" * 40 + MAGIC)
    with pytest.raises(Malformed, match="varint"):
        open_table(path)


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        (b"", Malformed, "no room for its restart points"),
        (struct.pack("<I", 0), Malformed, "declares 0 restart points"),
        (struct.pack("<I", 9), Malformed, "declares 9 restart points"),
        (b"\0\1\0k" + struct.pack("<II", 1, 1), Malformed, "out of order"),
        (b"\0\1\0k" + struct.pack("<III", 0, 9, 2), Malformed, "out of order"),
        (b"\0\1\0k" + struct.pack("<III", 0, 2, 2), Malformed, "does not meet the start of an entry"),
        (b"\0\1\5k" + struct.pack("<II", 0, 1), Truncated, "runs over its block"),
        (b"\1\1\0k" + struct.pack("<II", 0, 1), Malformed, "shares more"),
        (b"\0\1\0k" + b"\0\1\0k" + struct.pack("<II", 0, 1), Malformed, "ascending order"),
        (b"\0\1\0k" + b"\0\1\0a" + struct.pack("<II", 0, 1), Malformed, "ascending order"),
        (b"\0\1\xff" + struct.pack("<II", 0, 1), Truncated, "varint is cut short"),
        (b"\0\1\xff\xff\xff\xff\xff\1" + struct.pack("<II", 0, 1), Malformed, "more than 32 bits"),
    ],
)
def test_malformed_blocks(tmp_path: Path, body: bytes, error: type[ReadError], says: str) -> None:
    """Each way in which a block contradicts itself is named, with path and offset."""
    path = one_block(tmp_path / "t.index", body)
    with pytest.raises(error, match=says) as caught:
        read(path)
    assert caught.value.offset is not None


def test_keys_ascend_over_blocks(tmp_path: Path) -> None:
    """A block that starts below the end of the one before is out of order."""
    path = tmp_path / "t.index"
    path.write_bytes(table([(b"b", b""), (b"a", b"")], block_size=1))
    with pytest.raises(Malformed, match="ascending order"):
        read(path)


def test_git_lfs_pointer(tmp_path: Path) -> None:
    """A file that Git LFS has not fetched is called that."""
    path = tmp_path / "t.index"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UnknownFormat, match="git lfs pull"):
        open_table(path)


def test_a_hundred_thousand_keys(tmp_path: Path) -> None:
    """Many keys are read without quadratic work: all of them come, in order."""
    pairs = [(f"scope/layer_{number:06d}/weights".encode(), b"\x08\x01\x12\x00") for number in range(100_000)]
    path = tmp_path / "t.index"
    path.write_bytes(table(pairs, block_size=256))
    assert sum(1 for _ in entries(open_table(path))) == len(pairs)
