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
from bncheck.compare.outputs import (
    Kind,
    OutputKind,
    OutputTotals,
    apart_from_labels,
    labels_belong,
    place_of,
    read_as,
)
from bncheck.compare.prepared import prepare
from bncheck.facts.errors import UsageError
from bncheck.facts.measurements import Measure, OutputDifference
from bncheck.numerics import metrics
from bncheck.repair import repair
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


EMBEDDING = np.random.default_rng(4).normal(0, 1, (40, 32))
TEN = np.random.default_rng(5).normal(0, 1, (40, 10))
NUMBERED = np.arange(40) % 10


def _totals(values: Any, kind: Kind = Kind.UNKNOWN, *, meets: bool = False) -> OutputTotals:
    values = values.copy()
    if meets:
        values[np.arange(40), NUMBERED] += 9
    totals = OutputTotals(kind=kind)
    totals.add(values, values, 40, NUMBERED)
    return totals


TWELVE = np.tile(TEN, 2)[:, :12]


@pytest.mark.parametrize(
    ("outputs", "place"),
    [
        ([_totals(EMBEDDING), _totals(TEN)], 1),
        ([_totals(TEN), _totals(EMBEDDING)], 0),
        ([_totals(EMBEDDING[:, :15]), _totals(TEN, meets=True)], 1),
        ([_totals(TWELVE), _totals(TEN)], 1),
        ([_totals(TWELVE, Kind.SCORES), _totals(TEN, Kind.SCORES)], 1),
        ([_totals(TEN), _totals(TWELVE, Kind.SCORES, meets=True)], 1),
        ([_totals(TEN), _totals(metrics.softmax(TWELVE))], 1),
        ([_totals(TEN[:, :4]), _totals(TEN)], 1),
        ([_totals(TEN), _totals(TEN)], 0),
    ],
)
def test_which_output_the_labels_belong_to(outputs: list[OutputTotals], place: int) -> None:
    """By what an output is, whether it meets them, how many classes it has; by order only where nothing else tells."""
    assert labels_belong(outputs) is outputs[place]
    assert labels_belong([]) is None


@pytest.mark.parametrize(("columns", "meets", "classes"), [(32, False, None), (32, True, 32), (10, False, 10)])
def test_labels_refute_scores(columns: int, meets: bool, classes: int | None) -> None:  # noqa: FBT001 - the table's columns
    """An embedding of 32 meets no labels of ten; logits of many classes do; ten columns may be numbered otherwise."""
    values = np.random.default_rng(6).normal(0, 1, (40, columns))
    if meets:
        values[np.arange(40), NUMBERED] += 9
    else:
        values[:, 9] -= 9
        values[np.arange(40), (NUMBERED + 1) % 9] += 5 * (columns == 10)
    totals = OutputTotals()
    totals.add(values, values, 40, NUMBERED)
    assert totals.difference("features", None).classes == classes


def test_an_output_that_is_not_there() -> None:
    """Its name is refused, with those that are."""
    assert place_of(None, ["a"]) is None
    assert place_of("b", ["a", "b"]) == 1
    with pytest.raises(UsageError, match="'c' is not an output that is compared: there are a, b"):
        place_of("c", ["a", "b"])
    known = {"embedding": "net/a", "scores": "net/b"}
    assert [place_of(name, ["net/a", "net/b"], known) for name in ("scores", "net/a")] == [1, 0]
    with pytest.raises(UsageError, match="there are embedding, scores"):
        place_of("c", ["net/a", "net/b"], known)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_labels_of_a_model_with_an_embedding(tmp_path: Path) -> None:
    """Embedding first, logits behind: accuracy is the logits'; --labels-output says otherwise and is believed."""
    import keras
    from digit_nets import net, saved, train

    trained = train(net(blocks=2), steps=60)
    embedding = keras.layers.Dense(32, name="embedding")(trained.layers[-2].output)
    path, data = saved(tmp_path, keras.Model(trained.inputs, {"a": embedding, "b": trained.output}))
    report = bncheck.compare_train_vs_eval(path, data=data, labels="labels", batch_size=32)
    assert report.comparison is not None
    assert report.comparison.accuracy.train is not None
    assert report.comparison.accuracy.train > 0.5
    assert [output.classes for output in report.comparison.outputs] == [None, 10]
    assert [output.labelled for output in report.comparison.outputs] == [False, True]
    for first in (report.comparison.outputs[0].name, "embedding", "a"):
        told = bncheck.compare_train_vs_eval(path, data=data, labels="labels", batch_size=32, labels_output=first)
        assert told.comparison is not None
        assert told.comparison.outputs[0].labelled
        assert told.comparison.accuracy.train is not None
        assert told.comparison.accuracy.train < 0.5
    for name, classes in (("embedding", 32), ("net_logits", 10)):
        repaired = repair(path, tmp_path / f"{name}.keras", data=data, labels_output=name, compare=False)
        assert repaired.trial is not None
        assert repaired.trial.classes == classes
    with pytest.raises(UsageError, match="there are embedding, net_logits, a, b"):
        bncheck.compare_train_vs_eval(path, data=data, labels="labels", labels_output="nosuch")
