"""In which framework a model was made, and which lines of a remedy speak to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncheck.facts import remedies
from bncheck.facts.layers import Facts
from bncheck.rules.shared.frameworks import Framework, in_framework, made_with
from bncheck.testing import batch_norm, facts, keras_file, unwired, with_graph

BN = batch_norm("bn")
OWN = unwired(BN, in_collection=False, resource=False)


@pytest.mark.parametrize(
    ("model", "framework"),
    [
        (with_graph(unwired(BN), model_variables=frozenset({"bn/moving_mean"})), Framework.SLIM),
        (with_graph(unwired(BN)), Framework.LAYERS),
        (with_graph(unwired(BN, in_collection=False)), Framework.KERAS),
        (with_graph(unwired(BN, in_collection=False, collections=("mine",))), Framework.OWN),
        (with_graph(OWN), Framework.OWN),
        (keras_file(BN), Framework.KERAS),
        (facts(batch_norm("net/BatchNorm")), Framework.SLIM),
        (facts(BN), Framework.LAYERS),
    ],
)
def test_made_with(model: Facts, framework: Framework) -> None:
    """By collections and variables of the graph, by the file, by names where there is nothing else."""
    assert made_with(model) is framework


@pytest.mark.parametrize(
    ("framework", "call"),
    [
        (Framework.SLIM, "slim.batch_norm(net, is_training=True)"),
        (Framework.LAYERS, "tf.layers.batch_normalization(net, training=True)"),
        (Framework.KERAS, "logits = model(images, training=True)"),
        (Framework.OWN, "tf.layers.batch_normalization(net, training=True)"),
    ],
)
def test_one_framework_one_block(framework: Framework, call: str) -> None:
    """Only its lines are left; by hand is replaced by a layer."""
    code = in_framework(remedies.TRAIN_MODE, framework)
    assert [line for line in code.splitlines() if not line.startswith("#")] == [
        line for line in code.splitlines() if call in line
    ]


def test_lines_below_a_mark_belong_to_it() -> None:
    """A block of several lines stays whole, and so does code without marks."""
    code = in_framework(remedies.EVAL_MODE, Framework.SLIM).splitlines()
    assert [line[:1] for line in code] == ["#", "w", " "]
    assert in_framework(remedies.WIRE_UPDATES, Framework.KERAS) == remedies.WIRE_UPDATES


def test_a_layer_speaks_for_itself() -> None:
    """The layers in question are judged, not the others of the model."""
    slim, mine = unwired(BN), replace(OWN, name="mine")
    model = with_graph(slim, mine, model_variables=frozenset({"bn/moving_mean"}))
    assert made_with(model, [slim]) is Framework.SLIM
