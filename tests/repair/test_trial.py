"""New statistics on trial, on the genuine MobileNetV2 whose updates were forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bncheck.compare.prepared import Prepared, prepare
from bncheck.facts.repairs import Trial
from bncheck.repair.population import population
from bncheck.repair.splits import splits
from bncheck.repair.statistics import reestimated
from bncheck.repair.train_twin import open_train_twin
from bncheck.repair.trial import candidates, try_out
from bncheck.repair.trial_twins import Statistics, open_trial
from bncheck.settings.options import Options
from bncheck.sources import open_model

pytest.importorskip("sklearn")
from fixtures.digits import Digits, digits

pytestmark = pytest.mark.tensorflow
SOURCE = Path(__file__).parents[2] / "fixtures" / "mobilenet_v2" / "forgotten" / "model.ckpt-300"


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    """The checkpoint, ready to run."""
    return prepare(open_model(SOURCE), Options())


@pytest.fixture(scope="module")
def data() -> Digits:
    """Both splits."""
    return digits()


def _stored(prepared: Prepared) -> Statistics:
    return {
        layer.name: (layer.mean.values, layer.variance.values)
        for layer in prepared.facts.layers
        if layer.mean.values is not None and layer.variance.values is not None
    }


def _tried(
    prepared: Prepared, data: Digits, images: NDArray[np.float32], labels: NDArray[np.int64] | None
) -> tuple[Trial, float]:
    """(trial, accuracy of the copy on digits that it never saw)."""
    cuts = [(images[n : n + 32], None if labels is None else labels[n : n + 32]) for n in range(0, len(images), 32)]
    with open_train_twin(prepared.forward) as twin:
        found = population(twin, cuts)
        halves = splits(twin, cuts, found)
    new = [reestimated(layer, moments) for layer, moments in found.moments.items()]
    with open_trial(prepared.forward) as twins:
        tried = candidates(new, halves, _stored(prepared))
        trial = try_out(twins, tried, cuts, prepared.kinds, declared=None)
        place = next(n for n, out in enumerate(twins.train(data.test_images[:2])) if out.shape == (2, 10))
        answers = twins.with_statistics(data.test_images, tried.new)[place].argmax(axis=1)
    return trial, float(np.mean(answers == data.test_labels))


def test_labelled_samples_are_judged_by_the_other_half(prepared: Prepared, data: Digits) -> None:
    """64 digits settle it: what the trial says is what unseen digits say, to a few points."""
    trial, truth = _tried(prepared, data, data.train_images[:64], data.train_labels[:64])
    assert trial.accuracy_before is not None
    assert trial.accuracy_after is not None
    assert trial.halves_agreement is not None
    assert trial.accuracy_before < 0.3
    assert trial.accuracy_after == pytest.approx(truth, abs=0.06)
    assert 0.9 < trial.halves_agreement < truth + 0.05


def test_a_single_batch_is_cut_in_two(prepared: Prepared, data: Digits) -> None:
    """Eight digits make two halves of four, and those do not agree; the statistics are those of all eight."""
    trial, truth = _tried(prepared, data, data.train_images[:8], None)
    assert trial.halves_agreement is not None
    assert trial.halves_agreement < 0.95
    assert truth > trial.halves_agreement - 0.05
    assert (trial.labelled, trial.accuracy_after) == (0, None)


def test_one_image_has_no_halves(prepared: Prepared, data: Digits) -> None:
    """Nothing could confirm it."""
    trial, _ = _tried(prepared, data, data.train_images[:1], None)
    assert (trial.halves_agreement, trial.halves_error) == (None, None)


def test_what_is_recognised_is_surer_than_scrambled_pixels(prepared: Prepared, data: Digits) -> None:
    """Digits are; inverted ones, on which the net was not trained, are not."""
    right, _ = _tried(prepared, data, data.train_images[:32], None)
    inverted, _ = _tried(prepared, data, -data.train_images[:32], None)
    for trial, known in ((right, True), (inverted, False)):
        assert trial.entropy is not None
        assert trial.scrambled_entropy is not None
        assert (trial.entropy < 0.5 * trial.scrambled_entropy) is known
