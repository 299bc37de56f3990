"""Run as a script: a small net trained quantization-aware by tensorflow-model-optimization, saved and converted.

`TF_USE_LEGACY_KERAS=1 python tfmot_model.py FOLDER` writes q.h5, saved_model/, q.tflite and test.npz.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from sklearn.datasets import load_digits


def main(folder: Path) -> None:
    """Two convolutions and a depthwise one, each with batch norm and ReLU6, on scikit-learn's digits."""
    keras.utils.set_random_seed(0)
    raw = load_digits()
    images, labels = (raw.images / 8 - 1).astype(np.float32)[..., None], raw.target
    model = tfmot.quantization.keras.quantize_model(_net())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss=loss)
    model.fit(images[:1400], labels[:1400], epochs=3, batch_size=32, verbose=0)
    model.save(folder / "q.h5")
    tf.saved_model.save(model, str(folder / "saved_model"))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "q.tflite").write_bytes(converter.convert())
    np.savez(folder / "test.npz", images=images[1400:], labels=labels[1400:])


def _net() -> keras.Model:
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 1))
    for layer in (
        layers.Conv2D(16, 3, padding="same", use_bias=False),
        layers.Conv2D(24, 3, padding="same", use_bias=False),
        layers.DepthwiseConv2D(3, padding="same", use_bias=False),
    ):
        x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(layer(x)))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
