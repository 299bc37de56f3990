"""The printed fix mends a training script of Keras 3 or tf-keras, and the files that it saves."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_scripts import STEPS, code_of, tf, wrong

import bncheck
from bncheck.facts.findings import Finding

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore:__array__", "ignore:You are saving")]

MODEL = """
x = inputs = tf.keras.Input((4, 4, 3))
x = tf.keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
x = tf.keras.layers.BatchNormalization(momentum=0.9)(x)
x = tf.keras.layers.Flatten()(x)
x = tf.keras.layers.Dense(4, use_bias=False, name="hidden")(x)
x = tf.keras.layers.BatchNormalization(momentum=0.9)(x)
model = tf.keras.Model(inputs, tf.keras.layers.Dense(2, name="logits")(x))
"""
IN_TRAIN_MODE = """
with tf.GradientTape() as tape:
    loss = loss_fn(labels, model(images, training=True))
"""
IN_EVAL_MODE = IN_TRAIN_MODE.replace("True", "False")
ONE_IN_EVAL_MODE = """
with tf.GradientTape() as tape:
    outputs = images
    for layer in model.layers[1:]:
        modes = {"training": layer is not model.layers[2]} if "normalization" in layer.name else {}
        outputs = layer(outputs, **modes)
    loss = loss_fn(labels, outputs)
"""


@dataclass(frozen=True)
class Loop:
    """A training loop of one's own, of which a printed fix replaces a part."""

    keras: str
    model: str = MODEL
    tape: str = IN_TRAIN_MODE

    def run(self, target: Path, load: str = "", **known: Any) -> str:
        """Trains, unless weights are loaded instead; gives the saved file."""
        keras: Any = importlib.import_module(self.keras)
        names: dict[str, Any] = {"tf": _TensorFlow(keras), **known}
        exec(self.model, names)  # noqa: S102 - the very point
        exec(load, names)  # noqa: S102
        names["loss_fn"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer, model = keras.optimizers.Adam(0.01), names["model"]
        model.compile(optimizer)  # so that its steps are saved
        random = np.random.default_rng(3)
        for _ in range(0 if load else STEPS):
            names["images"] = random.normal(3.0, 2.0, (16, 4, 4, 3)).astype("float32")
            names["labels"] = random.integers(0, 2, 16)
            exec(self.tape, names)  # noqa: S102
            gradients = names["tape"].gradient(names["loss"], model.trainable_weights)
            optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        model.save(target)
        return str(target)


class _TensorFlow:
    """TensorFlow with this Keras as `tf.keras`, as its versions had one or the other."""

    def __init__(self, keras: Any) -> None:
        self.keras = keras

    def __getattr__(self, name: str) -> Any:
        return getattr(tf, name)


def _found(path: str, code: str) -> Finding:
    return next(f for f in bncheck.inspect_model(path).findings if f.code == code and f.caused_by is None)


@pytest.mark.parametrize("keras", ["keras", pytest.param("tf_keras", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("tape", "code"),
    [(IN_EVAL_MODE, "BN101"), pytest.param(ONE_IN_EVAL_MODE, "BN102", marks=pytest.mark.slow)],
    ids=["all layers", "one layer"],
)
def test_a_loop_in_eval_mode(keras: str, tape: str, code: str, tmp_path: Path) -> None:
    """A tape around the model in eval mode moves no statistic; the printed lines do."""
    pytest.importorskip(keras)
    found = _found(Loop(keras, tape=tape).run(tmp_path / "broken.keras"), code)
    mended = Loop(keras, tape=code_of(found.fix)).run(tmp_path / "mended.keras")
    assert wrong(bncheck.inspect_model(mended)) == []


@pytest.mark.slow
@pytest.mark.parametrize("keras", ["keras", "tf_keras"])
def test_a_decay_too_long(keras: str, tmp_path: Path) -> None:
    """The printed layer, with its decay, takes the place of those that keep too much of their initial values."""
    pytest.importorskip(keras)
    line = "tf.keras.layers.BatchNormalization(momentum=0.9)(x)"
    model = MODEL.replace(line, line.replace("0.9", "0.9997"))
    found = _found(Loop(keras, model).run(tmp_path / "broken.keras"), "BN103")
    layer = code_of(found.fix).strip().removeprefix("x = ")
    mended = Loop(keras, model.replace(line.replace("0.9", "0.9997"), layer)).run(tmp_path / "mended.keras")
    assert wrong(bncheck.inspect_model(mended)) == []


def test_weights_loaded_by_name(tmp_path: Path) -> None:
    """Keras counts on the names of layers without one: `by_name` leaves these as they were; the fix loads them all."""
    pytest.importorskip("tf_keras")
    trained = Loop("tf_keras").run(tmp_path / "trained.h5")
    by_name = "model.load_weights(path, by_name=True)"
    found = _found(Loop("tf_keras").run(tmp_path / "broken.keras", by_name, path=trained), "BN101")
    assert "by_name=True" in found.message
    mended = Loop("tf_keras").run(tmp_path / "mended.keras", code_of(found.fix), path=trained)
    assert wrong(bncheck.inspect_model(mended)) == []
