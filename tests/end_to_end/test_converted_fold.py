"""The fold proof on what TensorFlow's own converter makes: the arithmetic that it takes in, and what it leaves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.facts.measurements import FoldProof
from bncheck.foldproof.prove import prove
from bncheck.sources import open_model

pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).parents[2]
SHAPE = (1, 16, 16, 3)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], FoldProof]:
    """Source ("h5", "keras") and scheme ("float", "int8") -> the proof of a Keras model's own conversion."""
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("converted")
    keras.utils.set_random_seed(1)
    model = _model(keras)
    _train(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HDF5 is a legacy format, and so on
        for suffix in ("keras", "h5"):
            model.save(folder / f"model.{suffix}")
        for scheme in ("float", "int8"):
            (folder / f"{scheme}.tflite").write_bytes(_lite(tf, model, scheme))

    def proof(source: str, scheme: str) -> FoldProof:
        return prove(
            open_model(folder / f"model.{source}", graph=None, use_graph=True),
            open_model(folder / f"{scheme}.tflite", graph=None, use_graph=True),
        )

    return proof


def _model(keras: Any) -> Any:
    layers = keras.layers

    def hard_swish(x: Any) -> Any:
        gate = layers.Rescaling(1 / 6)(layers.ReLU(6.0)(layers.Rescaling(1.0, offset=3.0)(x)))
        return layers.Multiply()([x, gate])

    def norm(x: Any, name: str, **config: Any) -> Any:
        return layers.BatchNormalization(name=name, **config)(x)

    images = keras.Input(SHAPE[1:])
    x = layers.Conv2D(8, 3, strides=2, name="scaled")(layers.Rescaling(1 / 127.5, offset=-1)(images))
    x = hard_swish(norm(x, "behind_rescaling"))
    x = hard_swish(norm(layers.DepthwiseConv2D(3, padding="same")(x), "depthwise_behind_swish"))
    x = layers.ReLU()(norm(layers.Conv2D(8, 1, use_bias=False)(x), "pointwise_behind_swish", epsilon=1e-5))
    x = layers.Add()([x, norm(layers.Conv2DTranspose(8, 3, padding="same")(x), "transposed")])
    x = layers.ReLU()(norm(x, "behind_add"))
    x = norm(layers.Conv2D(8, 3, activation="relu")(x), "behind_relu")
    twice = layers.Conv2D(8, 3, name="twice"), layers.BatchNormalization(name="applied_twice")
    x = layers.Add()([layers.ReLU()(twice[1](twice[0](x))), layers.ReLU()(twice[1](twice[0](x * 2)))])
    x = norm(norm(layers.Conv2D(8, 1)(x), "first_of_two", scale=False), "second_of_two")
    x = norm(layers.GlobalAveragePooling2D()(x), "before_dense")
    x = layers.ReLU()(norm(layers.Dense(12)(x), "behind_dense", center=False))
    return keras.Model(images, layers.Dense(10)(x))


def _train(model: Any) -> None:
    """Numbers as training would leave them, in all vectors."""
    random = np.random.default_rng(1)
    draw: dict[str, Callable[[int], Any]] = {
        "gamma": lambda n: random.normal(1, 0.4, n),
        "beta": lambda n: random.normal(0, 0.3, n),
        "moving_mean": lambda n: random.normal(0, 0.7, n),
        "moving_variance": lambda n: random.gamma(1.2, 0.8, n),
        "bias": lambda n: random.normal(0, 0.1, n),
    }
    for layer in model.layers:
        for weight in layer.weights:
            if weight.name in draw:
                weight.assign(draw[weight.name](weight.shape[0]).astype(np.float32))


def _lite(tf: Any, model: Any, scheme: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if scheme == "int8":
        random = np.random.default_rng(2)

        def samples() -> Iterator[list[Any]]:
            for _ in range(8):
                yield [random.uniform(0, 255, SHAPE).astype(np.float32)]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    file: bytes = converter.convert()
    return file


@pytest.mark.parametrize("source", ["keras", "h5"])
@pytest.mark.parametrize("scheme", ["float", "int8"])
def test_a_conversion_is_confirmed(converted: Callable[[str, str], FoldProof], source: str, scheme: str) -> None:
    """All eleven layers, whatever stands beside them."""
    proof = converted(source, scheme)
    assert len(proof.layers) == 11
    assert {layer.layer: layer.why for layer in proof.layers if layer.folded != "stored"} == {}
    assert all(layer.error <= layer.tolerance for layer in proof.layers)


def test_what_the_converter_did_besides(converted: Callable[[str, str], FoldProof]) -> None:
    """It scales, shifts, joins, leaves standing; each is told of the layer it befell, and of no other."""
    whys = {layer.layer: layer.why for layer in converted("keras", "float").layers if layer.why}
    assert "times 0.00784314" in whys.pop("behind_rescaling")
    for name in ("depthwise_behind_swish", "pointwise_behind_swish"):
        if name in whys:
            assert "times 0.166667" in whys.pop(name)
    assert whys.pop("behind_add") == whys.pop("behind_relu") == "not folded: it remains as MUL and ADD"
    assert whys.pop("applied_twice") == "and in 1 more operator"
    assert "second_of_two" in whys.pop("first_of_two")
    assert "first_of_two" in whys.pop("second_of_two")
    assert "dense" in whys.pop("before_dense")
    whys.pop("behind_dense", None)
    assert whys == {}
