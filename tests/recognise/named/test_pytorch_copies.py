"""Models and averages of their weights in one PyTorch file: who is whose copy, and buffers that stayed behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pytorch_writer import batch_norm, state_of, write_archive

import bncheck
from bncheck.facts.layers import Facts
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources import open_model

LAYERS, CHANNELS = 4, 16

Arrays = dict[str, np.ndarray]


def net(seed: int, *, scale: float = 1.0) -> Arrays:
    """Convolutions with batch norm, all variances times a factor."""
    arrays: Arrays = {}
    for n in range(LAYERS):
        kernel = np.random.default_rng(n).normal(size=(CHANNELS, 3, 3, 3))
        noise = np.random.default_rng((seed, n)).normal(size=kernel.shape)
        arrays[f"{n}.conv.weight"] = (kernel + 0.01 * seed * noise).astype("f4")
        arrays |= batch_norm(f"{n}.bn", CHANNELS)
        arrays[f"{n}.bn.running_var"] = (arrays[f"{n}.bn.running_var"] * scale).astype("f4")
    return arrays


def saved(path: Path, **models: Arrays) -> Path:
    """Several state dicts in one file."""
    arrays = {f"{place}/{name}": array for place, of_place in models.items() for name, array in of_place.items()}
    state = state_of(arrays)
    nested = {place: {name: state[f"{place}/{name}"] for name in of_place} for place, of_place in models.items()}
    return write_archive(path, nested, {str(n): array.tobytes() for n, array in enumerate(arrays.values())})


def facts(path: Path) -> Facts:
    """What is recognised."""
    return recognise(open_model(path), Options())


@pytest.mark.parametrize("average", ["ema", "state_dict_ema", "swa_model", "EMAModel"])
def test_copies(tmp_path: Path, average: str) -> None:
    """Each layer of the average knows its source, behind wrappers too, and how near the kernels are."""
    wrapped = {f"module.{name}": array for name, array in net(0).items()}
    found = facts(saved(tmp_path / "m.pt", model=wrapped, **{average: net(1)})).layers
    copies = [layer.copied for layer in found if layer.name.startswith(average)]
    assert [copied.source for copied in copies if copied] == [f"model/module.{n}.bn" for n in range(LAYERS)]
    assert all(copied.averaged and copied.statistics for copied in copies if copied)
    assert [copied.kernel_apart for copied in copies if copied] == [pytest.approx(0.01, rel=0.2)] * LAYERS
    assert all(layer.copied is None for layer in found if layer.name.startswith("model"))


@pytest.mark.parametrize("other", ["teacher", "semantic", "schema_net"])
def test_two_models_are_no_copies(tmp_path: Path, other: str) -> None:
    """Whatever letters their names hold; nor is an average by itself."""
    found = facts(saved(tmp_path / "m.pt", model=net(0), **{other: net(1)})).layers
    assert [layer.copied for layer in found] == [None] * 2 * LAYERS
    assert [layer.copied for layer in facts(saved(tmp_path / "e.pt", ema=net(0))).layers] == [None] * LAYERS


@pytest.mark.parametrize(("seed", "scale", "codes"), [(1, 1.5, ["BN114"]), (1, 1.05, []), (9, 1.5, []), (0, 1.5, [])])
def test_buffers_that_stayed_behind(tmp_path: Path, seed: int, scale: float, codes: list[str]) -> None:
    """Where the weights are near; not where both are, or weights are far too, or are no average."""
    report = bncheck.inspect_model(saved(tmp_path / "m.pt", model=net(0), ema=net(seed, scale=scale)))
    assert [finding.code for finding in report.findings] == codes
    assert all(finding.layers == tuple(f"ema/{n}.bn" for n in range(LAYERS)) for finding in report.findings)
