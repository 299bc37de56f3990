"""The pytest plugin, run by pytest itself: loads nothing until used, passes, fails with the story, obeys a project."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import write_bundle

pytest_plugins = ["pytester"]

VARIANTS = Path(__file__).parents[1] / "fixtures" / "mobilenet_v2"
USE = "from bncheck.pytest_plugin import assert_batch_norm_healthy\n"


@pytest.fixture(autouse=True)
def _alone(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inner pytest loads this plugin by name and no other of this environment."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    for name in ("wired", "forgotten"):
        (pytester.path / name).symlink_to(VARIANTS / name)
    write_bundle(pytester.path / "plain", {"kernel": np.ones((3, 3), np.float32)})


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    # protobuf 5.26 on Python 3.12 warns of itself, and breaks where that is an error
    old_protobuf = ("-W", "ignore:Type google:DeprecationWarning")
    return pytester.runpytest_subprocess("-p", "bncheck.pytest_plugin", "-W", "error", *old_protobuf, *arguments)


def test_loading_it_loads_nothing(pytester: pytest.Pytester) -> None:
    """Neither numpy nor rich, click, h5py or TensorFlow, nor bncheck's own pipeline."""
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            heavy = {"numpy", "rich", "click", "h5py", "google.protobuf", "tensorflow", "bncheck.commands.inspect"}
            assert "bncheck.pytest_plugin" in sys.modules
            assert heavy & set(sys.modules) == set()
        """
    )
    _run(pytester).assert_outcomes(passed=1)


def test_healthy(pytester: pytest.Pytester) -> None:
    """A healthy model passes and gives its report."""
    pytester.makepyfile(USE + "def test_it():\n    assert assert_batch_norm_healthy('wired/model.ckpt-300').layers")
    _run(pytester).assert_outcomes(passed=1)


def test_failure_is_the_story(pytester: pytest.Pytester) -> None:
    """What a user reads is the report with its cause and fix, and no line of bncheck's own code."""
    pytester.makepyfile(USE + "def test_it():\n    assert_batch_norm_healthy('forgotten/model.ckpt-300')")
    result = _run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*AssertionError: FAIL  model.ckpt-300*52 batch norm layers*",
            "E*BN201 update-not-wired*error*52 of 52 layers*",
            "E*with tf.control_dependencies(update_ops):*",
            "E*exit 1*",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin.py:*: AssertionError")
    result.stdout.no_fnmatch_line("*_judged*")


def test_inconclusive_is_no_pass(pytester: pytest.Pytester) -> None:
    """A model without batch norm fails, unless the project allows that."""
    pytester.makepyfile(USE + "def test_it():\n    assert_batch_norm_healthy('plain')")
    result = _run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*INCONCLUSIVE  plain*"])
    (pytester.path / "bncheck.toml").write_text("allow-empty = true\n")
    _run(pytester).assert_outcomes(passed=1)


def test_configuration_of_the_project(pytester: pytest.Pytester) -> None:
    """`[tool.bncheck]` and its gate table hold; an argument has the last word."""
    pytester.makepyprojecttoml('[tool.bncheck]\nignore = ["BN1", "BN2"]\n[tool.bncheck.gate]\nagainst = "none.json"\n')
    pytester.makepyfile(
        USE
        + """
def test_given():
    assert_batch_norm_healthy("forgotten/model.ckpt-300", against="wired/model.ckpt-300")

def test_configured():
    assert_batch_norm_healthy("forgotten/model.ckpt-300")

def test_fixture(bncheck_model):
    assert_batch_norm_healthy(bncheck_model("forgotten/model.ckpt-300", against=None))
"""
    )
    result = _run(pytester)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*none.json: no such file*"])


def test_fixture_answers_once(pytester: pytest.Pytester) -> None:
    """Several tests on one model judge it once; other options judge it anew; it gives findings as well as health."""
    pytester.makepyfile(
        """
        seen = []

        def test_first(bncheck_model):
            seen.append(bncheck_model("forgotten/model.ckpt-300"))
            assert [finding.code for finding in seen[0].findings] == ["BN101", "BN201"]

        def test_again(bncheck_model):
            assert bncheck_model("forgotten/model.ckpt-300") is seen[0]
            assert bncheck_model("forgotten/model.ckpt-300", use_graph=False) is not seen[0]
        """
    )
    _run(pytester).assert_outcomes(passed=2)


def test_unreadable_is_an_error_in_one_sentence(pytester: pytest.Pytester) -> None:
    """No such model: what is wrong, and with which path."""
    pytester.makepyfile(USE + "def test_it():\n    assert_batch_norm_healthy('none/model.ckpt')")
    result = _run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*bncheck.facts.errors.NotFound: none/model.ckpt*"])
    result.stdout.no_fnmatch_line("*gating/run.py*")


def test_fixture_is_documented(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` shows it."""
    _run(pytester, "--fixtures").stdout.fnmatch_lines(["bncheck_model*session scope*"])


def test_installed_as_a_plugin() -> None:
    """Whoever installs bncheck has the plugin: it is an entry point of the package."""
    (found,) = [entry for entry in entry_points(group="pytest11") if entry.name == "bncheck"]
    assert found.value == "bncheck.pytest_plugin"
