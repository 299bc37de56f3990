"""Names of a Keras file's layers for those of the graph that Keras makes of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import bncheck
from bncheck.compare.twins.keras_model import named_as_in
from bncheck.testing import batch_norm


def test_a_layer_called_twice_keeps_its_name() -> None:
    """In the frozen graph each call has constants of its own, with the same numbers: one layer, two places."""
    file = (batch_norm("encoder/bn", variance=[1.5, 0.5, 0.3, 2.0]), batch_norm("bn", variance=0.7))
    graph = (
        batch_norm("model/encoder/bn/Cast", variance=[1.5, 0.5, 0.3, 2.0]),
        batch_norm("model/encoder/bn_1/Cast", variance=[1.5, 0.5, 0.3, 2.0]),
        batch_norm("model/bn/Cast", variance=0.7),
        batch_norm("model/other/Cast", variance=9.0),
    )
    assert [layer.name for layer in named_as_in(file, graph)] == ["encoder/bn", "encoder/bn", "bn", "model/other/Cast"]


def test_layers_with_the_same_numbers_are_told_by_their_order() -> None:
    """As where nothing ever moved."""
    file = (batch_norm("first"), batch_norm("second"))
    graph = (batch_norm("a"), batch_norm("b"))
    assert [layer.name for layer in named_as_in(file, graph)] == ["first", "second"]


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_training_true_in_the_calls_of_tf_keras(tmp_path: Path, ending: str) -> None:
    """The calls write their averages in the forward pass, fused or not: told (BN205), and compared all the same."""
    keras = pytest.importorskip("tf_keras")
    entry = keras.Input((6, 6, 3))
    net = keras.layers.Conv2D(5, 3)(entry)
    net = keras.layers.BatchNormalization(name="fused")(net, training=True)
    net = keras.layers.Dense(7, use_bias=False)(keras.layers.Flatten()(net))
    net = keras.layers.BatchNormalization(name="by_moments")(net, training=True)
    model = keras.Model(entry, keras.layers.Dense(3)(net))
    for name in ("fused", "by_moments"):
        gamma, beta, mean, variance = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([gamma, beta, mean + 4.0, variance * 9.0])
    images = np.random.default_rng(0).normal(size=(64, 6, 6, 3)).astype(np.float32)
    model.save(tmp_path / f"model.{ending}")
    np.save(tmp_path / "images.npy", images)
    report = bncheck.compare_train_vs_eval(tmp_path / f"model.{ending}", data=tmp_path / "images.npy")
    assert "BN205" in {finding.code for finding in report.findings}
    assert report.comparison is not None
    first, second = report.comparison.layers
    assert (first.layer, second.layer) == ("fused", "by_moments")
    convolved = model.layers[1](images).numpy()
    shift = (convolved.mean(axis=(0, 1, 2)) - 4.0) / math.sqrt(9.0 + 1e-3)
    np.testing.assert_allclose(first.mean_shift, shift, atol=1e-4)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3 and numpy 2
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_padding_is_left_out_of_the_batch_statistics(tmp_path: Path, package: str) -> None:
    """As Keras itself does: with momentum 0 what it stores of a batch are the statistics of that batch, unpadded."""
    keras = pytest.importorskip(package)
    words = np.random.default_rng(0).integers(1, 9, size=(48, 6))
    words[np.arange(6) >= np.random.default_rng(1).integers(1, 6, size=(48, 1))] = 0
    entry = keras.Input((6,), dtype="int32")
    net = keras.layers.Embedding(9, 4, mask_zero=True, embeddings_initializer="random_normal")(entry)
    net = keras.layers.BatchNormalization(momentum=0.0, name="padded")(net)
    net = keras.layers.Dense(5)(net)
    net = keras.layers.BatchNormalization(momentum=0.0, name="behind")(net)
    model = keras.Model(entry, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(net)))
    model(words, training=True)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "words.npy", words.astype(np.int32))
    report = bncheck.compare_train_vs_eval(tmp_path / "model.keras", data=tmp_path / "words.npy", batch_size=48)
    assert report.comparison is not None
    assert [layer.layer for layer in report.comparison.layers] == ["padded", "behind"]
    for layer in report.comparison.layers:
        assert layer.samples == np.count_nonzero(words)
        np.testing.assert_allclose(layer.mean_shift, 0.0, atol=1e-4)
        np.testing.assert_allclose(layer.log_variance_ratio, 0.0, atol=1e-3)


@pytest.mark.tensorflow
def test_padded_steps_do_not_arrive(tmp_path: Path) -> None:
    """Twice as much padding, of a vector that is far off, changes nothing of the error that arrives at a layer."""
    keras = pytest.importorskip("tf_keras")
    random = np.random.default_rng(0)
    table = random.normal(size=(9, 4)).astype(np.float32)
    table[0] = 50.0
    words = random.integers(1, 9, size=(48, 6)).astype(np.int32)
    words[np.arange(6) >= random.integers(2, 6, size=(48, 1))] = 0
    entry = keras.Input((None,), dtype="int32")
    net = keras.layers.Embedding(9, 4, mask_zero=True, embeddings_initializer=keras.initializers.Constant(table))(entry)
    net = keras.layers.BatchNormalization(name="padded", moving_variance_initializer=keras.initializers.Constant(4.0))(
        net
    )
    net = keras.layers.Dense(5)(net)
    net = keras.layers.BatchNormalization(name="behind")(net)
    model = keras.Model(entry, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(net)))
    model.save(tmp_path / "model.keras")
    arrived = []
    for steps in (6, 12):
        np.save(tmp_path / "words.npy", np.pad(words, ((0, 0), (0, steps - 6))))
        report = bncheck.compare_train_vs_eval(tmp_path / "model.keras", data=tmp_path / "words.npy", batch_size=48)
        assert report.comparison is not None
        arrived.append([layer.cumulative_nmse for layer in report.comparison.layers])
    assert arrived[0] == pytest.approx(arrived[1], rel=1e-4)
    assert min(arrived[0]) > 0.05
