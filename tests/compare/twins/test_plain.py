"""Other kinds of batch norm are named, not run as plain ones."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck import compare_train_vs_eval
from bncheck.compare.twins.plain import refuse_other_kinds
from bncheck.facts.errors import BncheckError
from bncheck.testing import batch_norm


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"renorm": True}, "renormalisation"),
        ({"virtual_batch_size": 8}, "virtual_batch_size=8"),
        ({"axis": [1, 3]}, r"axis=\[1, 3\]"),
    ],
)
def test_other_kinds_are_named(config: dict[str, Any], told: str) -> None:
    """With the layer, and what sets it apart."""
    with pytest.raises(BncheckError, match=f"bn .*{told}"):
        refuse_other_kinds([replace(batch_norm("bn"), config=config)])


@pytest.mark.parametrize("config", [{}, {"axis": [3]}, {"axis": 1, "renorm": False, "virtual_batch_size": None}])
def test_plain_ones_pass(config: dict[str, Any]) -> None:
    """Also where a configuration spells its defaults out."""
    refuse_other_kinds([replace(batch_norm("bn"), config=config)])


@pytest.mark.tensorflow
def test_renormalisation_is_not_run_as_plain(tmp_path: Path) -> None:
    """A real file of tf-keras."""
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    norm = layers.BatchNormalization(renorm=True, name="renormed")
    model = tf_keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), norm, layers.Flatten(), layers.Dense(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "m.h5")
    np.savez(tmp_path / "d.npz", images=np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32))
    with pytest.raises(BncheckError, match="renormed is batch renormalisation"):
        compare_train_vs_eval(tmp_path / "m.h5", data=tmp_path / "d.npz")
