"""The data-free forecast of what 8-bit weights cost each layer, against what conversion then measures.

python -m tests.bench.forecast [FOLDER_OF_REAL_MODELS]

Three models: MobileNetV2 0.35 on digits (a fixture), MobileNetV1 VWW and NSFWJS' MobileNetV2 (real ones, left out where
the folder is not there). Each is quantized with one scale a kernel and with one a channel. Rank correlations (Spearman)
over the layers of each model and of all together: of the kernel's own error, which is what is forecast, and of the
operator's output, in which the rounding of activations is measured too, that no file tells beforehand. Budget: above
0.8 for the kernels of all layers together.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bncheck
from bncheck.facts.findings import Report
from bncheck.facts.ratios import sqnr_db
from bncheck.numerics.fold_forecast import forecast
from tests.bench._measure import REPOSITORY, table

REAL = REPOSITORY.parent / "shared" / "real"
SCHEMES = ("int8-per-tensor", "int8")


@dataclass(frozen=True, kw_only=True)
class Model:
    """What to quantize, and on what."""

    name: str
    path: Path
    data: Path
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """Of the layers of a model: (forecast, measured) NMSE of the kernel and of the output."""

    kernel: NDArray[np.float64]
    output: NDArray[np.float64]
    loss: float
    """Measured at the model's output, NMSE."""
    together: float
    """Sum of the forecasts of all layers' outputs."""


def main(real: Path = REAL) -> None:
    """Prints one table a scheme."""
    with tempfile.TemporaryDirectory() as folder:
        models = list(_models(Path(folder), real))
        for scheme in SCHEMES:
            found = {model.name: _layers(_quantized(model, scheme), scheme) for model in models}
            rows = [_row(name, layers) for name, layers in found.items()]
            print()
            head = (scheme, "layers", "kernels", "outputs", "forecast dB", "measured dB")
            table(head, [*rows, _all(list(found.values()))])


def _row(name: str, layers: Layers) -> tuple[str, ...]:
    ranks = (f"{rank_correlation(*part.T):.3f}" for part in (layers.kernel, layers.output))
    return name, str(len(layers.kernel)), *ranks, f"{sqnr_db(layers.together):.1f}", f"{sqnr_db(layers.loss):.1f}"


def _all(found: list[Layers]) -> tuple[str, ...]:
    kernels, outputs = (np.concatenate([getattr(one, part) for one in found]) for part in ("kernel", "output"))
    ranks = (f"{rank_correlation(*part.T):.3f}" for part in (kernels, outputs))
    return "all layers", str(len(kernels)), *ranks, "", ""


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's, of numbers without ties."""
    ranks = (np.argsort(np.argsort(values)).astype(np.float64) for values in (one, other))
    return float(np.corrcoef(*ranks)[0, 1])


def _quantized(model: Model, scheme: str) -> Report:
    return bncheck.compare_float_vs_quantized(model.path, data=model.data, scheme=scheme, **model.options)


def _layers(report: Report, scheme: str) -> Layers:
    assert report.quantized is not None
    measured = {operator.layer: operator for operator in report.quantized.operators if operator.layer is not None}
    kernels, outputs, together = [], [], 0.0
    for layer in report.layers:
        told, operator = forecast(layer), measured.get(layer.name)
        if told is None or operator is None or operator.weight_nmse is None:
            print(f"left out: {layer.name}")
            continue
        shared = scheme == "int8-per-tensor"
        kernels.append((told.kernel_per_tensor if shared else told.kernel_per_channel, operator.weight_nmse))
        output = told.per_tensor if shared else told.per_channel
        outputs.append((output, operator.local_nmse))
        together += output
    return Layers(
        kernel=np.array(kernels),
        output=np.array(outputs),
        loss=report.quantized.outputs[0].nmse,
        together=together,
    )


def _models(folder: Path, real: Path) -> Iterator[Model]:
    from fixtures.digits import digits

    np.savez(folder / "digits.npz", images=digits().test_images[:128])
    yield Model(
        name="MobileNetV2 0.35, digits",
        path=REPOSITORY / "fixtures" / "mobilenet_v2" / "wired" / "model.ckpt-300",
        data=folder / "digits.npz",
        options={},
    )
    if not real.is_dir():
        print(f"{real} is not there: two models left out")
        return
    photographs = _crops(96, 128)
    np.savez(folder / "photographs_96.npz", images=photographs)
    yield Model(
        name="MobileNetV1 0.25, VWW",
        path=real / "mlperf_tiny_vww" / "vww_96.h5",
        data=folder / "photographs_96.npz",
        options={},
    )
    np.savez(folder / "photographs_224.npz", images=_crops(224, 48) * 2 - 1)
    yield Model(
        name="MobileNetV2 1.0, NSFWJS",
        path=real / "nsfwjs_mobilenetv2.npz",
        data=folder / "photographs_224.npz",
        options={"model": "mobilenet_v2:num_classes=0", "batch_size": 16},
    )


def _crops(size: int, count: int) -> NDArray[np.float32]:
    """Random squares of scikit-learn's two photographs, every nth pixel of them, in [0, 1]."""
    from sklearn.datasets import load_sample_images

    images, random = load_sample_images().images, np.random.default_rng(0)
    found = []
    for number in range(count):
        image = images[number % len(images)]
        step = int(random.integers(1, min(image.shape[:2]) // size + 1))
        top, left = (int(random.integers(0, edge - step * size + 1)) for edge in image.shape[:2])
        found.append(image[top : top + step * size : step, left : left + step * size : step])
    return (np.stack(found) / 255).astype(np.float32)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
