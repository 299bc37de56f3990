"""Builders of what comparing float with quantized measured, beside those of `bncheck.testing`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bncheck.facts.layers import Facts
from bncheck.facts.measurements import (
    GIVEN,
    Accuracy,
    Attribution,
    Cell,
    CellStatistics,
    Measure,
    OperatorLoss,
    OutputDifference,
    Precision,
    QuantizedComparison,
    Unmatched,
)
from bncheck.testing import batch_norm, classes_compared, compared, difference, facts, features_compared, images

BATCH, STORED, REESTIMATED = CellStatistics
FLOAT, QUANTIZED = Precision


HEALTHY_RMSE = 0.35
"""Of the scale: rounding alone gives 0.289, that of the input comes on top."""


def operator_loss(
    name: str = "bn",
    *,
    local: float = 5e-4,
    rmse: float | None = HEALTHY_RMSE,
    clipping: float = 0.0,
    bias: float = 0.02,
    channels: int = 4,
    **facts_of_it: Any,
) -> OperatorLoss:
    """A convolution of an int8 file with a scale for each channel, which loses `local` of its output's energy.

    `rmse` is in units of the scale; `clipping` and `bias` are shares of `local`, rounding being the rest.
    """
    known: dict[str, Any] = {
        "layer": name,
        "kind": "CONV_2D",
        "tensor": f"{name}/Relu6",
        "reference": f"{name}/Relu6",
        "cumulative_nmse": max(local, 4e-3),
        "cumulative_cosine": 1 - max(local, 4e-3) / 2,
        "scale": None if rmse is None else 0.0235,
        "zero_point": None if rmse is None else -128,
        "channel_nmse": np.full(channels, local),
        "weight_nmse": 2e-5,
        "weight_per_channel": True,
        "worst_channels": (0,),
    }
    return OperatorLoss(
        name=name,
        local_nmse=local,
        rounding_nmse=local * (1 - clipping - bias),
        clipping_nmse=local * clipping,
        bias_nmse=local * bias,
        rmse_over_scale=rmse,
        **(known | facts_of_it),
    )


def quantized_classes(agreement: float = 0.99, nmse: float | None = None, **facts_of_it: Any) -> OutputDifference:
    """An output of 10 classes, float against quantized."""
    loss = nmse if nmse is not None else 2e-3 if agreement > 0.9 else 0.8
    known: dict[str, Any] = {"cosine": 1 - loss / 2, "classes": 10, "probability_drift": (1 - agreement) / 2}
    return OutputDifference(name="logits", nmse=loss, agreement=agreement, **(known | facts_of_it))


def quantized_features(nmse: float = 5e-3, **facts_of_it: Any) -> OutputDifference:
    """An output that is no classes, float against quantized."""
    return OutputDifference(name="features", nmse=nmse, **({"cosine": 1 - nmse / 2} | facts_of_it))


def attributed(
    statistics: float = -0.01,
    quantization: float = 0.003,
    *,
    start: float = 0.91,
    repaired: tuple[float, float] | None = None,
    measure: Measure = Measure.ACCURACY,
) -> Attribution:
    """What each step loses, of the `start` that batch statistics have; `repaired` is (float, quantized)."""
    levels = {
        (BATCH, FLOAT): start,
        (STORED, FLOAT): start - statistics,
        (STORED, QUANTIZED): start - statistics - quantization,
    }
    if repaired is not None:
        levels |= {(REESTIMATED, FLOAT): repaired[0], (REESTIMATED, QUANTIZED): repaired[1]}
    cells = tuple(
        _cell(part, arithmetic, levels.get((part, arithmetic)), measure)
        for part in CellStatistics
        for arithmetic in Precision
    )
    lost = max(statistics, 0.0) + max(quantization, 0.0)
    return Attribution(
        cells=cells,
        measure=measure,
        statistics=statistics,
        quantization=quantization,
        statistics_share=max(statistics, 0.0) / lost if lost > 0 else None,
    )


def _cell(statistics: CellStatistics, arithmetic: Precision, level: float | None, measure: Measure) -> Cell:
    if level is None:
        return Cell(statistics=statistics, arithmetic=arithmetic, nmse=None, why="was not run")
    return Cell(
        statistics=statistics,
        arithmetic=arithmetic,
        nmse=0.0 if statistics is BATCH else 1 - level,
        agreement=1.0 if statistics is BATCH else level,
        accuracy=level if measure is Measure.ACCURACY else None,
    )


def quantized(
    *operators: OperatorLoss,
    output: OutputDifference | None = None,
    accuracy: tuple[float, float] | None = None,
    train: tuple[float, float] | None = None,
    samples: int = 352,
    synthetic: bool = False,
    unmatched: tuple[Unmatched, ...] = (),
    attribution: Attribution | None = None,
    scheme: str = "int8",
    **facts_of_it: Any,
) -> Facts:
    """A model of healthy layers, compared in both ways; `accuracy` is (float, quantized), both with stored statistics.

    `train` is (accuracy with batch statistics, agreement of stored with batch statistics); None: train mode is not to
    be had, as of two TFLite files. Further keywords are fields of `Facts`.
    """
    data = images(samples, synthetic=synthetic, labelled=accuracy is not None)
    found = Accuracy() if accuracy is None else Accuracy(eval=accuracy[0], quantized=accuracy[1])
    if train is not None and accuracy is not None:
        found = replace(found, train=train[0])
    measured = QuantizedComparison(
        scheme=scheme,
        quantized="model.tflite" if scheme == GIVEN else "",
        data=data,
        input="images",
        operators=operators,
        outputs=(output or quantized_classes(),),
        accuracy=found,
        unmatched=unmatched,
        attribution=attribution,
        float_bytes=1_800_000,
        quantized_bytes=620_000,
        seconds=4.2,
    )
    layers = [operator.layer for operator in operators if operator.layer is not None]
    if train is None:
        base = facts(*(batch_norm(layer) for layer in layers))
    else:
        stored = None if accuracy is None else (train[0], accuracy[0])
        base = compared(
            *(difference(layer) for layer in layers),
            output=features_compared() if output is not None and not output.classes else classes_compared(train[1]),
            accuracy=stored,
            samples=samples,
            synthetic=synthetic,
        )
    return replace(base, quantized=measured, **facts_of_it)


def unmatched(name: str = "conv/Relu6", **facts_of_it: Any) -> Unmatched:
    """A tensor of the float file that the quantized one lacks; further keywords are fields of `Unmatched`."""
    known: dict[str, Any] = {"side": FLOAT, "why": "no tensor of the quantized file has its name or its place"}
    return Unmatched(name=name, **(known | facts_of_it))
