"""Writes Keras models as a training job leaves them, and images for them.

python -m tests.bench._keras_models FOLDER SAMPLES

MobileNet 0.25 at 96x96 (27 batch norms, 0.2 million weights), MobileNetV2 1.0 at 96x96 and 224x224 (52, 3.5 million).
Not trained: the statistics are drawn at random, as far from 0 and 1 as those of a trained network.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

MODELS = {"mobilenet_v1_025": 96, "mobilenet_v2": 96, "mobilenet_v2_224": 224}
"""Name -> height and width of its images."""


def build(name: str, size: int) -> keras.Model:
    """With statistics, gammas and betas of its own."""
    random = np.random.default_rng(1)
    shape = (size, size, 3)
    if name == "mobilenet_v1_025":
        model = keras.applications.MobileNet(shape, alpha=0.25, weights=None, classes=2)
    else:
        model = keras.applications.MobileNetV2(shape, weights=None, classes=10 if size == 96 else 1000)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            channels = layer.gamma.shape
            layer.set_weights(
                [
                    random.uniform(0.5, 1.5, channels),
                    random.normal(0, 0.1, channels),
                    random.normal(0, 0.3, channels),
                    random.uniform(0.5, 1.5, channels),
                ]
            )
    return model


def main(folder: Path, samples: int) -> None:
    """Writes NAME.keras and NAME.npz for each model."""
    for name, size in MODELS.items():
        build(name, size).save(folder / f"{name}.keras")
        images = np.random.default_rng(0).uniform(-1, 1, (samples, size, size, 3)).astype(np.float32)
        np.savez(folder / f"{name}.npz", images=images)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
