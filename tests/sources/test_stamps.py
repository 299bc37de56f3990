"""Files that somebody writes while they are read, or repaired: read again, else named; never two models in one."""

from __future__ import annotations

import os
import threading
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
from bncheck.sources.stamps import changed, stamps


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


def test_a_checkpoint_that_is_rewritten_in_place_is_never_called_damaged(tmp_path: Path) -> None:
    """While a trainer saves over the same prefix, reports are of one save, or the error says what happens."""
    path = bundle(tmp_path)
    stop = threading.Event()

    def save() -> None:
        seed = 0
        while not stop.is_set():
            seed += 1
            bundle(tmp_path, seed % 5)
            stop.wait(0.02)

    saver = threading.Thread(target=save)
    saver.start()
    outcomes = set()
    try:
        for _ in range(6):
            try:
                outcomes.add(bncheck.inspect_checkpoint(path).verdict.value)
            except Unreadable as error:
                outcomes.add(error.reason)
    finally:
        stop.set()
        saver.join()
    assert outcomes <= {"pass", "it changes while it is being read"}
    assert bncheck.inspect_checkpoint(path).verdict.value == "pass"
