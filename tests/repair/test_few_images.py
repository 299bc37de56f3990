"""Statistics of few images, shrunk towards those of made-up pictures."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bncheck.facts.repairs import RepairVerdict
from bncheck.numerics.moments import Moments
from bncheck.repair import repair
from bncheck.repair.few_images import FEW, of_pictures, pictures_for
from bncheck.repair.population import PooledMoments, population
from bncheck.repair.splits import splits

FIXTURES = Path(__file__).parents[2] / "fixtures" / "mobilenet_v2"


class Pixels:
    """A model of one site: the image itself."""

    layers = ("first",)

    def run(self, batch: NDArray[Any]) -> PooledMoments:
        """Moments over all but the channels."""
        axes = (0, 1, 2)
        return PooledMoments(
            samples=[batch[..., 0].size], means=[batch.mean(axis=axes)], variances=[batch.var(axis=axes)]
        )


def images(count: int) -> NDArray[np.float32]:
    """Of mean 0.5 and small contrast, far from that of the pictures."""
    made = np.random.default_rng(1).normal(0.5, 0.1, (count, 16, 16, 3))
    return np.clip(made, -1, 1).astype(np.float32)


def mixture(own: Moments, other: Moments, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of `own` with a share of `other` in it."""
    mean = (1 - share) * own.mean + share * other.mean
    between = share * (1 - share) * (own.mean - other.mean) ** 2
    return mean, (1 - share) * own.variance + share * other.variance + between


def test_pictures_count_as_one_image_more() -> None:
    """Of four images the pictures make 6 of each batch of 32: a fifth."""
    few = images(4)
    found = population(Pixels(), [(few, None)])
    own, other = found.moments["first"], of_pictures(Pixels(), (16, 16, 3), float(few.min()), float(few.max()))["first"]
    pictures = pictures_for(Pixels(), few)
    assert pictures is not None
    mixed = pictures.mixed(few, found.moments)
    mean, variance = mixture(own, other, 6 / 32)
    np.testing.assert_allclose(mixed["first"].mean, mean, atol=0.04)
    np.testing.assert_allclose(mixed["first"].variance, variance, rtol=0.25)
    assert mixed["first"].count == own.count


def test_only_few_images_are_mixed() -> None:
    """Not many, no sequences, no bytes, no constant, none of a few pixels."""
    assert pictures_for(Pixels(), images(FEW - 1)) is not None
    assert pictures_for(Pixels(), images(FEW)) is None
    assert pictures_for(Pixels(), images(4)[:, :, 0]) is None
    assert pictures_for(Pixels(), (images(4) * 100).astype(np.uint8)) is None
    assert pictures_for(Pixels(), np.full((4, 16, 16, 3), 0.5, np.float32)) is None
    assert pictures_for(Pixels(), images(4)[:, :4]) is None


def test_halves_on_trial_are_mixed_as_the_copy_is() -> None:
    """Each half of 16 images takes an eighth of pictures, so that what is tried is what would be written of it."""
    few = images(16)
    found = population(Pixels(), [(few, None)])
    pictures = pictures_for(Pixels(), few)
    assert pictures is not None
    plain, tried = splits(Pixels(), [(few, None)], found), splits(Pixels(), [(few, None)], found, pictures.mixed)
    assert len(plain) == len(tried) > 1
    for before, after in zip(plain, tried, strict=True):
        for half, own in ((after.first, before.first), (after.second, before.second)):
            made = population(Pixels(), [(pictures.images[:24], None)]).moments["first"]
            _, expected = mixture(own["first"], made, 4 / 32)
            np.testing.assert_allclose(half["first"].variance, expected, rtol=0.25)
            assert np.all(half["first"].variance > 1.2 * own["first"].variance)


@pytest.fixture(scope="module")
def digits() -> Any:
    """Scikit-learn's digits as the fixtures were trained on."""
    from fixtures.digits import digits as made

    return made()


@pytest.mark.tensorflow
def test_four_digits_and_none(digits: Any, tmp_path: Path) -> None:
    """MobileNetV2 with forgotten updates: above 85 % from four images, 70 % from none, and neither is a pass."""
    from fixtures.make_mobilenet_v2 import accuracy

    source = FIXTURES / "forgotten" / "model.ckpt-300"
    order = np.random.default_rng(300).permutation(len(digits.train_images))[:4]
    np.savez(tmp_path / "few.npz", images=digits.train_images[order])
    few = repair(source, tmp_path / "few", data=tmp_path / "few.npz", compare=False)
    rescued = repair(source, tmp_path / "rescued", rescue=True, compare=False)
    assert few.verdict is rescued.verdict is RepairVerdict.UNVERIFIED
    assert any("made-up pictures" in note for note in few.notes)
    assert len(rescued.repaired) == 52
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own
        assert accuracy(str(tmp_path / "few"), digits, is_training=False) > 0.85
        assert accuracy(str(tmp_path / "rescued"), digits, is_training=False) > 0.7
