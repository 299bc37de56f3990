"""Configuration files: where they are found, what each key takes, and one sentence for each thing that is wrong."""

from __future__ import annotations

import inspect
import json
import os
from datetime import date
from pathlib import Path

import pytest
from report_example import example

import bncheck
from bncheck.facts.errors import ConfigError
from bncheck.settings.config import FailOn, Ignore, split_codes
from bncheck.settings.config_file import Config, find_config, load_config, read_baseline

ALL_KEYS = """
format = "json"
output = ["sarif=out.sarif"]
fail-on = "warning"
select = ["bn1", "BN201"]
ignore = "BN107, BN112"
baseline = "old.json"
allow-empty = true
quiet = false
verbose = true
decay = 0.99
train-op = ["train"]
reference = "start.ckpt"

[gate]
data = "test.npz"
quantized = "model.tflite"
scheme = "dynamic"
calibration-batches = 8
no-quantize = true
labels = "y"
preprocess = "0..1"
channel-order = "bgr"
size = [96, 128]
batch-size = 16
batches = 4
model = "mobilenet_v2"
inputs = "images"
outputs = "logits"
against = "released.json"
max-time = 600
max-memory = "2.5 GB"
all-stages = true

[[ignores]]
layer = "head/*"
codes = ["BN107"]
reason = "pruned"
expires = 2027-01-31

[[ignores]]
layer = "*"
codes = "BN218"
reason = "wanted"
expires = "2027-02-01"
"""


def _load(tmp_path: Path, text: str, name: str = "bncheck.toml") -> Config:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_all_keys(tmp_path: Path) -> None:
    """Every key is read, paths relative to the file, codes in capitals."""
    assert _load(tmp_path, ALL_KEYS) == Config(
        path=tmp_path / "bncheck.toml",
        format="json",
        output=("sarif=out.sarif",),
        fail_on=FailOn.WARNING,
        select=("BN1", "BN201"),
        ignore=("BN107", "BN112"),
        baseline=tmp_path / "old.json",
        allow_empty=True,
        quiet=False,
        verbose=True,
        options={"decay": 0.99, "train_ops": ("train",), "reference": tmp_path / "start.ckpt"},
        gate={
            "data": tmp_path / "test.npz",
            "quantized": tmp_path / "model.tflite",
            "scheme": "dynamic",
            "calibration_batches": 8,
            "quantize": False,
            "labels": "y",
            "preprocess": "0..1",
            "channel_order": "bgr",
            "size": (96, 128),
            "batch_size": 16,
            "batches": 4,
            "model": "mobilenet_v2",
            "inputs": "images",
            "outputs": ("logits",),
            "against": tmp_path / "released.json",
            "max_time": 600.0,
            "max_memory": 2500.0,
            "early_stop": False,
        },
        ignores=(
            Ignore(layer="head/*", codes=("BN107",), reason="pruned", expires=date(2027, 1, 31)),
            Ignore(layer="*", codes=("BN218",), reason="wanted", expires=date(2027, 2, 1)),
        ),
    )


def test_gate_options_are_the_functions(tmp_path: Path) -> None:
    """Every key of `[tool.bncheck.gate]` is an argument of `bncheck.gate`; synthetic data is no path."""
    arguments = inspect.signature(bncheck.gate).parameters
    assert set(_load(tmp_path, ALL_KEYS).gate) <= set(arguments)
    assert _load(tmp_path, "[gate]\ndata = 'synthetic'").gate == {"data": "synthetic"}


