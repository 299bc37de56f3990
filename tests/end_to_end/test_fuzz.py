"""The fuzz harness: its changes are the same each time and reach where they aim, its watch sees, and nothing breaks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from bundle_writer import write_bundle
from keras_writer import bn_values

from bncheck.facts.errors import BadChecksum
from bncheck.sources.bundle.checkpoint import read_checkpoint
from tests.fuzz import __main__ as fuzz
from tests.fuzz import cases, changes

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of memory")


@pytest.mark.parametrize("each", [20, pytest.param(2000, marks=pytest.mark.slow)])
def test_every_format(each: int) -> None:
    """Reports or named errors alone, within the limits of time and memory; the formats together know both."""
    by_format = {name: fuzz.outcomes(name, 0, each) for name in cases.AIMED}
    told = [outcome for found in by_format.values() for outcome in found.values()]
    assert len(told) == each * len(cases.AIMED)
    assert not [outcome for outcome in told if outcome.startswith("bug")], fuzz.table(by_format)
    assert told.count("report") > each
    assert sum(outcome.startswith("error ") for outcome in told) > each


def test_changes_are_the_same_each_time(tmp_path: Path) -> None:
    """A case can be repeated by its number; changed indexes keep valid checksums, so that what is behind is reached."""
    index = write_bundle(tmp_path / "m", {f"bn/{name}": vector for name, vector in bn_values().items()})
    content = index.read_bytes()
    made = [changes.bundle_index(content, random.Random(number)) for number in range(60)]  # noqa: S311 - reproducible
    assert made == [changes.bundle_index(content, random.Random(number)) for number in range(60)]  # noqa: S311 - same
    assert len(set(made)) > 40
    for changed in made:
        index.write_bytes(changed)
        try:
            read_checkpoint(tmp_path / "m")
        except BadChecksum as error:
            pytest.fail(f"the index does not hold its own checksum: {error}")
        except Exception as error:  # noqa: BLE001 - what it holds is damaged on purpose
            assert "m" in str(error)  # noqa: PT017 - as above


def test_the_watch_sees(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A case that hangs, one that fills memory, one of no name and an error without a path are failures."""
    file = tmp_path / "f"
    file.write_bytes(b"x")

    def hangs(_: str) -> None:
        while True:
            pass

    def fills(_: str) -> None:
        bytearray(b"1") * (600 << 20)
        raise cases.BncheckError(f"{tmp_path.name}: named")

    def crashes(_: str) -> None:
        raise ZeroDivisionError

    def unnamed(_: str) -> None:
        raise cases.BncheckError("something is wrong")

    monkeypatch.setattr(cases, "SECONDS", 0.1)
    before = cases.signal.signal(cases.signal.SIGPROF, cases._stop)
    says = {hangs: "took 0.", crashes: "ZeroDivisionError", unnamed: "says 'something is wrong'"}
    try:
        for inspect, expected in says.items():
            kind = cases.Kind(examples=list, inspect=inspect, damaged=())  # type: ignore[arg-type] # it never returns
            told = cases._judged(kind, str(file), file, "example")
            assert told.startswith("bug")
            assert expected in told
        monkeypatch.setattr(cases, "SECONDS", 5.0)
        kind = cases.Kind(examples=list, inspect=fills, damaged=())  # type: ignore[arg-type] # as above
        assert "MiB" in cases._judged(kind, str(file), file, "example")
    finally:
        cases.signal.signal(cases.signal.SIGPROF, before)
