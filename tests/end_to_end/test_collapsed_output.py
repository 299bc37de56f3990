"""A real MobileNetV2 that one scale for each kernel ruins (arXiv 1806.08342): told from made-up data already."""

from __future__ import annotations

from pathlib import Path

import pytest

import bncheck

NSFWJS = Path(__file__).parents[3] / "shared" / "real" / "nsfwjs_mobilenetv2.npz"


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.skipif(not NSFWJS.exists(), reason="needs the folder shared/real beside the repository")
@pytest.mark.parametrize(("scheme", "collapses"), [("int8-per-tensor", True), ("int8", False)])
def test_a_collapse_on_noise_is_a_warning(scheme: str, *, collapses: bool) -> None:
    """Off by more than its own signal, on the noise that it was calibrated on; with a scale a channel it is not."""
    report = bncheck.compare_float_vs_quantized(
        NSFWJS,
        model="mobilenet_v2:num_classes=0,image_size=96",
        data="synthetic",
        scheme=scheme,
        batches=2,
        batch_size=8,
    )
    found = [(f.severity.value, f.confidence.value) for f in report.findings if f.code == "BN401"]
    assert found == ([("warning", "medium")] if collapses else [])
    assert report.exit_code == 3