@pytest.mark.parametrize("name", ["pyproject.toml", "bncheck.toml", "other.toml"])
def test_table_of_a_project(name: str, tmp_path: Path) -> None:
    """`[tool.bncheck]` is read in a file of any name, and nothing beside it."""
    text = '[project]\nname = "x"\n[tool.bncheck]\nfail-on = "never"\n'
    if name == "bncheck.toml":
        text = '[tool.bncheck]\nfail-on = "never"\n'
    assert _load(tmp_path, text, name).fail_on is FailOn.NEVER


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fail_on = 'error'", "unknown key 'fail_on' (did you mean 'fail-on'?)"),
        ("colour = true", "unknown key 'colour' (known: format, output"),
        ("fail-on = 'fatal'", "fail-on must be one of error, warning, never"),
        ("decay = 1.5", "decay must be a number from 0 to 1"),
        ("decay = true", "decay must be a number from 0 to 1"),
        ("decay = nan", "decay must be a number from 0 to 1"),
        ("quiet = 1", "quiet must be true or false"),
        ("select = 5", "select must be a list of texts"),
        ("select = [5]", "select must be a text that is not empty"),
        ("baseline = ''", "baseline must be a text that is not empty"),
        ("ignores = 5", "ignores must be written as [[tool.bncheck.ignores]] tables"),
        ("ignores = [5]", "ignores[0] must be a table"),
        ("[[ignores]]\nlayer = '*'\ncodes = ['BN1']", "ignores[0] has no 'reason'"),
        ("[[ignores]]\nlayer = '*'\ncodes = ['BN1']\nreason = ' '", "ignores[0].reason is blank"),
        ("[[ignores]]\nlayers = '*'", "unknown key 'layers' in ignores[0] (did you mean 'layer'?)"),
        ("[[ignores]]\nlayer='*'\ncodes='BN1'\nreason='x'\nexpires='soon'", "ignores[0].expires must be a day"),
        ("[[ignores]]\nlayer='*'\ncodes='BN1'\nreason='x'\nexpires=2026-01-01T00:00:00", "must be a day"),
        ("gate = 5", "gate must be a table"),
        ("[gate]\nmaxtime = 5", "unknown key 'maxtime' in gate (did you mean 'max-time'?)"),
        ("[gate]\nmax-time = 0", "gate.max-time must be a number greater than 0"),
        ("[gate]\nmax-memory = true", "gate.max-memory must be a number greater than 0"),
        ('[gate]\nmax-time = "5 weeks"', "gate.max-time must be a number greater than 0, or one with a unit, as '10m'"),
        ("[gate]\nbatches = 1.5", "gate.batches must be a whole number from 1"),
        ("[gate]\nsize = 224", "gate.size must be [height, width]"),
        ("[gate]\nchannel-order = 'grb'", "gate.channel-order must be one of rgb, bgr"),
        ("= 1", "not TOML"),
        ("tool = 1\n", "unknown key 'tool'"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str, tmp_path: Path) -> None:
    """One sentence that names the file, the key, and what it takes."""
    with pytest.raises(ConfigError) as error:
        _load(tmp_path, text)
    assert says in str(error.value)
    assert "bncheck.toml" in str(error.value)


def test_table_must_be_a_table(tmp_path: Path) -> None:
    """`bncheck = 5` under `[tool]` is refused."""
    with pytest.raises(ConfigError, match="must be a table"):
        _load(tmp_path, "[tool]\nbncheck = 5\n", "pyproject.toml")


