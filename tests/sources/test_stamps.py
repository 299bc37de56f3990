"""Files that somebody writes while they are read, or repaired: read again, else named; never two models in one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import write_bundle
from keras_writer import batch_norm, bn_values, conv, h5_file, inputs, scoped, sequential

import bncheck
from bncheck.facts.errors import Unreadable
from bncheck.repair.write import destination
from bncheck.sources import open_model
from bncheck.sources.stamps import Stamps, changed, stamps


def bundle(folder: Path, seed: int = 0) -> Path:
    """A checkpoint whose values differ from seed to seed."""
    write_bundle(folder / "m", {f"bn/{name}": vector for name, vector in bn_values(64, seed).items()}, shards=2)
    return folder / "m"


def h5(folder: Path, seed: int = 0) -> Path:
    """A Keras file."""
    config = sequential(inputs("in"), conv("c"), batch_norm("bn"))
    return h5_file(folder / "m.h5", config, {"bn": scoped("bn", bn_values(64, seed))})


@pytest.mark.parametrize("make", [bundle, h5])
def test_stamps_tell_a_rewritten_file(tmp_path: Path, make: Callable[..., Path]) -> None:
    """The same while nobody writes; another once a file is written, even with the same bytes, or is gone."""
    path = make(tmp_path)
    before = stamps(path)
    assert len(before) == (3 if make is bundle else 1)
    assert changed(before, stamps(path)) is None
    (tmp_path / "m.txt").write_text("no part of it")
    assert changed(before, stamps(path)) is None
    file = max(before).path
    os.utime(file, ns=(1, 1))
    assert changed(before, stamps(path)) == file
    file.unlink()
    assert changed(before, stamps(path)) is not None


@pytest.mark.parametrize("make", [bundle, h5])
def test_a_source_that_changes_before_it_is_copied(tmp_path: Path, make: Callable[..., Path]) -> None:
    """A repair whose source was rewritten after it was read writes nothing and says so."""
    path = make(tmp_path)
    raw = open_model(path)
    key = next(key for key in raw.tensors if key.endswith("moving_mean"))
    out = tmp_path / "out"
    out.mkdir()
    place = destination(raw, out / path.name)
    time.sleep(0.01)
    make(tmp_path, 1)
    with pytest.raises(Unreadable, match="it changed during the repair"):
        place.write({key: np.full(64, 0.25)}, {}, "{}")
    assert not list(out.iterdir())


def test_a_checkpoint_that_is_rewritten_in_place_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that rests between two of its files looks damaged; once it is done, the report is of it."""
    path, pauses = bundle(tmp_path), []

    def finish(seconds: float) -> None:
        pauses.append(seconds)
        bundle(tmp_path, 1)

    torn(tmp_path, 1)
    monkeypatch.setattr("bncheck.commands.target.time.sleep", finish)
    report = bncheck.inspect_checkpoint(path)
    assert (report.verdict.value, len(pauses)) == ("pass", 1)
    np.testing.assert_array_equal(report.layers[0].mean.values, bn_values(64, 1)["moving_mean"])


def test_a_checkpoint_that_is_rewritten_without_end_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what happens."""
    path, seeds = bundle(tmp_path), iter(range(1, 100))

    def saved_after(path: Path) -> Stamps:
        found = stamps(path)
        torn(tmp_path, next(seeds))
        return found

    monkeypatch.setattr("bncheck.commands.target.stamps", saved_after)
    with pytest.raises(Unreadable, match="it changes while it is being read"):
        bncheck.inspect_checkpoint(path)


def torn(folder: Path, seed: int) -> None:
    """A save of which the index is written, and the values are not."""
    other = folder / "other"
    other.mkdir(exist_ok=True)
    bundle(other, seed)
    shutil.copy(other / "m.index", folder / "m.index")
