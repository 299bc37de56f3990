"""TensorFlow's QuantizationDebugger on a Keras model, as its guide uses it, in a process of its own.

python -m tests.bench._debugger MODEL.keras DATA.npz CALIBRATION
"""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf


def main(model: str, data: str, calibration: int) -> None:
    """Prints the number of layers told of."""
    images = np.load(data)["images"]
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.models.load_model(model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([images[n : n + 1]] for n in range(calibration))
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=lambda: ([images[n : n + 1]] for n in range(len(images)))
    )
    debugger.run()
    print(len(debugger.layer_statistics))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
