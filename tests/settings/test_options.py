"""The options, listed once: type checkers, `help`, the command line and the configuration take them from one table."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import bncheck
from bncheck.facts.errors import ConfigError, UsageError
from bncheck.facts.layers import Given
from bncheck.repair import repair
from bncheck.settings.config_file import load_config
from bncheck.settings.options import CommandName, Options, given, listed
from bncheck.settings.schemes import SCHEMES

PACKAGE = Path(bncheck.__file__).parent
FUNCTIONS = {
    CommandName.CHECK: bncheck.check,
    CommandName.CHECKPOINT: bncheck.inspect_checkpoint,
    CommandName.GRAPH: bncheck.inspect_graph,
    CommandName.MODEL: bncheck.inspect_model,
    CommandName.RUN: bncheck.inspect_run,
    CommandName.TRAIN_VS_EVAL: bncheck.compare_train_vs_eval,
    CommandName.FLOAT_VS_QUANTIZED: bncheck.compare_float_vs_quantized,
    CommandName.GATE: bncheck.gate,
    CommandName.DIFF: bncheck.diff,
    CommandName.REPAIR: repair,
}


@pytest.mark.parametrize("command", CommandName, ids=lambda command: command.value)
def test_signature_lists_each_option(command: CommandName) -> None:
    """`help` and notebooks show every option of the command by name with its default, and nothing as `**options`."""
    shown = inspect.signature(FUNCTIONS[command]).parameters
    kinds = {parameter.kind for parameter in shown.values()}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    keywords = {name: p.default for name, p in shown.items() if p.kind is p.KEYWORD_ONLY}
    required = {each.name for each, how, _ in listed(Options, command) if command in how.required}
    assert keywords == {
        each.name: inspect.Parameter.empty if each.name in required else each.default
        for each in fields(Options)
        if each.name in keywords
    }
    assert {each.name for each, _, _ in listed(Options, command)} <= set(keywords)
    assert "settings" in keywords


@pytest.mark.parametrize("command", CommandName, ids=lambda command: command.value)
def test_unknown_option(command: CommandName) -> None:
    """A keyword that is none is a TypeError that names it, before anything is read."""
    paths = ["nowhere.ckpt"] * (2 if command in (CommandName.REPAIR, CommandName.DIFF) else 1)
    needed = {"data": "synthetic"} if command is CommandName.TRAIN_VS_EVAL else {}
    function: Any = FUNCTIONS[command]
    with pytest.raises(TypeError, match="batchsize"):
        function(*paths, **needed, batchsize=3)


def test_option_of_another_command() -> None:
    """Nor does a command take what would do nothing in it."""
    with pytest.raises(TypeError, match="steps"):
        bncheck.inspect_graph("nowhere.meta", steps=3)
    with pytest.raises(TypeError, match="lacks a required keyword argument: 'data'"):
        bncheck.compare_train_vs_eval("nowhere.ckpt")


def test_schemes_are_the_converters(tmp_path: Path) -> None:
    """Command line and configuration take each scheme that there is, and no other."""
    path = tmp_path / "bncheck.toml"
    for scheme in (*SCHEMES, "aeq:static_wi8_ai8"):
        path.write_text(f"[gate]\nscheme = {scheme!r}\n")
        assert load_config(path).gate == {"scheme": scheme}
    path.write_text("[gate]\nscheme = 'float'\n")
    with pytest.raises(ConfigError, match="int16x8"):
        load_config(path)


@pytest.mark.parametrize(("options", "says"), [({"decay": 1.5}, "decay is 1.5"), ({"steps": -1}, "steps is -1")])
def test_what_cannot_be(options: dict[str, float], says: str) -> None:
    """It is refused before a file is touched."""
    with pytest.raises(UsageError, match=says):
        bncheck.inspect_checkpoint("nowhere.ckpt", **options)  # type: ignore[arg-type]


def test_options_come_back_as_words() -> None:
    """What was given and is no default, so that a recommended command repeats it; data made up are none."""
    found = given(
        Options(
            data="digits.npz",
            model="mobilenet_v2",
            outputs=("a", "b"),
            preprocess="-1..1",
            size=(64, 48),
            trust_model=True,
            steps=300,
            use_graph=False,
        )
    )
    assert found.data == "digits.npz"
    assert not found.use_graph
    assert found.reading == ("--no-graph", "--steps", "300")
    assert found.running == (
        *("--preprocess=-1..1", "--size", "64x48", "--model", "mobilenet_v2"),
        *("--outputs", "a", "--outputs", "b", "--trust-model"),
    )
    assert given(Options(data="synthetic")) == Given()


_NEW = """
    crop: str | None = _of_data(None, kinds.TEXT, "Part of the images to take.", metavar="BOX")
"""
_ASK = """
import inspect, pathlib, sys
import bncheck
from bncheck.cli import main as cli
from bncheck.repair import repair
from bncheck.settings.config_file import load_config
from bncheck.settings.options import Options, given

assert bncheck.__file__.startswith(sys.argv[1])
for function in (bncheck.compare_train_vs_eval, bncheck.compare_float_vs_quantized, bncheck.gate, repair):
    assert inspect.signature(function).parameters["crop"].default is None
assert "crop" not in inspect.signature(bncheck.inspect_checkpoint).parameters
assert load_config(pathlib.Path(sys.argv[2])).gate == {"crop": "centre"}
assert given(Options(crop="centre")).running == ("--crop", "centre")
for words in ("compare train-vs-eval", "compare float-vs-quantized", "gate", "repair", "inspect checkpoint"):
    print(words)
    cli.cli.main([*words.split(), "--help"], standalone_mode=False)
"""


def test_new_option_is_one_place(tmp_path: Path) -> None:
    """One field more, in a copy: help of each command that runs models, keyword, configuration and words know it."""
    copy = Path(shutil.copytree(PACKAGE, tmp_path / "bncheck", ignore=shutil.ignore_patterns("__pycache__")))
    file = copy / "settings" / "options.py"
    text = file.read_text(encoding="utf-8")
    before = "\n    graph: str | Path | None = _of_model("
    assert text.count(before) == 1
    file.write_text(text.replace(before, _NEW + before), encoding="utf-8")
    config = tmp_path / "bncheck.toml"
    config.write_text("[gate]\ncrop = 'centre'\n")
    done = subprocess.run(
        [sys.executable, "-c", _ASK, str(tmp_path), config.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--crop BOX") == 4
    assert "--crop" not in done.stdout.partition("inspect checkpoint")[2]
