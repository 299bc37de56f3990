"""Datasets that are read where they stand in the file, past HDF5, hold what HDF5 would give."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from bncheck.sources.content import Content
from bncheck.sources.keras import h5


@pytest.mark.parametrize("userblock", [0, 512])
def test_datasets_of_every_storage_are_those_that_h5py_reads(tmp_path: Path, userblock: int) -> None:
    """Contiguous, compact, chunked, packed, big-endian and half precision, also behind a user block."""
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=userblock) as file:
        file.create_dataset("plain", data=values)
        file.create_dataset("chunked", data=values, chunks=(1, 5))
        file.create_dataset("packed", data=values, compression="gzip")
        file.create_dataset("big", data=values.astype(">f4"))
        file.create_dataset("half", data=values.astype(np.float16))
    opened = h5.open_file(tmp_path / "a.h5", Content.of_file(tmp_path / "a.h5"))
    for name in ("plain", "chunked", "packed", "big", "half"):
        found = h5.tensor(opened, opened.root[name], name)
        stored = opened.root[name][()]
        assert found.dtype == stored.dtype.newbyteorder("=").name
        assert found.location == (tmp_path / "a.h5", f"/{name}")
        np.testing.assert_array_equal(found.read(), stored)
        assert not found.read().flags.writeable
