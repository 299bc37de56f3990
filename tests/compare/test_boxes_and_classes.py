"""Models of several outputs: labels belong to the output that has a class for each of them, not to the boxes."""

from __future__ import annotations

import numpy as np

from bncheck.compare.float_quantized import _accuracy, _scores
from bncheck.compare.litert.outputs import OutputSums
from bncheck.compare.outputs import Kind, apart_from_labels

DRAWN = np.random.default_rng(0)
BOXES, CLASSES = DRAWN.normal(0, 1, (40, 4)), DRAWN.normal(0, 1, (40, 10))
LABELS = np.arange(40) % 10


def test_four_columns_are_no_classes_beside_ten() -> None:
    """Where the graph says nothing, the labels do; what the graph says stands."""
    unknown = [Kind.UNKNOWN, Kind.UNKNOWN]
    assert apart_from_labels([BOXES, CLASSES], unknown, LABELS) == [Kind.NUMBERS, Kind.UNKNOWN]
    assert apart_from_labels([CLASSES, BOXES], unknown, LABELS) == [Kind.UNKNOWN, Kind.NUMBERS]
    assert apart_from_labels([BOXES, CLASSES], unknown, LABELS % 4) == unknown
    assert apart_from_labels([BOXES, CLASSES], [Kind.SCORES, Kind.UNKNOWN], LABELS)[0] is Kind.SCORES


def test_an_only_output_stays_scores_of_classes() -> None:
    """Labels beyond its classes are numbered otherwise, which is told (BN304) and not hidden."""
    assert apart_from_labels([CLASSES], [Kind.UNKNOWN], LABELS + 1) == [Kind.UNKNOWN]


def test_accuracy_is_that_of_the_classes() -> None:
    """Also where the boxes come first."""
    boxes, classes = OutputSums(), OutputSums()
    right = np.eye(10)[LABELS] - 0.1
    boxes.add(BOXES, BOXES, LABELS)
    classes.add(right, right, LABELS)
    assert _scores([boxes, classes]) == [classes]
    assert _accuracy(_scores([boxes, classes])).eval == 1
    assert boxes.difference("boxes", scores=False).classes is None
    assert _accuracy(_scores([boxes])).eval is not None
    assert _accuracy([]).eval is None
