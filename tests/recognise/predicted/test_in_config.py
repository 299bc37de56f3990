"""Means predicted along a Keras configuration: as the graph of the same model says, and as training leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.facts.layers import Facts
from bncheck.numerics.agreement import agreement
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources import open_model

REAL = Path(__file__).parents[4] / "shared" / "real"


def read(path: Path) -> Facts:
    """Facts of a file."""
    return recognise(open_model(path), Options())


@pytest.mark.skipif(not REAL.exists(), reason="the public models are not beside this checkout")
@pytest.mark.parametrize(
    ("model", "layers"), [("mlperf_tiny_vww/vww_96.h5", 26), ("fer_emotion/emotion_model.hdf5", 13)]
)
def test_public_models(model: str, layers: int) -> None:
    """MobileNetV1 with many dead channels; mini-XCEPTION of Keras 2.0: separable convolutions, max pooling."""
    found = [one for layer in read(REAL / model).layers if (one := agreement(layer)) is not None]
    assert len(found) == layers
    assert np.median([one.correlation for one in found]) > 0.97
    assert min(one.correlation for one in found) > 0.6


def _net(keras: Any) -> Any:
    """Every way between two batch norms that is understood, border effects included."""
    layers = keras.layers
    blocks = (
        (layers.Conv2D(16, 3, padding="same", use_bias=False),),
        (layers.ReLU(6.0), layers.ZeroPadding2D(((1, 0), (0, 1))), layers.Conv2D(16, 3, strides=2)),
        (layers.LeakyReLU(0.1), layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)),
        (layers.Activation("swish"), layers.SeparableConv2D(24, 3, padding="same")),
        (layers.PReLU(shared_axes=[1, 2]), layers.Dropout(0.2), layers.Conv2D(24, 1)),
    )
    images = y = keras.Input((9, 10, 3), name="images")
    outputs = []
    for number, block in enumerate(blocks):
        for layer in block:
            y = layer(y)
        y = layers.BatchNormalization(name=f"bn{number}", momentum=0.5)(y)
        outputs.append(y)
    y = layers.ELU()(layers.Add()(outputs[-2:]))
    y = layers.BatchNormalization(name="bn5", momentum=0.5)(layers.Conv2D(16, 1)(y))
    y = layers.Multiply()([y, layers.ReLU(6.0)(y + 3.0) * (1 / 6)])
    y = layers.BatchNormalization(name="bn6", momentum=0.5)(layers.Conv2D(16, 1)(y))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(layers.ReLU()(y))
    gate = layers.Conv2D(16, 1, activation="sigmoid")(layers.Conv2D(8, 1, activation="relu")(gate))
    y = layers.MaxPooling2D(2, strides=1, padding="same")(layers.Multiply()([layers.ReLU()(y), gate]))
    y = layers.BatchNormalization(name="bn7", momentum=0.5)(layers.Conv2D(16, 1)(y))
    y = layers.Concatenate()([layers.Activation("tanh")(y), outputs[-2]])
    y = layers.Dense(32)(layers.Flatten()(layers.AveragePooling2D(2)(y)))
    return keras.Model(images, layers.BatchNormalization(name="bn8", momentum=0.5)(y))


@pytest.mark.tensorflow
def test_every_way_is_predicted_as_training_and_as_the_graph_say(tmp_path: Path) -> None:
    """Random weights, statistics gathered from noise: means as predicted, the same from the SavedModel's graph."""
    import tf_keras as keras

    keras.utils.set_random_seed(1)
    model = _net(keras)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(random.uniform(0.5, 1.5, shape))
            layer.beta.assign(random.normal(0, 0.7, shape))
    for _ in range(30):
        model(random.normal(size=(64, 9, 10, 3)).astype(np.float32), training=True)
    model.save(tmp_path / "model.keras")
    model.save(tmp_path / "model")
    by_config, by_graph = read(tmp_path / "model.keras"), read(tmp_path / "model")
    assert len(by_config.layers) == len(by_graph.layers) == 9
    for here, there in zip(by_config.layers[1:], by_graph.layers[1:], strict=True):
        found = agreement(here)
        assert found is not None, here.name
        assert found.correlation > 0.95, here.name
        assert here.predicted is not None
        assert there.predicted is not None, there.name
        np.testing.assert_allclose(here.predicted.mean, there.predicted.mean, atol=1e-5)
        np.testing.assert_allclose(here.predicted.variance, there.predicted.variance, rtol=1e-4, atol=1e-7)
