"""Healthy nets trained on images that are no photographs: nothing is wrong with their statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import bncheck

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

Images = NDArray[np.float64]
COUNT, SIZE = 384, 32


def _noise(random: np.random.Generator) -> Images:
    return random.normal(size=(COUNT, SIZE, SIZE, 3))


def _masks(random: np.random.Generator) -> Images:
    found: Images = np.eye(4)[np.kron(random.integers(0, 4, size=(COUNT, 8, 8)), np.ones((1, 4, 4), int))]
    return found


def _spectrograms(random: np.random.Generator) -> Images:
    return np.linspace(1, 0, SIZE)[None, :, None, None] ** 2 * random.exponential(size=(COUNT, SIZE, SIZE, 3))


def _frames(random: np.random.Generator) -> Images:
    found = np.zeros((COUNT, SIZE, SIZE, 4))
    for image in found:
        for _ in range(3):
            (y, x), (down, right) = random.integers(4, 24, size=2), random.integers(-1, 2, size=2)
            for time in range(4):
                image[y + down * time : y + down * time + 4, x + right * time : x + right * time + 4, time] = 1
    return found


def _one_colour_each(random: np.random.Generator) -> Images:
    return np.broadcast_to(random.normal(size=(COUNT, 1, 1, 3)), (COUNT, SIZE, SIZE, 3)).copy()


def _plain(layers: Any, x: Any) -> Any:
    for filters, strides in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return x


def _mobile(layers: Any, x: Any) -> Any:
    def normalised(x: Any) -> Any:
        return layers.BatchNormalization(momentum=0.9)(x)

    x = layers.ReLU(6.0)(normalised(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x)))
    for filters, strides in ((16, 1), (24, 2), (24, 1), (32, 2), (32, 1)):
        y = layers.ReLU(6.0)(normalised(layers.Conv2D(4 * x.shape[-1], 1, use_bias=False)(x)))
        y = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(y)
        y = normalised(layers.Conv2D(filters, 1, use_bias=False)(layers.ReLU(6.0)(normalised(y))))
        x = layers.Add()([x, y]) if y.shape == x.shape else y
    return x


def _residual(layers: Any, x: Any) -> Any:
    def convolved(x: Any, filters: int, size: int = 3, strides: int = 1) -> Any:
        made = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(made)

    x = layers.ReLU()(convolved(x, 16))
    for filters, strides in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        y = convolved(layers.ReLU()(convolved(x, filters, strides=strides)), filters)
        shortcut = x if y.shape == x.shape else convolved(x, filters, 1, strides)
        x = layers.ReLU()(layers.Add()([shortcut, y]))
    return x


@pytest.mark.parametrize("net", [_plain, _mobile, _residual])
@pytest.mark.parametrize("kind", [_noise, _masks, _spectrograms, _frames, _one_colour_each])
def test_nothing_is_wrong(
    kind: Callable[[np.random.Generator], Images], net: Callable[[Any, Any], Any], tmp_path: Path
) -> None:
    """96 steps of Adam, decay 0.9."""
    keras = pytest.importorskip("tf_keras")
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(1)
    images = kind(random)
    blocks = np.abs(images - images.mean()).reshape(COUNT, 4, 8, 4, 8, -1).mean(axis=(2, 4)).reshape(COUNT, -1)
    labels = (((blocks - blocks.mean(0)) / (blocks.std(0) + 1e-6)) @ random.normal(size=(blocks.shape[1], 5))).argmax(
        -1
    )
    given = keras.layers.Input(images.shape[1:])
    pooled = keras.layers.GlobalAveragePooling2D()(net(keras.layers, given))
    model = keras.Model(given, keras.layers.Dense(5)(pooled))
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, batch_size=32, epochs=8, verbose=0)
    model.save(tmp_path / "net.keras")
    report = bncheck.check(tmp_path / "net.keras")
    assert report.exit_code == 0
    assert not [finding.code for finding in report.findings if finding.severity.value in ("warning", "error")]
