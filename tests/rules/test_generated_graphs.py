"""Training graphs from the product of people's idioms: layers, modes, decays, wiring and cause as they truly are."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf_slim")
pytest.importorskip("tf_keras")
pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore:`tf.layers")]

FEW, MANY = (*range(9000, 9012), 20119), range(700)
"""Seeds; each makes one graph by TensorFlow and two or three variants of it. In 20119 an optimizer by hand writes gamma
from what the second tower's moments lead to."""


def _of(module: str) -> Any:
    """A module of the generator, imported when a test asks: collecting tests must not import TensorFlow."""
    return importlib.import_module(f"random_graphs.{module}")


def _disagreements(recipe: Any, folder: Path) -> tuple[list[str], Counter[str]]:
    """(what is wrong, each with the recipe that rebuilds it; how many graphs were asked about)."""
    folder.mkdir()
    trained = _of("build").train(recipe, folder)
    if not recipe.partly:
        assert all(trained.moved.values()) == _of("recipe").wired_by_construction(recipe), f"the truth of {recipe}"
    cases = [("as built", recipe, trained)]
    for variant in _of("variants").variants_of(recipe, trained):
        (folder / variant).mkdir()
        cases.append((variant, *_of("variants").varied(recipe, trained, variant, folder / variant)))
    wrong = [
        f"seed {recipe.seed}, {variant}, {question}: {said}; {recipe}"
        for variant, changed, truth in cases
        for question, said in _of("judged").ask(changed, truth).differing.items()
    ]
    return wrong, Counter(variant for variant, *_ in cases)


def test_a_few_graphs_agree(tmp_path: Path) -> None:
    """Some thirty-six graphs of twelve recipes."""
    asked: Counter[str] = Counter()
    for seed in FEW:
        wrong, count = _disagreements(_of("recipe").draw(seed), tmp_path / str(seed))
        assert wrong == []
        asked += count
    assert asked.total() >= 30


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, len(MANY), 50))
def test_many_graphs_agree(start: int, tmp_path: Path) -> None:
    """Two thousand graphs, fifty recipes a test; what differs is told together."""
    found = [_disagreements(_of("recipe").draw(seed), tmp_path / str(seed)) for seed in MANY[start : start + 50]]
    assert [sentence for wrong, _ in found for sentence in wrong] == []
    assert sum(count.total() for _, count in found) >= 135


ONCE_WRONG = (
    # a condition that enters as a number
    {"mode": "negated", "choice": "arithmetic", "formula": "divide"},
    {"mode": "string", "choice": "arithmetic", "moments": "joined", "resource": "yes"},
    {"mode": "learning_phase", "choice": "arithmetic", "average": "by_index", "resource": "yes"},
    # other forms of the quotient, and of a sum
    {"formula": "no_nan", "network": "dense", "mode": "towers"},
    {"formula": "epsilon_outside", "mode": "towers"},
    {"moments": "einsum", "network": "dense", "mode": "towers"},
    # a decay that is held in a variable, or switched off by a constant
    {"average": "decay_variable", "mode": "placeholder", "updating": "cond"},
    {"average": "decay_schedule", "mode": "constant", "updating": "decay_off", "resource": "yes"},
    # of two replicas, one keeps the averages
    {"replicas": "two", "mode": "placeholder", "choice": "outputs", "formula": "plain", "resource": "yes"},
    {"replicas": "two", "decoy": "stored_input"},
    {
        "replicas": "two",
        "mode": "step",
        "choice": "outputs",
        "resource": "yes",
        "control": "v2",
        "optimizer": "rmsprop",
    },
    # one layer's condition around its updates, which a collection lists, is no group that somebody made to run them
    {
        "average": "by_index",
        "mode": "placeholder",
        "updating": "cond",
        "wiring": "separate_call",
        "resource": "yes",
        "control": "v2",
        "layers": 1,
    },
    # averages of tensors that are debiased when they are read
    {"average": "ema_debias", "mode": "placeholder"},
    {"average": "ema_debias", "wiring": "nobody", "resource": "yes"},
    # a power of a negative number
    {"formula": "power", "mode": "keep_prob", "choice": "outputs", "updating": "decay_off", "moments": "stacked"},
)


@pytest.mark.parametrize("idioms", ONCE_WRONG, ids=lambda idioms: "-".join(map(str, idioms.values())))
def test_what_was_once_read_wrongly(idioms: dict[str, Any], tmp_path: Path) -> None:
    """Each in the plainest graph that shows it."""
    recipe = _of("recipe").Recipe(**idioms)
    assert _of("recipe").goes_together(recipe)
    assert _disagreements(recipe, tmp_path / "graphs")[0] == []


def test_a_wrong_truth_is_noticed(tmp_path: Path) -> None:
    """The questions can be answered wrongly: a graph without its updates is not what a wired one is."""
    recipe = _of("recipe").Recipe(wiring="nobody", layers=1)
    trained = _of("build").train(recipe, tmp_path)
    assert not _of("judged").ask(recipe, trained)
    wired = _of("recipe").Recipe(layers=1)
    assert set(_of("judged").ask(wired, trained).differing) == {"cause"}


def test_the_smallest_recipe_is_told() -> None:
    """Idioms that do not matter are made plain: what is left rebuilds the disagreement."""
    drawn = _of("recipe").Recipe(moments="einsum", formula="divide", wiring="group", layers=3)
    assert str(_of("recipe").smallest(drawn, lambda recipe: recipe.moments == "einsum")) == "Recipe(moments='einsum')"
