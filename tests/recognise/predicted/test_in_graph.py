"""Means predicted along a graph, on models that were trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bncheck.facts.layers import Facts
from bncheck.numerics.agreement import agreement
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources import open_model

FIXTURES = Path(__file__).parents[3] / "fixtures"
REAL = Path(__file__).parents[4] / "shared" / "real"


def read(path: Path) -> Facts:
    """Facts of a file."""
    return recognise(open_model(path), Options())


def test_mobilenet_v2() -> None:
    """All layers, the first with three means fitted: stored means correlate by 0.85 and more, 0.97 in the median."""
    found = [agreement(layer) for layer in read(FIXTURES / "mobilenet_v2" / "wired" / "model.ckpt-300").layers]
    known = [one for one in found if one is not None]
    assert len(known) == 52
    assert min(one.correlation for one in known) > 0.85
    assert np.median([one.correlation for one in known]) > 0.97
    assert max(one.error for one in known) < 0.35


def test_nothing_is_predicted_where_nothing_moved() -> None:
    """Of statistics that are still initial everything is said already."""
    layers = read(FIXTURES / "mobilenet_v2" / "forgotten" / "model.ckpt-300").layers
    assert all(layer.predicted is None for layer in layers)


@pytest.mark.skipif(not REAL.exists(), reason="the public models are not beside this checkout")
@pytest.mark.parametrize(("model", "layers"), [("chiron_dna", 8), ("mlperf_tiny_kws/kws_ref_model", 8)])
def test_public_models(model: str, layers: int) -> None:
    """A recurrent net's convolutions in a checkpoint, and a SavedModel of Keras: functions, depthwise kernels."""
    found = [one for layer in read(REAL / model).layers if (one := agreement(layer)) is not None]
    assert len(found) == layers
    assert min(one.correlation for one in found) > 0.8
