"""Files read by ranges: the same bytes as at once, and an error where another process cuts them short."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_writer import archive, batch_norm, bn_values, conv, h5_file, scoped, sequential

import bncheck
from bncheck.facts.errors import NotFound, ReadError, Truncated, Unreadable
from bncheck.sources import content as contents
from bncheck.sources import open_model
from bncheck.sources.content import Content
from bncheck.sources.raw import RawModel

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture
def by_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are treated as large ones."""
    monkeypatch.setattr(contents, "WHOLE", 16)


def random_file(path: Path, size: int = 300_000) -> bytes:
    """Writes and gives random bytes."""
    content = random.Random(1).randbytes(size)  # noqa: S311 - reproducible, not secret
    path.write_bytes(content)
    return content


@pytest.mark.parametrize("whole", [16, 1 << 22])
def test_ranges_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
    """Slices, parts and numbers are those of the bytes, also across the borders of pages and at the end."""
    monkeypatch.setattr(contents, "WHOLE", whole)
    expected = random_file(tmp_path / "f")
    found = Content.of_file(tmp_path / "f")
    assert len(found) == len(expected)
    for start, stop in ((0, 8), (65_530, 65_545), (299_990, 400_000), (400_000, 500_000), (7, 7)):
        assert bytes(found[start:stop]) == expected[start:stop]
        assert bytes(found.part(100, 200_000)[start:stop]) == expected[100:200_100][start:stop]
    layout = struct.Struct("<q")
    for offset in (0, 65_529, 65_535, 65_536, 131_071, 299_992):
        assert found.unpack(layout, offset) == layout.unpack_from(expected, offset)[0]
    for offset, size in ((299_993, 8), (-1, 2), (0, 300_001), (0, -1)):
        with pytest.raises(Truncated, match="the file ends at 300,000"):
            found.read(offset, size)
    with pytest.raises(Truncated):
        found.unpack(layout, 299_993)


@pytest.mark.usefixtures("by_ranges")
def test_a_file_that_shrinks_and_one_that_is_replaced(tmp_path: Path) -> None:
    """Cut short, what is gone is an error with its offset; renamed over, the bytes stay those that were opened."""
    expected = random_file(tmp_path / "f")
    found = Content.of_file(tmp_path / "f")
    (tmp_path / "new").write_bytes(b"another file")
    (tmp_path / "new").replace(tmp_path / "f")
    assert found.read(1000, 10) == expected[1000:1010]
    random_file(tmp_path / "f")
    found = Content.of_file(tmp_path / "f")
    os.truncate(tmp_path / "f", 1005)
    with pytest.raises(Truncated, match="byte 1,005: the file became shorter while it was read"):
        found.read(1000, 10)


def test_what_is_no_file(tmp_path: Path) -> None:
    """A FIFO is not waited for."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Unreadable, match="a FIFO"):
        Content.of_file(tmp_path / "fifo")
    with pytest.raises(NotFound):
        Content.of_file(tmp_path / "nothing")


MODEL = sequential(conv("c"), batch_norm("bn"))


def keras_file(folder: Path) -> Path:
    """An archive with one layer."""
    return archive(folder / "m.keras", MODEL, {"layers/batch_normalization": ("bn", list(bn_values().values()))})


def h5(folder: Path) -> Path:
    """A file of Keras 2."""
    return h5_file(folder / "m.h5", MODEL, {"bn": scoped("bn", bn_values())})


def tflite(folder: Path) -> Path:
    """A file of the fixtures."""
    source = FIXTURES / "tiny" / "bn403_per_tensor_range_collapse" / "broken_tflite" / "model.tflite"
    return Path(shutil.copy(source, folder / "m.tflite"))


def values(model: RawModel) -> list[Any]:
    """Every tensor of a model."""
    constants = (
        [] if model.lite is None else [t.data for graph in model.lite.subgraphs for t in graph.tensors if t.data]
    )
    return [tensor.read() for tensor in (*model.tensors.values(), *constants)]


@pytest.mark.usefixtures("by_ranges")
@pytest.mark.parametrize("make", [keras_file, h5, tflite])
def test_models_that_shrink_while_they_are_read(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """A trainer that cuts its file to any length ends the reading with an error of the file, not with a signal."""
    path = make(tmp_path)
    size = path.stat().st_size
    whole = values(open_model(path))
    refused = 0
    for length in range(0, size, size // 40):
        path = make(tmp_path)
        model = open_model(path)
        os.truncate(path, length)
        try:
            found = values(model)
        except ReadError as error:
            refused += str(path) in str(error)
            continue
        assert all(np.array_equal(one, other) for one, other in zip(whole, found, strict=True))
    assert refused > 5


@pytest.mark.parametrize("make", [keras_file, h5, tflite])
def test_ranges_tell_what_the_whole_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path]
) -> None:
    """The same report, whether a file is read at once or by ranges."""
    path = make(tmp_path)
    whole = bncheck.inspect_model(path)
    monkeypatch.setattr(contents, "WHOLE", 16)
    by_range = bncheck.inspect_model(path)
    assert [str(finding.evidence) for finding in by_range.findings] == [str(f.evidence) for f in whole.findings]
    assert by_range.verdict == whole.verdict
