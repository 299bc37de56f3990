"""Repairs that must not be a pass: statistics that are not the fault, or data that are not the training's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digit_nets import digits, net, saved, train

from bncheck.commands.repair import repair
from bncheck.facts.repairs import RepairReport, RepairVerdict

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
FEW = 64


def repaired(folder: Path, model: Any, preprocess: str | None = None, **arrays: Any) -> RepairReport:
    """Of the saved model, from images and, where they are given, labels."""
    path, data = saved(folder, model)
    np.savez(data, **arrays)
    return repair(path, folder / "fixed.keras", data=data, compare=False, preprocess=preprocess)


def accuracy(model: Any, images: Any, labels: Any) -> float:
    """In eval mode."""
    return float(np.mean(np.asarray(model(images, training=False)).argmax(1) == labels))


def written(folder: Path) -> bool:
    """Whether anything was."""
    return bool(list(folder.glob("fixed*")))


@pytest.fixture(scope="module")
def in_eval_mode() -> Any:
    """Trained on the 0 and 1 that are stored."""
    return train(net(), training=False, steps=200)


@pytest.fixture(scope="module")
def forgotten() -> Any:
    """Trained in train mode, its averages as they were before."""
    model = train(net(blocks=3), steps=120)
    for layer in model.layers:
        if "_bn" in layer.name:
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma, beta, np.zeros_like(mean), np.ones_like(variance)])
    return model


@pytest.mark.parametrize("labelled", [True, False])
def test_stored_statistics_that_belong(labelled: bool, in_eval_mode: Any, tmp_path: Path) -> None:  # noqa: FBT001
    """By labels it is refused, since eval mode would get worse; without them nothing confirms it."""
    images, labels, unseen, theirs = digits()
    before = accuracy(in_eval_mode, unseen, theirs)
    report = repaired(tmp_path, in_eval_mode, images=images[:320], **({"labels": labels[:320]} if labelled else {}))
    assert before > 0.7
    assert report.verdict is (RepairVerdict.REFUSED if labelled else RepairVerdict.UNVERIFIED)
    assert report.exit_code == (1 if labelled else 3)
    assert written(tmp_path) is not labelled


def test_a_frozen_backbone_on_another_domain(tmp_path: Path) -> None:
    """A head trained on inverted digits over statistics of upright ones: those belong to its weights."""
    images, labels, _, _ = digits()
    model = train(net(), steps=120)
    for layer in model.layers[:-1]:
        layer.trainable = False
    train(model, steps=150, training=False, rate=3e-2, change=lambda some: -some)
    report = repaired(tmp_path, model, images=-images[:320], labels=labels[:320])
    assert report.verdict is RepairVerdict.REFUSED
    assert "belong to these weights" in report.judgement.reasons[0]
    assert not written(tmp_path)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("all", RepairVerdict.PASS),
        ("constant", RepairVerdict.REFUSED),
        ("noise", RepairVerdict.UNVERIFIED),
        ("one class", RepairVerdict.UNVERIFIED),
        ("one image", RepairVerdict.UNVERIFIED),
        ("0..1", RepairVerdict.UNVERIFIED),
    ],
)
def test_data_of_each_kind(name: str, verdict: RepairVerdict, forgotten: Any, tmp_path: Path) -> None:
    """The same model from data good and bad, labels with all of them."""
    images, labels, _, _ = digits()
    one = np.flatnonzero(labels == 3)[:FEW]
    made: dict[str, tuple[Any, Any]] = {
        "all": (images, labels),
        "constant": (np.full_like(images[:FEW], 0.5), labels[:FEW]),
        "noise": (np.random.default_rng(0).normal(size=images[:FEW].shape).astype(np.float32), labels[:FEW]),
        "one class": (images[one], labels[one]),
        "one image": (images[:1], labels[:1]),
        "0..1": ((images[:320] + 1) / 2, labels[:320]),
    }
    values, known = made[name]
    report = repaired(tmp_path, forgotten, images=values, labels=known)
    assert report.verdict is verdict
    assert report.exit_code == {RepairVerdict.PASS: 0, RepairVerdict.REFUSED: 1, RepairVerdict.UNVERIFIED: 3}[verdict]
    assert written(tmp_path) is (verdict is not RepairVerdict.REFUSED)


@pytest.mark.parametrize(("said", "verdict"), [("-1..1", RepairVerdict.UNVERIFIED), ("0..1", RepairVerdict.PASS)])
def test_a_range_that_is_said(said: str, verdict: RepairVerdict, forgotten: Any, tmp_path: Path) -> None:
    """Floating-point arrays stay as they are: who says -1..1 and gives 0..1 vouches for nothing."""
    images, labels, _, _ = digits()
    report = repaired(tmp_path, forgotten, said, images=(images[:320] + 1) / 2, labels=labels[:320])
    assert report.verdict is verdict


def test_padded_steps_make_no_statistics(tmp_path: Path) -> None:
    """The copy's statistics are those of the words, whatever is padded behind them, as Keras itself counts."""
    import keras

    random = np.random.default_rng(0)
    words = random.integers(1, 9, size=(96, 6)).astype(np.int32)
    words[np.arange(6) >= random.integers(2, 6, size=(96, 1))] = 0
    table = random.normal(size=(9, 4)).astype(np.float32)
    table[0] = 50.0
    entry = keras.Input((None,), dtype="int32")
    start = keras.initializers.Constant(table)
    embedded = keras.layers.Embedding(9, 4, mask_zero=True, embeddings_initializer=start)(entry)
    normalised = keras.layers.BatchNormalization(name="padded")(embedded)
    model = keras.Model(entry, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(normalised)))
    repaired(tmp_path, model, images=np.pad(words, ((0, 0), (0, 6))))
    layer = keras.models.load_model(tmp_path / "fixed.keras").get_layer("padded")
    real = table[words[words > 0]].astype(np.float64)
    np.testing.assert_allclose(np.asarray(layer.moving_mean), real.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(np.asarray(layer.moving_variance), real.var(axis=0), rtol=1e-3)
