"""Views of storages: of any strides, and never beyond what is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncheck.facts.errors import Malformed, TooLarge
from bncheck.sources.files import RangedFile
from bncheck.sources.pytorch.tensors import StoredBytes, raw_tensor
from bncheck.sources.pytorch.values import Storage, Strided

VALUES = np.arange(60, dtype="f4")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> StoredBytes:
    """60 numbers behind 8 other bytes."""
    path = tmp_path_factory.mktemp("storage") / "m.pt"
    path.write_bytes(b"elsewhere"[:8] + VALUES.tobytes())
    return StoredBytes(RangedFile(path), 8, VALUES.nbytes)


def view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, dtype: str = "float32") -> Strided:
    """A view of the 60 numbers."""
    return Strided(Storage("0", "float32", 0, 60), offset, shape, strides, dtype)


@given(st.data())
def test_any_view_is_what_numpy_makes_of_it(place: StoredBytes, data: Any) -> None:
    """Transposed, stepped, shifted, expanded, empty."""
    whole = VALUES.reshape(3, 4, 5).transpose(data.draw(st.permutations(range(3))))
    cut = tuple(slice(data.draw(st.integers(0, size)), None, data.draw(st.integers(1, 3))) for size in whole.shape)
    wanted = whole[cut]
    start = (wanted.__array_interface__["data"][0] - VALUES.__array_interface__["data"][0]) // 4
    strides = tuple(step // 4 for step in wanted.strides)
    found = raw_tensor("w", view(wanted.shape, strides, start if wanted.size else 0), place).read()
    np.testing.assert_array_equal(found, wanted)
    assert not found.flags.writeable


def test_expanded(place: StoredBytes) -> None:
    """A stride of 0 repeats."""
    assert raw_tensor("w", view((2, 3), (0, 1), 4), place).read().tolist() == [[4, 5, 6]] * 2


@pytest.mark.parametrize(
    ("of", "error"),
    [
        (view((61,), (1,)), Malformed),
        (view((2,), (60,)), Malformed),
        (view((1,), (1,), 60), Malformed),
        (view((60,), (1,), dtype="float64"), Malformed),
        (view((1 << 40,), (0,)), TooLarge),
        (view((1 << 21, 1), (0, 0)), TooLarge),
    ],
)
def test_beyond_the_storage(place: StoredBytes, of: Strided, error: type[Exception]) -> None:
    """An error before anything is read."""
    with pytest.raises(error, match=r"m\.pt"):
        raw_tensor("w", of, place)


def test_types_without_numbers(place: StoredBytes) -> None:
    """Are declared, and not read."""
    found = raw_tensor("w", view((4,), (1,), dtype="float8_e4m3fn"), place)
    assert found.unavailable is not None
    with pytest.raises(Malformed, match="type that bncheck does not read"):
        found.read()