def test_unreadable_files_are_config_errors(tmp_path: Path) -> None:
    """No file, a folder, bytes that are no text: a sentence each."""
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path)
    (tmp_path / "b.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="byte 5: the configuration is not UTF-8"):
        load_config(tmp_path / "b.toml")


def test_nearest_file_is_found(tmp_path: Path) -> None:
    """Upwards from the folder; bncheck.toml before pyproject.toml; a project without the table is passed by."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.bncheck]\n")
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.ruff]\n")
    assert find_config(inner) == tmp_path / "pyproject.toml"
    (tmp_path / "bncheck.toml").write_text("")
    assert find_config(inner) == tmp_path / "bncheck.toml"
    (inner / "pyproject.toml").write_text("[tool.bncheck]\n")
    assert find_config(inner) == inner / "pyproject.toml"


def test_the_search_ends_at_the_repository(tmp_path: Path) -> None:
    """What lies above its root is not the project's; a worktree's `.git` is a file."""
    inner = tmp_path / "above" / "repository" / "models"
    inner.mkdir(parents=True)
    (tmp_path / "above" / "bncheck.toml").write_text("")
    assert find_config(inner) == tmp_path / "above" / "bncheck.toml"
    (inner.parent / ".git").write_text("gitdir: elsewhere\n")
    assert find_config(inner) is None
    (inner.parent / "bncheck.toml").write_text("")
    assert find_config(inner) == inner.parent / "bncheck.toml"


def test_the_search_ends_at_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own configuration counts, one above it does not."""
    home = tmp_path / "users" / "me"
    (home / "work").mkdir(parents=True)
    (tmp_path / "users" / "bncheck.toml").write_text("")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert find_config(home / "work") is None
    (home / "bncheck.toml").write_text("")
    assert find_config(home / "work") == home / "bncheck.toml"


@pytest.mark.skipif(os.name == "nt", reason="no such modes")
def test_the_search_ends_where_everybody_may_write(tmp_path: Path) -> None:
    """As in /tmp, where anybody can put a configuration above the folders of others."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "bncheck.toml").write_text("")
    assert find_config(tmp_path / "mine") == tmp_path / "bncheck.toml"
    tmp_path.chmod(0o1777)
    assert find_config(tmp_path / "mine") is None


def test_a_damaged_project_above_is_another_tools_concern(tmp_path: Path) -> None:
    """Unless it speaks of bncheck, or belongs to the repository, or to the folder itself."""
    inner = tmp_path / "a"
    inner.mkdir()
    project = tmp_path / "pyproject.toml"
    project.write_text("[tool.ruff\n")
    assert find_config(inner) is None
    with pytest.raises(ConfigError, match="not TOML"):
        find_config(tmp_path)
    project.write_bytes(b"\xff")
    assert find_config(inner) is None
    project.write_text("[tool.bncheck]\nfail-on = \n")
    with pytest.raises(ConfigError, match="not TOML"):
        find_config(inner)
    project.write_text("[tool.ruff\n")
    (tmp_path / ".git").mkdir()
    with pytest.raises(ConfigError, match="not TOML"):
        find_config(inner)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
def test_a_pipe_is_no_configuration_and_no_baseline(tmp_path: Path) -> None:
    """To open one would wait for ever; as a project or bncheck.toml it is passed by."""
    for name in ("bncheck.toml", "pyproject.toml", "pipe"):
        os.mkfifo(tmp_path / name)
    assert find_config(tmp_path) is None
    with pytest.raises(ConfigError, match="no regular file"):
        load_config(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="no regular file"):
        read_baseline(Path("/dev/zero"))


def test_baseline_is_an_earlier_report(tmp_path: Path) -> None:
    """All fingerprints of a JSON report, suppressed ones with them; also of a run's."""
    path = tmp_path / "old.json"
    report = example()
    path.write_text(report.to_json())
    marks = {f.fingerprint for f in report.findings} | {s.finding.fingerprint for s in report.suppressed}
    assert read_baseline(path) == marks
    path.write_text(json.dumps({"schema": 1, "reports": [json.loads(report.to_json())] * 2}))
    assert read_baseline(path) == marks


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "5",
        "{}",
        '{"schema": 2}',
        '{"schema": 1, "reports": 5}',
        '{"schema": 1, "findings": [{}]}',
        '{"schema": 1, "findings": [5]}',
        "[" * 100_000,
    ],
    ids=["empty", "list", "number", "no schema", "other schema", "reports", "no fingerprint", "no finding", "deep"],
)
def test_baseline_that_is_none(text: str, tmp_path: Path) -> None:
    """Anything else is refused with a sentence, never taken for an empty baseline."""
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"old\.json: "):
        read_baseline(path)


def test_split_codes() -> None:
    """Repeated options and comma lists are one list, in capitals, blanks dropped."""
    assert split_codes(("bn1, BN201", "", "bn4,")) == ("BN1", "BN201", "BN4")
