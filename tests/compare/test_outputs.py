"""What an output is: two classes in a single column are judged by the labels that they meet, boxes are no classes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bncheck
from bncheck.compare.attribution import FLOAT, QUANTIZED, STORED, attribute
from bncheck.compare.float_quantized import _accuracy, _scores
from bncheck.compare.litert.outputs import OutputSums
from bncheck.compare.outputs import Kind, OutputKind, OutputTotals, apart_from_labels, read_as
from bncheck.compare.train_eval import prepare
from bncheck.facts.measurements import Measure, OutputDifference
from bncheck.numerics import metrics
from bncheck.settings.options import Options
from bncheck.sources import open_model

DRAWN = np.random.default_rng(0).normal(0, 1, (40, 1))
SIGMOID = 1 / (1 + np.exp(-DRAWN))
LABELS = (DRAWN[:, 0] > 0).astype(np.int64)

BOXES, CLASSES = np.hsplit(np.random.default_rng(0).normal(0, 1, (40, 14)), [4])
NAMED = np.arange(40) % 10
"""Of a detector: corners of boxes, scores of ten classes, and the right class."""


@pytest.mark.parametrize(
    ("values", "kind", "labels", "how"),
    [
        (SIGMOID, Kind.PROBABILITIES, None, OutputKind.PROBABILITY),
        (DRAWN[:, 0], Kind.LOGITS, None, OutputKind.LOGIT),
        (DRAWN.reshape(40, 1, 1, 1), Kind.UNKNOWN, LABELS, OutputKind.LOGIT),
        (SIGMOID, Kind.UNKNOWN, LABELS, OutputKind.PROBABILITY),
        (SIGMOID, Kind.UNKNOWN, None, OutputKind.NONE),
        (DRAWN, Kind.UNKNOWN, LABELS + 1, OutputKind.NONE),
        (DRAWN, Kind.NUMBERS, LABELS, OutputKind.NONE),
        (np.tile(SIGMOID, 4).reshape(40, 2, 2, 1), Kind.PROBABILITIES, LABELS, OutputKind.NONE),
        (np.tile(DRAWN, 3), Kind.LOGITS, None, OutputKind.NONE),
        (np.tile(DRAWN, 2), Kind.LOGITS, LABELS, OutputKind.COLUMNS),
    ],
)
def test_what_a_single_column_is(values: Any, kind: Kind, labels: Any, how: OutputKind) -> None:
    """The graph decides; where it is silent the labels do. A map of probabilities is no class."""
    assert read_as(values, kind=kind, labels=labels) is how


def test_thresholds() -> None:
    """0.5 for a probability, 0 for a logit; NaN is of neither class."""
    values = np.array([[0.2], [0.5], [0.7], [np.nan]])
    assert metrics.top_classes(metrics.two_classes(values, probability=True)).tolist() == [0, 0, 1, -1]
    assert metrics.top_classes(metrics.two_classes(values - 0.5, probability=False)).tolist() == [0, 0, 1, -1]


@pytest.mark.parametrize(("values", "kind"), [(SIGMOID, Kind.PROBABILITIES), (DRAWN, Kind.LOGITS)])
def test_accuracy_and_agreement_by_hand(values: Any, kind: Kind) -> None:
    """Of both modes, of float and quantized, and in each cell of the attribution, with ten samples turned over."""
    other = values.copy()
    other[:10] = 1 - other[:10] if kind is Kind.PROBABILITIES else -other[:10]
    totals, sums = OutputTotals(kind=kind), OutputSums(kind=kind)
    totals.add(values, other, 40, LABELS)
    sums.add(values, other, LABELS)
    assert (totals.top.right, totals.top.agreeing) == ((40, 30), 30)
    assert (sums.top.right, sums.top.agreeing) == ((40, 30), 30)
    told: OutputDifference = totals.difference("out", None)
    assert (told.classes, told.agreement) == (2, 0.75)
    assert sums.difference("out").probability_drift == pytest.approx(told.probability_drift)
    cells = attribute(
        lambda _: values,
        {(STORED, FLOAT): lambda _: values, (STORED, QUANTIZED): lambda _: other},
        [(values, LABELS)],
        modes=told,
    )
    assert (cells.measure, cells.quantization) == (Measure.ACCURACY, 0.25)


def test_boxes_beside_a_sigmoid() -> None:
    """Four columns are no scores of two classes where one column is."""
    kinds = apart_from_labels([np.tile(DRAWN, 4), SIGMOID], [Kind.UNKNOWN, Kind.PROBABILITIES], LABELS)
    assert kinds == [Kind.NUMBERS, Kind.PROBABILITIES]


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_single_units_of_real_models(tmp_path: Path) -> None:
    """A sigmoid unit of Keras, float and int8; a logit of TF1 by the loss on its sigmoid: labels are met or not."""
    keras = importlib.import_module("keras")
    keras.utils.set_random_seed(0)
    styles: Any = importlib.import_module("graph_styles")
    tf, v1 = styles.tf, styles.v1
    images = np.random.default_rng(1).normal(0, 1, (64, 8, 8, 3)).astype(np.float32)
    layers = keras.layers
    model = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()])
    for layer in (layers.ReLU(), layers.Flatten(), layers.Dense(1, activation="sigmoid")):
        model.add(layer)
    model.save(tmp_path / "sigmoid.keras")
    labels = (np.asarray(model(images, training=False))[:, 0] > 0.5).astype(np.int64)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    report = bncheck.compare_float_vs_quantized(tmp_path / "sigmoid.keras", data=tmp_path / "data.npz")
    assert report.comparison is not None
    assert report.quantized is not None
    assert report.comparison.accuracy.eval == 1
    assert report.quantized.accuracy.eval == 1
    assert report.quantized.outputs[0].classes == 2
    with tf.Graph().as_default():
        x, y = styles.images(), v1.placeholder(tf.float32, [None], name="labels")
        net = styles.slim_norm()(styles.conv(x, 4, "conv"), "bn")
        logit = tf.squeeze(tf.matmul(tf.reduce_mean(net, [1, 2]), v1.get_variable("kernel", [4, 1])), 1)
        v1.train.AdamOptimizer().minimize(v1.losses.sigmoid_cross_entropy(y, logit))
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    assert prepare(open_model(tmp_path / "model.ckpt"), Options()).kinds == (Kind.LOGITS,)


def test_four_columns_are_no_classes_beside_ten() -> None:
    """Where the graph says nothing, the labels do; what the graph says stands."""
    unknown = [Kind.UNKNOWN, Kind.UNKNOWN]
    assert apart_from_labels([BOXES, CLASSES], unknown, NAMED) == [Kind.NUMBERS, Kind.UNKNOWN]
    assert apart_from_labels([CLASSES, BOXES], unknown, NAMED) == [Kind.UNKNOWN, Kind.NUMBERS]
    assert apart_from_labels([BOXES, CLASSES], unknown, NAMED % 4) == unknown
    assert apart_from_labels([BOXES, CLASSES], [Kind.SCORES, Kind.UNKNOWN], NAMED)[0] is Kind.SCORES


def test_an_only_output_stays_scores_of_classes() -> None:
    """Labels beyond its classes are numbered otherwise, which is told (BN304) and not hidden."""
    assert apart_from_labels([CLASSES], [Kind.UNKNOWN], NAMED + 1) == [Kind.UNKNOWN]


def test_accuracy_is_that_of_the_classes() -> None:
    """Also where the boxes come first."""
    boxes, classes = OutputSums(), OutputSums()
    right = np.eye(10)[NAMED] - 0.1
    boxes.add(BOXES, BOXES, NAMED)
    classes.add(right, right, NAMED)
    assert _scores([boxes, classes]) == [classes]
    assert _accuracy(_scores([boxes, classes])).eval == 1
    assert boxes.difference("boxes", scores=False).classes is None
    assert _accuracy(_scores([boxes])).eval is not None
    assert _accuracy([]).eval is None
