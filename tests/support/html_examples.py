"""Reports of every kind for the tests of the HTML page: broken, healthy, empty, hostile, huge, several in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

import bncheck
from bncheck import testing
from bncheck.facts.findings import Report
from bncheck.facts.layers import Facts, Layer, PerChannel, Role
from bncheck.facts.measurements import FoldedLayer, FoldProof, Measure, OperatorLoss
from bncheck.judge.judge import judge
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.testing import quantized as testing_quantized

MODELS = Path(__file__).parents[2] / "fixtures" / "mobilenet_v2"
SCRIPT = "</script><img src=x onerror=window.hacked=1>"
"""A layer's name that ends the element it stands in and runs, if a page lets it."""
WIDTHS = (32, 16, 96, 24, 144, 192, 32, 384, 64, 576, 96, 960, 160, 320, 1280)
"""Channels of MobileNetV2's layers, in their order."""


def mobilenet() -> Report:
    """The 52 layers of a real checkpoint, with what comparing in both ways might measure of the full width."""
    facts = recognise(open_model(MODELS / "decay_0.99", graph=None, use_graph=True), _HINTS)
    layers = tuple(_widened(layer, n) for n, layer in enumerate(facts.layers))
    return measured(replace(facts, layers=layers))


def measured(facts: Facts, *, local: float = 0.1) -> Report:
    """A model whose every second layer loses the part `local` in eval mode, then quantized as well as can be."""
    random = np.random.default_rng(7)
    differences = []
    operators: list[OperatorLoss] = []
    for n, layer in enumerate(facts.layers):
        channels = layer.channels or 4
        lost = local if n % 2 else 2e-4
        shift, ratio = random.normal(0, 0.05, channels), random.normal(-1.2 if n % 2 else 0, 0.2, channels)
        differences.append(
            testing.difference(layer.name, local=lost, channels=channels, mean_shift=shift, log_variance_ratio=ratio)
        )
        operators.append(
            testing_quantized.operator_loss(layer.name, local=3e-4, channels=channels, clipping=0.1 if n == 3 else 0.0)
        )
    trained = testing.compared(
        *differences, layers=facts.layers, accuracy=(0.949, 0.105), output=testing.classes_compared(0.1)
    )
    attribution = testing_quantized.attributed(0.844, 0.01, start=0.949, repaired=(0.977, 0.974))
    quantized = testing_quantized.quantized(
        *operators,
        accuracy=(0.105, 0.095),
        attribution=attribution,
        unmatched=(testing_quantized.unmatched("add/Add", layer=facts.layers[0].name),),
    )
    whole = replace(facts, comparison=trained.comparison, quantized=quantized.quantized, fold=_proof(facts.layers))
    return judge(whole)


def healthy() -> Report:
    """A real checkpoint in which nothing is found, inspected only."""
    return bncheck.inspect_checkpoint(MODELS / "wired")


def nothing() -> Report:
    """A file without batch norm: inconclusive."""
    return judge(testing.facts())


def one_layer() -> Report:
    """One healthy layer, compared."""
    layer = testing.batch_norm("only", decay=0.99)
    return judge(testing.compared(testing.difference("only"), layers=[layer]))


def hostile() -> Report:
    """Names that attack the page, in layers, operators, path, notes and messages."""
    names = [f"{SCRIPT}{n}" for n in range(3)]
    layers = [testing.batch_norm(name, decay=0.99, mean=[0.1, 0.2, 0.3, 9.0]) for name in names]
    report = measured(testing.facts(*layers), local=0.4)
    target = replace(report.target, path=f"runs/{SCRIPT}", notes=(SCRIPT, "`" + SCRIPT + "`", "{{ 7 * 7 }}"))
    findings = tuple(
        replace(f, message=f"{f.message} {SCRIPT}", location=SCRIPT, fix=f"{SCRIPT}:\n\n    {SCRIPT}\n    second line")
        for f in report.findings
    )
    return replace(report, target=target, findings=findings, headline=SCRIPT)


def not_finite() -> Report:
    """NaN and infinity wherever a number can be one."""
    layers = [testing.batch_norm("a", mean=[np.nan, np.inf, 0.0, 1.0]), testing.batch_norm("b", decay=0.9)]
    differences = [
        testing.difference(
            "a",
            local=float("nan"),
            mean_shift=np.array([np.nan, np.inf, 1.0, 2.0]),
            log_variance_ratio=np.full(4, np.nan),
            cumulative_nmse=float("inf"),
            cumulative_cosine=float("nan"),
            non_finite=3,
        ),
        testing.difference("b", local=0.0, cumulative_nmse=0.0),
    ]
    compared = testing.compared(*differences, layers=layers, output=testing.features_compared(float("nan")))
    operators = [
        testing_quantized.operator_loss("a", local=float("inf"), channel_nmse=np.full(4, np.inf)),
        testing_quantized.operator_loss("b", local=0.0, rmse=None),
    ]
    quantized = testing_quantized.quantized(*operators, output=testing_quantized.quantized_features(float("nan")))
    attribution = replace(testing_quantized.attributed(measure=Measure.NMSE), statistics=float("nan"))
    assert quantized.quantized is not None
    return judge(replace(compared, quantized=replace(quantized.quantized, attribution=attribution)))


def huge() -> Report:
    """500 layers of 4,096 channels."""
    random = np.random.default_rng(1)
    layers = []
    differences = []
    for n in range(500):
        name = f"net/block_{n}/BatchNorm"
        variance = random.lognormal(size=4096)
        layers.append(testing.batch_norm(name, mean=np.zeros(4096), variance=variance, gamma=variance, beta=variance))
        shift, ratio = random.normal(size=4096), random.normal(size=4096)
        differences.append(testing.difference(name, channels=4096, mean_shift=shift, log_variance_ratio=ratio))
    return judge(testing.compared(*differences, layers=layers))


def run() -> list[Report]:
    """The checkpoints of one run, from broken to healthy."""
    found = []
    for n, name in enumerate(("forgotten", "decay_0.9997", "decay_0.99", "wired"), 1):
        report = bncheck.inspect_checkpoint(MODELS / name)
        found.append(
            replace(report, target=replace(report.target, path=f"runs/model.ckpt-{100 * n}", step=100 * n), run="runs")
        )
    return found


_HINTS = Options()


def _widened(layer: Layer, number: int) -> Layer:
    """The same layer with as many channels as MobileNetV2 of full width has."""
    channels = WIDTHS[number * len(WIDTHS) // 52]

    def stretched(values: PerChannel | None) -> PerChannel | None:
        return None if values is None else np.resize(values, channels)

    vectors = {
        role.value: replace(vector, values=stretched(vector.values), shape=(channels,))
        for role in Role
        for vector in [getattr(layer, role.value)]
    }
    linear = layer.linear and replace(layer.linear, channel_max=stretched(layer.linear.channel_max))
    return replace(layer, channels=channels, linear=linear, **vectors)


def _proof(layers: tuple[Layer, ...]) -> FoldProof:
    folded = [
        FoldedLayer(
            layer=layer.name,
            operator=f"{layer.name}/conv",
            folded="other" if n == 1 else "stored",
            error=0.2 if n == 1 else 3e-7,
            tolerance=1e-6,
            scale_ratio=np.full(layer.channels or 4, 1.25 if n == 1 else 1.0),
        )
        for n, layer in enumerate(layers)
    ]
    return FoldProof(path="model.tflite", source="model.ckpt-300", layers=tuple(folded))
