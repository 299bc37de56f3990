"""Remedies: code that can be pasted, and commands that can be run."""

from __future__ import annotations

import ast
import importlib
import shlex
from dataclasses import replace

import pytest

from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import Given, RunFacts
from bncheck.rules import RULES
from bncheck.rules.rule import Rule
from bncheck.rules.shared import fixes
from bncheck.testing import batch_norm, facts

MODULES = (fixes, *(importlib.import_module(rule.check.__module__) for rule in RULES if rule.code.startswith("BN2")))
SNIPPETS = [
    (f"{module.__name__}.{name}", text)
    for module in MODULES
    for name, text in vars(module).items()
    if name[0].isupper() and name.isupper() and isinstance(text, str)
]


@pytest.mark.parametrize(("name", "text"), SNIPPETS)
def test_remedies_are_python(name: str, text: str) -> None:
    """Every snippet parses and fits on a line of a report."""
    ast.parse(text, filename=name)
    assert max(map(len, text.splitlines())) <= 112


def test_there_are_remedies_to_test() -> None:
    """The collection above is not empty by a change of names."""
    assert len(SNIPPETS) > 10


def test_the_command_quotes_the_path() -> None:
    """A path with a blank or a quote stays one argument."""
    model = replace(facts(batch_norm("bn")), path="my runs/it's/model.ckpt-300")
    words = shlex.split(fixes.repair(model))
    assert words == ["bncheck", "repair", "my runs/it's/model.ckpt-300", "-o", "fixed.ckpt", "--data", "images/"]


@pytest.mark.parametrize(
    ("path", "kind", "output"),
    [
        ("model.keras", Format(FileKind.KERAS, "Keras 3 archive"), "fixed.keras"),
        ("run.1/model.h5", Format(FileKind.KERAS, "Keras 3 HDF5 model"), "fixed.h5"),
        ("old.hdf5", Format(FileKind.KERAS, "Keras 2 HDF5 model"), "fixed.hdf5"),
        ("a.weights.h5", Format(FileKind.KERAS, "Keras 3 weights"), "fixed.weights.h5"),
        ("export/1", Format(FileKind.SAVED_MODEL), "fixed_model"),
        ("model.ckpt-300", Format(FileKind.TF1_CHECKPOINT), "fixed.ckpt"),
    ],
)
def test_the_output_is_of_the_models_kind(path: str, kind: Format, output: str) -> None:
    """A copy is named as its format wants, so that `repair` writes it and TensorFlow or Keras loads it."""
    model = replace(facts(batch_norm("bn")), path=path, format=kind)
    assert shlex.split(fixes.repair(model))[3:5] == ["-o", output]


def test_without_a_checkpoint() -> None:
    """A word stands in its place."""
    keras = replace(facts(batch_norm("bn")), path="model.keras", format=Format(FileKind.KERAS, "Keras 3 archive"))
    assert "CHECKPOINT" in fixes.repair(replace(keras, run=RunFacts()))


GIVEN = Given(
    data="my digits.npz",
    reading=("--graph", "a.meta"),
    running=("--model", "mobilenet_v2", "--preprocess", "-1..1"),
    training=("--train-op", "train"),
)


def test_commands_repeat_what_was_given() -> None:
    """So that they can be pasted; what trains is of no use to a repair, and data are none to undoing the init share."""
    model = replace(facts(batch_norm("bn")), path="model.ckpt", format=Format(FileKind.TF1_CHECKPOINT), given=GIVEN)
    words = ["--graph", "a.meta", "--model", "mobilenet_v2", "--preprocess", "-1..1"]
    start = ["bncheck", "repair", "model.ckpt", "-o", "fixed.ckpt"]
    assert shlex.split(fixes.repair(model)) == [*start, "--data", "my digits.npz", *words]
    assert shlex.split(fixes.repair(model, debias="--debias --steps STEPS")) == [
        *(*start, "--graph", "a.meta", "--debias", "--steps", "STEPS"),
    ]
    again = shlex.split(fixes.compare(model, "--preprocess", "0..1", "--labels", "folders"))
    assert again[:6] == ["bncheck", "compare", "train-vs-eval", "model.ckpt", "--data", "my digits.npz"]
    assert again[6:] == [*words, "--train-op", "train", "--labels", "folders"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_no_remedy_leaves_the_path_open(rule: Rule) -> None:
    """Of every rule's own words on its fix, for a model that has a path."""
    text = fixes.filled(rule.info.sections.get("Fix", ""), replace(facts(batch_norm("bn")), given=GIVEN))
    assert "PATH" not in text.replace("CHECKPOINT", "")
    assert "images/" not in text.replace("gate NEXT --data images/", "")  # another model, of a time to come
    for line in text.splitlines():
        if "bncheck repair" in line or "bncheck compare" in line:
            assert line.startswith("    bncheck ")


def test_a_command_within_a_sentence_gets_its_own_line() -> None:
    """A wrapped line cannot be pasted."""
    model = replace(facts(batch_norm("bn")), path="m.ckpt", format=Format(FileKind.TF1_CHECKPOINT))
    text = fixes.filled("Then: `bncheck repair PATH -o OUT --data images/`. Where not, go back.", model)
    assert text == "Then:\n    bncheck repair m.ckpt -o fixed.ckpt --data images/\nWhere not, go back."
