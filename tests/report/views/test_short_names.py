"""Names in tables: short, and never two alike that were different."""

from __future__ import annotations

import pytest
from formats import document, written
from hypothesis import given
from hypothesis import strategies as st

from bncheck.judge.judge import judge
from bncheck.report.text.layout import cells
from bncheck.report.views.short_names import shortened, told_apart
from bncheck.testing import batch_norm, classes_compared, compared, difference, facts


@pytest.mark.parametrize(
    ("names", "title", "shown"),
    [
        (["net/a/bn", "net/b/bn"], "net/…/bn", ["a", "b"]),
        (["net/a/bn", "net/b/c/bn"], "net/…/bn", ["a", "b/c"]),
        (["net/a", "net/a/bn"], "net/…", ["a", "a/bn"]),
        (["a/bn", "b/bn", "bn"], "layer", ["a/bn", "b/bn", "bn"]),
        (["net/a/bn"], "layer", ["net/a/bn"]),
        (["net/a/bn", "net/a/bn"], "layer", ["net/a/bn", "net/a/bn"]),
        ([], "layer", []),
    ],
)
def test_shared_scopes_stand_in_the_title(names: list[str], title: str, shown: list[str]) -> None:
    """What all names begin and end with is told once; at least one part of each stays."""
    found, short = shortened(names)
    assert (found, [short[name] for name in names]) == (title, shown)


@given(st.lists(st.lists(st.sampled_from(["a", "b", "bn", ""]), min_size=1, max_size=5).map("/".join), unique=True))
def test_different_names_stay_different(names: list[str]) -> None:
    """Whatever scopes they share."""
    title, short = shortened(names)
    assert len(set(short.values())) == len(names)
    if title != "layer":
        before, _, after = title.partition("…")
        assert all(before + short[name] + after == name for name in names)


def test_deep_names_at_80_columns() -> None:
    """One line a layer, though its name is nearly as wide; all that is the same is told once. JSON has it all."""
    scopes = "FeatureExtractor/InceptionV3/InceptionV3"
    names = [f"{scopes}/Mixed_{n}/Branch_1/Conv2d_0b_3x3/BatchNorm" for n in range(9)]
    report = judge(facts(*(batch_norm(name, decay=0.9) for name in names)))
    lines = written(report, verbose=True).splitlines()
    assert max(map(cells, lines)) <= 80
    assert f"{scopes}/…/Branch_1/Conv2d_0b_3x3/BatchNorm" in lines
    assert [line.split()[0] for line in lines if line.startswith("Mixed_")] == [f"Mixed_{n}" for n in range(9)]
    assert [layer["name"] for layer in document(report)["layers"]] == names


def test_names_get_the_room_of_the_heads() -> None:
    """Measured layers take one line each at 80 columns: the heads of the numbers go on two lines for that."""
    layers = [difference(f"MobilenetV2/expanded_conv_{n}/depthwise/BatchNorm", local=0.3) for n in range(1, 6)]
    layers += [difference(f"MobilenetV2/expanded_conv_{n}/project/BatchNorm", local=0.3) for n in range(1, 4)]
    lines = written(judge(compared(*layers, output=classes_compared(0.4), accuracy=(0.95, 0.4)))).splitlines()
    assert max(map(cells, lines)) <= 80
    (units,) = [n for n, line in enumerate(lines) if line.split()[-5:] == ["error", "noise", "error", "shift", "ratio"]]
    assert lines[units - 1].split()[-5:] == ["local", "batch", "total", "mean", "var"]
    assert [line.split()[0] for line in lines[units + 1 : units + 5]] == [
        name.layer.removeprefix("MobilenetV2/").removesuffix("/BatchNorm") for name in layers[:4]
    ]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a/model.ckpt-300"], ["model.ckpt-300"]),
        (["a/m.keras", "b/n.keras"], ["m.keras", "n.keras"]),
        (["x/forgotten/m", "x/wired/m"], ["forgotten/m", "wired/m"]),
        (["m", "x/m"], ["m", "x/m"]),
        (["x/m", "x/m"], ["m", "m"]),
        ([""], [""]),
    ],
)
def test_told_apart(paths: list[str], names: list[str]) -> None:
    """As many folders as it takes, and no more."""
    assert list(told_apart(paths)) == names
