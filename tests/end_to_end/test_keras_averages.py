"""Keras optimizers that average the weights (`use_ema`): the file serves one copy, which is named and repaired."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.commands.compare import compare_train_vs_eval
from bncheck.commands.inspect import inspect_model
from bncheck.commands.repair import repair
from bncheck.facts.errors import UsageError

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore:__array__ implementation")]
POINTS = 0.02
"""By how much a served copy may fall behind its train mode."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Keras 3, 60 steps with momentum 0.9999, so that the statistics are junk; saved within `fit` and after it."""
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("ema")
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    labels = random.integers(4, size=960)
    images = random.normal(5, 1, size=(960, 8, 8, 3)).astype(np.float32)
    images[np.arange(960), :, labels, 0] += 3
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3))])
    for channels in (8, 16):
        model.add(layers.Conv2D(channels, 3, use_bias=False))
        model.add(layers.BatchNormalization(momentum=0.9999))
        model.add(layers.ReLU())
    model.add(layers.Flatten())
    model.add(layers.Dense(4))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3, use_ema=True, ema_momentum=0.9), loss=loss)
    within = keras.callbacks.ModelCheckpoint(str(folder / "within.keras"))
    model.fit(images[:640], labels[:640], epochs=3, verbose=0, callbacks=[within])
    model.save(folder / "after.keras")
    np.savez(folder / "train.npz", images=images[:640], labels=labels[:640])
    return folder, {"images": images[640:], "labels": labels[640:]}


def _accuracy(path: Path, unseen: dict[str, Any], *, training: bool) -> float:
    import keras

    model = keras.models.load_model(path)
    parts = zip(np.split(unseen["images"], 10), np.split(unseen["labels"], 10), strict=True)
    return float(np.mean([np.asarray(model(x, training=training)).argmax(1) == y for x, y in parts]))


@pytest.mark.parametrize(("name", "weights"), [("after", "ema"), ("within", "raw")])
def test_what_is_served_is_named_and_repaired(
    name: str, weights: str, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Junk before; loaded by plain Keras after, within 2 points of train mode."""
    folder, unseen = trained
    source, train_mode = folder / f"{name}.keras", _accuracy(folder / f"{name}.keras", unseen, training=True)
    assert _accuracy(source, unseen, training=False) < train_mode - 0.2
    notes = " ".join(inspect_model(source).target.notes)
    assert ("are the averages" if weights == "ema" else "serves the raw weights") in notes
    report = repair(source, tmp_path / "fixed.keras", data=folder / "train.npz", weights=weights)
    assert _accuracy(Path(report.output), unseen, training=False) >= train_mode - POINTS
    told = " ".join(report.after.target.notes)
    assert ("are the averages" if weights == "ema" else "serves the raw weights") in told


@pytest.mark.parametrize(("name", "weights"), [("after", "raw"), ("within", "ema")])
def test_the_other_copy_is_not_in_the_file(name: str, weights: str, trained: tuple[Path, dict[str, Any]]) -> None:
    """It is refused with how to get it, before anything is run."""
    folder, _ = trained
    for run in (compare_train_vs_eval, lambda path, **options: repair(path, folder / "no.keras", **options)):
        with pytest.raises(UsageError, match="holds no such model"):
            run(folder / f"{name}.keras", data=folder / "train.npz", weights=weights)
