"""Layers that stand in several places: judged by what reaches all of them, told of where one place differs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bncheck
from bncheck.compare.shared_layers import batch_moments, shared
from bncheck.facts.findings import Severity, Verdict
from bncheck.numerics.divergence import diverging, each_layer
from bncheck.rules.modes import bn302_layer_diverges
from bncheck.rules.shared.modes import torn
from bncheck.testing import batch_norm, classes_compared, compared, difference

MEANS = np.array([0.0, 0.0, 0.0, 0.0])


def place(shift: float, ratio: float = 0.0, local: float = 0.5) -> Any:
    """One place of a layer whose stored mean is 0 and variance 1."""
    return difference("a", local=local, mean_shift=np.full(4, shift), log_variance_ratio=np.full(4, ratio))


LAYER = batch_norm("a", mean=0.0, variance=[1.0, 1.0, 1.0, 1.0], epsilon=0.0)


def test_moments_come_back_from_differences() -> None:
    """`shift` and `ratio` against stored mean 2 and variance 4."""
    layer = batch_norm("a", mean=2.0, variance=[4.0, 4.0, 4.0, 4.0], epsilon=0.0)
    found = batch_moments(place(0.5, np.log(9.0)), layer)
    assert found is not None
    np.testing.assert_allclose(found.mean, 3.0)
    np.testing.assert_allclose(found.variance, 36.0)


@pytest.mark.parametrize(("ratio", "spread"), [(0.0, "average"), (np.log(0.75), "population")])
def test_either_way_to_share_statistics_is_right(ratio: float, spread: str) -> None:
    """Half a deviation to either side: the mean of the variances is 1 as training stores it, or with the spread."""
    (found,) = shared([place(-0.5, ratio), place(0.5, ratio)], [LAYER])
    assert found.local_nmse == pytest.approx(0, abs=1e-12), spread
    np.testing.assert_allclose(found.mean_shift, 0, atol=1e-12)


def test_wrong_statistics_stay_wrong() -> None:
    """Both places are off to one side; a layer in one place is not shared."""
    (found,) = shared([place(0.5), place(0.5), difference("b")], [LAYER, batch_norm("b")])
    np.testing.assert_allclose(found.mean_shift, 0.5)
    assert found.local_nmse > 0.2


@pytest.mark.parametrize(("agreement", "severity"), [(0.95, Severity.INFO), (0.3, Severity.ERROR)])
def test_places_that_differ_are_a_note_or_the_cause(agreement: float, severity: Severity) -> None:
    """Nothing else is wrong: what tears the layer is told, as an error where the output is junk for it."""
    places = (place(-0.5, local=0.25), place(0.5, local=0.25))
    model = compared(*places, difference("b"), output=classes_compared(agreement), shared=shared(places, [LAYER]))
    assert model.comparison is not None
    assert [layer.layer for layer in each_layer(model.comparison)] == ["a", "b"]
    assert not diverging(model.comparison)
    assert list(torn(model.comparison)) == ["a"]
    (found,) = bn302_layer_diverges.check.check(model)
    assert found.severity is severity
    assert found.message.startswith("a serves 2 places whose data differ")


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_siamese_network(tmp_path: Path) -> None:
    """Twins on bright and on dark halves: healthy passes, without a warning; with other statistics it fails."""
    keras = importlib.import_module("keras")
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).normal(0, 1, (96, 8, 8, 3)).astype(np.float32)
    images[:, :, 4:] += 0.1
    layers = keras.layers
    entry = keras.Input((8, 8, 3))
    conv, norm = layers.Conv2D(8, 3, use_bias=False), layers.BatchNormalization(momentum=0.8, name="shared")
    halves = [entry[:, :, :4], entry[:, :, 4:]]
    twins = [layers.Flatten()(layers.ReLU()(norm(conv(half)))) for half in halves]
    model = keras.Model(entry, layers.Dense(4)(layers.Concatenate()(twins)))
    for _ in range(12):
        for start in range(0, 96, 32):
            model(images[start : start + 32], training=True)
    np.savez(tmp_path / "data.npz", images=images)
    model.save(tmp_path / "healthy.keras")
    report = bncheck.compare_train_vs_eval(tmp_path / "healthy.keras", data=tmp_path / "data.npz")
    assert report.comparison is not None
    assert len(report.comparison.layers) == 2
    assert report.verdict is Verdict.PASS
    assert not [f for f in report.findings if f.severity is not Severity.INFO]
    norm.moving_variance.assign(norm.moving_variance * 9)
    model.save(tmp_path / "broken.keras")
    report = bncheck.compare_train_vs_eval(tmp_path / "broken.keras", data=tmp_path / "data.npz")
    assert [f.layers for f in report.findings if f.code == "BN302"] == [("shared",)]
