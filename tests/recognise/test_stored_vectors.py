"""Stored vectors, read together."""

from __future__ import annotations

import numpy as np

from bncheck.recognise.stored_vectors import read_together
from bncheck.sources.raw import RawTensor


def test_tensors_that_go_by_another_name_than_they_are_stored_by() -> None:
    """As a detector's backbone, which is taken out of its scope."""
    values = np.arange(3, dtype=np.float32)
    tensor = RawTensor(name="Scope/bn/gamma", dtype="float32", shape=(3,), read=lambda: values)
    for tensors in ({"bn/gamma": tensor}, {"Scope/bn/gamma": tensor}):
        np.testing.assert_array_equal(read_together(["Scope/bn/gamma"], tensors)["Scope/bn/gamma"], values)
