"""The options of running a model: listed once, and still seen by type checkers, `help` and the command line."""

from __future__ import annotations

import inspect
import typing
from dataclasses import fields
from pathlib import Path

import pytest

import bncheck
from bncheck.cli import common as cli_common
from bncheck.facts.errors import ConfigError
from bncheck.facts.layers import Given
from bncheck.settings.config import load_config
from bncheck.settings.options import CompareKeywords, CompareOptions, given
from bncheck.settings.schemes import SCHEMES

FUNCTIONS = ["compare_train_vs_eval", "compare_float_vs_quantized", "gate"]


def test_keywords_are_the_fields() -> None:
    """What type checkers allow is what the dataclass takes, in names and types."""
    listed = typing.get_type_hints(CompareOptions)
    assert typing.get_type_hints(CompareKeywords) == {
        field.name: listed[field.name] for field in fields(CompareOptions)
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature_lists_each_option(name: str) -> None:
    """`help` and notebooks show every option by name with its default, and nothing as `**options`."""
    shown = inspect.signature(getattr(bncheck, name)).parameters
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in shown.values())
    assert {field.name: field.default for field in fields(CompareOptions)}.items() <= {
        parameter.name: parameter.default for parameter in shown.values()
    }.items()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_unknown_option(name: str) -> None:
    """A keyword that is none is a TypeError that names it, before anything is read."""
    with pytest.raises(TypeError, match="batchsize"):
        getattr(bncheck, name)("nowhere.ckpt", data="synthetic", batchsize=3)


def test_schemes_are_the_converters(tmp_path: Path) -> None:
    """Command line and configuration take each scheme that there is, and no other."""
    path = tmp_path / "bncheck.toml"
    for scheme in (*SCHEMES, "aeq:static_wi8_ai8"):
        path.write_text(f"[gate]\nscheme = {scheme!r}\n")
        assert load_config(path).gate == {"scheme": scheme}
    path.write_text("[gate]\nscheme = 'float'\n")
    with pytest.raises(ConfigError, match="int16x8"):
        load_config(path)


def test_command_line_has_them_all() -> None:
    """`--train-op` and `--no-graph` are the only ones that the command line calls by another name."""
    by_api = {field.name for field in fields(CompareOptions)}
    assert by_api == {*cli_common._RUN, "train_ops", "use_graph"} - {"train_op", "no_graph"}


def test_options_come_back_as_words() -> None:
    """What was given and is no default, so that a recommended command repeats it; data made up are none."""
    options = CompareOptions(
        model="mobilenet_v2", outputs=("a", "b"), preprocess="-1..1", size=(64, 48), trust_model=True, steps=300
    )
    found = given(options, "digits.npz")
    assert found.data == "digits.npz"
    assert found.reading == ("--steps", "300")
    assert found.running == (
        *("--model", "mobilenet_v2", "--outputs", "a", "--outputs", "b", "--preprocess=-1..1"),
        *("--size", "64x48", "--trust-model"),
    )
    assert given(CompareOptions(), "synthetic") == Given()
