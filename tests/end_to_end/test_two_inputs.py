"""Models of several inputs, from a `.npz` with an array for each under its name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bncheck
from bncheck.facts.findings import Verdict
from bncheck.repair import repair

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]

DRAWN = np.random.default_rng(0)
IMAGES = DRAWN.normal(0.2, 1, (96, 8, 8, 3)).astype(np.float32)
NUMBERS = DRAWN.normal(3, 2, (96, 5)).astype(np.float32)


def network(*, as_dict: bool) -> Any:
    """Images and numbers, each with a batch norm, trained until its statistics are right."""
    keras = importlib.import_module("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((5,), name="right")
    seen = layers.Flatten()(layers.ReLU()(layers.BatchNormalization(momentum=0.8)(layers.Conv2D(4, 3)(left))))
    read = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(layers.Dense(6)(right)))
    output = layers.Dense(4)(layers.Concatenate()([seen, read]))
    model = keras.Model({"left": left, "right": right} if as_dict else [left, right], output)
    for start in [*range(0, 96, 32)] * 8:
        some = (IMAGES[start : start + 32], NUMBERS[start : start + 32])
        model(dict(zip(("left", "right"), some, strict=True)) if as_dict else list(some), training=True)
    return model


def test_float_against_quantized(tmp_path: Path) -> None:
    """Converted by each kind of scheme, and given as a TFLite file whose inputs stand in the other order."""
    tf = importlib.import_module("tensorflow")
    model = network(as_dict=False)
    model.save(tmp_path / "model.keras")
    labels = np.asarray(model([IMAGES, NUMBERS], training=False)).argmax(1)
    np.savez(tmp_path / "d.npz", left=IMAGES, right=NUMBERS, labels=labels)
    wanted = {"int8": 25.0, "dynamic": 30.0, "int16x8": 30.0, "float16": 50.0}
    for scheme, least in wanted.items():
        report = bncheck.compare_float_vs_quantized(tmp_path / "model.keras", data=tmp_path / "d.npz", scheme=scheme)
        assert report.quantized is not None
        assert -10 * np.log10(report.quantized.outputs[0].nmse) > least
        assert report.quantized.accuracy.quantized == pytest.approx(1, abs=0.05)
    keras = importlib.import_module("keras")
    left, right = model.inputs
    other = keras.Model([right, left], model([left, right]))
    files = {"float": tmp_path / "float.tflite", "quantized": tmp_path / "quantized.tflite"}
    for name, held in (("float", model), ("quantized", other)):
        converter = tf.lite.TFLiteConverter.from_keras_model(held)
        converter.optimizations = [tf.lite.Optimize.DEFAULT] if name == "quantized" else []
        files[name].write_bytes(converter.convert())
    for path in (tmp_path / "model.keras", files["float"]):
        report = bncheck.compare_float_vs_quantized(path, data=tmp_path / "d.npz", quantized=files["quantized"])
        assert report.quantized is not None
        assert -10 * np.log10(report.quantized.outputs[0].nmse) > 30


@pytest.mark.parametrize("as_dict", [False, True])
def test_both_inputs_are_fed(tmp_path: Path, *, as_dict: bool) -> None:
    """Keras file and SavedModel give what Keras gives; broken statistics are found and repaired."""
    model = network(as_dict=as_dict)
    model.save(tmp_path / "model.keras")
    model.export(str(tmp_path / "saved"), verbose=False)
    given = {"left": IMAGES, "right": NUMBERS} if as_dict else [IMAGES, NUMBERS]
    labels = np.asarray(model(given, training=False)).argmax(1)
    np.savez(tmp_path / "d.npz", left=IMAGES, right=NUMBERS, labels=labels)
    for name in ("model.keras", "saved"):
        report = bncheck.compare_train_vs_eval(tmp_path / name, data=tmp_path / "d.npz")
        assert report.verdict is Verdict.PASS
        assert report.comparison is not None
        assert len(report.comparison.layers) == 2
    for norm in [layer for layer in model.layers if layer.name.startswith("batch_norm")]:
        norm.moving_mean.assign(norm.moving_mean + 4)
    model.save(tmp_path / "broken.keras")
    fixed = repair(tmp_path / "broken.keras", tmp_path / "fixed.keras", data=tmp_path / "d.npz")
    assert (fixed.before.verdict, fixed.after.verdict) == (Verdict.FAIL, Verdict.PASS)
    np.savez(tmp_path / "one.npz", images=IMAGES)
    with pytest.raises(bncheck.facts.errors.ReadError, match="no array for the input left, right"):
        bncheck.compare_train_vs_eval(tmp_path / "model.keras", data=tmp_path / "one.npz")
