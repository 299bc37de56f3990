"""Remedies: code that can be pasted, and commands that can be run."""

from __future__ import annotations

import ast
import importlib
import shlex
from dataclasses import replace

import pytest

from bncheck.model import RunFacts
from bncheck.rules import RULES, fixes
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
        ("model.keras", "Keras 3 archive", "fixed.keras"),
        ("run.1/model.h5", "Keras 3 HDF5 model", "fixed.h5"),
        ("old.hdf5", "Keras 2 HDF5 model", "fixed.hdf5"),
        ("a.weights.h5", "Keras 3 weights", "fixed.weights.h5"),
        ("export/1", "SavedModel", "fixed_model"),
        ("model.ckpt-300", "TF1 checkpoint", "fixed.ckpt"),
    ],
)
def test_the_output_is_of_the_models_kind(path: str, kind: str, output: str) -> None:
    """A copy is named as its format wants, so that `repair` writes it and TensorFlow or Keras loads it."""
    model = replace(facts(batch_norm("bn")), path=path, format=kind)
    assert shlex.split(fixes.repair(model))[3:5] == ["-o", output]


def test_without_a_checkpoint() -> None:
    """A word stands in its place."""
    keras = replace(facts(batch_norm("bn")), path="model.keras", format="Keras 3 archive")
    assert "CHECKPOINT" in fixes.repair(replace(keras, run=RunFacts()))
