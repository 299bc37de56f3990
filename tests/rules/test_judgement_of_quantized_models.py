"""Quantized files of other weights, of another number of classes, and kernels of one filter, as LiteRT runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from digit_nets import digits, net, saved, train

import bncheck
from bncheck.facts.findings import Report, Verdict

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning"),
]


@pytest.fixture(scope="module")
def trained() -> Any:
    """Three layers, trained for a while."""
    return train(net(blocks=3), steps=120)


def quantized_file(path: Path, model: Any) -> Path:
    """The model in int8, by TensorFlow's converter."""
    import tensorflow as tf

    images = digits()[2]
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([images[n : n + 1]] for n in range(32))
    path.write_bytes(converter.convert())
    return path


def against(folder: Path, model: Any, quantized: Path) -> Report:
    """`compare float-vs-quantized` with a file given."""
    path, data = saved(folder, model)
    return bncheck.compare_float_vs_quantized(path, data=data, labels="labels", quantized=quantized)


def test_other_weights(tmp_path: Path, trained: Any) -> None:
    """Trained on for some steps: nothing is attributed, and no advice is given on how to quantize."""
    import keras

    other = keras.models.clone_model(trained)
    other.set_weights(trained.get_weights())
    report = against(tmp_path, trained, quantized_file(tmp_path / "q.tflite", train(other, steps=40)))
    assert report.quantized is not None
    assert report.quantized.attribution is None
    found = {finding.code: finding for finding in report.findings}
    assert "BN407" in found
    assert "BN408" not in found
    if "BN402" in found:
        assert "not roundings of the model's" in found["BN402"].message
        assert "scale a channel" not in found["BN402"].fix


def test_another_number_of_classes(tmp_path: Path, trained: Any) -> None:
    """Both counts are named, and no verdict is given on what it answers."""
    import keras

    head = keras.layers.Dense(7, name="seven")(trained.layers[-2].output)
    quantized = quantized_file(tmp_path / "q.tflite", keras.Model(trained.inputs, head))
    report = against(tmp_path, trained, quantized)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "it tells 7 classes, the model 10" in report.headline


def test_a_kernel_of_one_filter_has_a_scale_for_each_channel(tmp_path: Path, trained: Any) -> None:
    """Of a mask with one channel nobody says that its kernel shares one scale."""
    import keras

    mask = keras.layers.Conv2D(1, 3, padding="same", name="mask")(trained.get_layer("net_relu2").output)
    model = keras.Model(trained.inputs, mask)
    report = against(tmp_path, model, quantized_file(tmp_path / "q.tflite", model))
    assert report.quantized is not None
    per_channel = [operator.weight_per_channel for operator in report.quantized.operators if operator.weight_nmse]
    assert per_channel.count(None) == 1
    assert False not in per_channel
