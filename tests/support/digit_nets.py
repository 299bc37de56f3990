"""Small Keras networks on scikit-learn's digits, 8x8, trained in seconds in whatever way a test wants."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

BATCH = 64


@cache
def digits() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Images (n, 8, 8, 1) in -1..1 and labels to train on, then those to test on."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 8 - 1).astype(np.float32)
    return images[:1300], labels[:1300].astype(np.int64), images[1300:], labels[1300:].astype(np.int64)


def net(*, blocks: int = 4, momentum: float = 0.9, name: str = "net") -> Any:
    """Convolutions with batch norm, averaged and put into ten logits."""
    import keras

    keras.utils.set_random_seed(2)
    x = inputs = keras.Input((8, 8, 1))
    for number in range(blocks):
        x = keras.layers.Conv2D(24, 3, padding="same", use_bias=False, name=f"{name}_conv{number}")(x)
        x = keras.layers.BatchNormalization(momentum=momentum, name=f"{name}_bn{number}")(x)
        x = keras.layers.ReLU(name=f"{name}_relu{number}")(x)
    x = keras.layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name=f"{name}_logits")(x))


def train(
    model: Any,
    *,
    steps: int = 300,
    rate: float = 3e-3,
    training: bool = True,
    change: Callable[[NDArray[Any]], NDArray[Any]] = lambda images: images,
) -> Any:
    """By Adam in a loop of its own, batch norm in the mode given."""
    import keras
    import tensorflow as tf

    images, labels, _, _ = digits()
    optimizer = keras.optimizers.Adam(rate)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=training))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )

    random = np.random.default_rng(1)
    for _ in range(steps):
        chosen = random.choice(len(images), BATCH, replace=False)
        step(tf.constant(change(images[chosen])), tf.constant(labels[chosen]))
    return model


def saved(folder: Path, model: Any, **arrays: Any) -> tuple[str, str]:
    """Paths of the model and of `images` and `labels` for it: those to test on unless told."""
    _, _, images, labels = digits()
    path, data = folder / "model.keras", folder / "data.npz"
    model.save(path)
    np.savez(data, **({"images": images, "labels": labels} | arrays))
    return str(path), str(data)
