"""Weights of a Keras model that reach another one without batch norm's own, or without its statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bncheck

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


def network() -> Any:
    """Convolutions and a dense layer with names, batch norm without."""
    from tf_keras import Input, Model
    from tf_keras.layers import BatchNormalization, Conv2D, Dense, GlobalAveragePooling2D

    x = images = Input((8, 8, 3))
    for name in ("first", "second"):
        x = BatchNormalization()(Conv2D(4, 3, use_bias=False, name=name)(x))
    return Model(images, Dense(2, name="top")(GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def trained() -> Any:
    """Trained for a hundred steps or so."""
    model = network()
    model.compile("adam", "mse")
    random = np.random.default_rng(0)
    images = random.normal(3, 2, (64, 8, 8, 3)).astype(np.float32)
    model.fit(images, random.normal(size=(64, 2)), epochs=30, batch_size=8, verbose=0)
    return model


def by_name(model: Any, folder: Path) -> Any:
    """Loaded by names, of which batch norm's count on."""
    other = network()
    model.save_weights(folder / "trained.h5")
    other.load_weights(folder / "trained.h5", by_name=True)
    return other


def in_order(model: Any, folder: Path) -> Any:
    """Loaded in the order of layers."""
    other = network()
    model.save_weights(folder / "trained.h5")
    other.load_weights(folder / "trained.h5")
    return other


def bare_clone(model: Any, _: Path) -> Any:
    """A clone, to which nobody gave the weights."""
    from tf_keras.models import clone_model

    return clone_model(model)


def clone_of_trainables(model: Any, folder: Path) -> Any:
    """A clone that was given what is trained."""
    other = bare_clone(model, folder)
    for to, of in zip(other.trainable_weights, model.trainable_weights, strict=True):
        to.assign(of)
    return other


@pytest.mark.parametrize(
    ("copied", "severity", "says"),
    [
        (by_name, "warning", "`load_weights(by_name=True)` does not find it"),
        (bare_clone, "info", "the model is not trained yet"),
        (clone_of_trainables, "error", "or a clone, or an average of weights, was given the trainable weights alone"),
        (in_order, None, ""),
    ],
)
def test_copies(
    copied: Callable[[Any, Path], Any], severity: str | None, says: str, trained: Any, tmp_path: Path
) -> None:
    """Each way is told by what the file shows: biases, betas, names that Keras counts on."""
    copied(trained, tmp_path).save(tmp_path / "copy.h5")
    found = [f for f in bncheck.inspect_model(tmp_path / "copy.h5").findings if f.code == "BN101"]
    assert [f.severity.value for f in found] == ([severity] if severity else [])
    assert all(says in f.message for f in found)
