"""From a path to a report: what each inspection takes, refuses, and reads; real models where they are at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import write_bundle

import bncheck
from bncheck.facts.errors import NoModel, NotFound, UsageError
from bncheck.facts.findings import Verdict
from bncheck.sources.graph import protos

FIXTURES = Path(__file__).parents[2] / "fixtures" / "mobilenet_v2"
REAL = Path(__file__).parents[3] / "shared" / "real"

needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the MobileNetV2 fixtures are absent")
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real public models (../shared/real) are absent")


def _bundle(prefix: Path, *, moved: bool = True, step: int = 300) -> Path:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray] = {"global_step": np.array(step, np.int64)}
    for name in ("conv1/BatchNorm", "conv2/BatchNorm"):
        tensors |= {
            f"{name}/gamma": np.array([0.9, 1.1], np.float32),
            f"{name}/beta": np.array([0.1, -0.2], np.float32),
            f"{name}/moving_mean": np.array([0.4, 0.3] if moved else [0, 0], np.float32),
            f"{name}/moving_variance": np.array([2.0, 0.7] if moved else [1, 1], np.float32),
        }
    write_bundle(prefix, tensors)
    return prefix


def test_checkpoint_that_never_moved(tmp_path: Path) -> None:
    """A bare checkpoint at its initial statistics fails with BN101, and the report names target and step."""
    report = bncheck.inspect_checkpoint(_bundle(tmp_path / "model.ckpt-300", moved=False))
    assert report.verdict is Verdict.FAIL
    assert [f.code for f in report.findings if f.severity is bncheck.Severity.ERROR] == ["BN101"]
    assert (Path(report.target.path).name, report.target.step) == ("model.ckpt-300", 300)
    assert set(report.timing) == {"read", "recognise", "rules"}


def test_healthy_checkpoint(tmp_path: Path) -> None:
    """The same with statistics that moved passes, by the same function and as a model."""
    prefix = _bundle(tmp_path / "model.ckpt-300")
    assert bncheck.inspect_checkpoint(prefix).verdict is Verdict.PASS
    assert bncheck.inspect_model(str(prefix)).verdict is Verdict.PASS


def test_hints_reach_recognition(tmp_path: Path) -> None:
    """`decay` and `steps` are taken for what the file does not say: 0.9997 after 300 updates is fatal."""
    report = bncheck.inspect_checkpoint(_bundle(tmp_path / "model.ckpt-300"), decay=0.9997, steps=300)
    assert report.target.updates == 300
    assert {layer.decay for layer in report.layers} == {0.9997}


@pytest.mark.parametrize(("decay", "steps"), [(1.5, None), (-0.1, None), (float("nan"), None), (None, -1)])
def test_impossible_numbers_are_refused(decay: float | None, steps: int | None, tmp_path: Path) -> None:
    """A decay outside 0..1 or a negative count is a usage error, before anything is read."""
    with pytest.raises(UsageError):
        bncheck.inspect_checkpoint(tmp_path / "none", decay=decay, steps=steps)


def test_reference_that_is_equal(tmp_path: Path) -> None:
    """Statistics equal to those of the reference are found (BN116), others are not."""
    prefix = _bundle(tmp_path / "a" / "model.ckpt-300")
    start = _bundle(tmp_path / "b" / "start.ckpt-0", step=0)
    other = _bundle(tmp_path / "c" / "start.ckpt-0", moved=False)
    assert "BN116" in {f.code for f in bncheck.inspect_checkpoint(prefix, reference=start).findings}
    report = bncheck.inspect_checkpoint(prefix, reference=other)
    assert "BN116" not in {f.code for f in report.findings}
    assert "reference" in report.checked


def test_reference_without_statistics_is_refused(tmp_path: Path) -> None:
    """A reference that holds none cannot be compared with."""
    write_bundle(tmp_path / "other", {"kernel": np.ones(3, np.float32)})
    with pytest.raises(UsageError, match="holds no statistics"):
        bncheck.inspect_checkpoint(_bundle(tmp_path / "model.ckpt-300"), reference=tmp_path / "other")


def test_missing_path(tmp_path: Path) -> None:
    """Nothing there: NotFound, for each inspection."""
    for inspect in (bncheck.inspect_checkpoint, bncheck.inspect_graph, bncheck.inspect_model):
        with pytest.raises(NotFound):
            inspect(tmp_path / "none")


def test_empty_folder(tmp_path: Path) -> None:
    """A folder without a model: NoModel, which is exit code 3."""
    for inspect in (bncheck.inspect_checkpoint, bncheck.inspect_model, bncheck.inspect_run):
        with pytest.raises(NoModel):
            inspect(tmp_path)


def test_checkpoint_is_no_graph(tmp_path: Path) -> None:
    """`inspect graph` on a checkpoint says which command to use."""
    with pytest.raises(UsageError, match="bncheck inspect checkpoint"):
        bncheck.inspect_graph(_bundle(tmp_path / "model.ckpt-300"))


def test_run_is_in_step_order(tmp_path: Path) -> None:
    """One report a checkpoint, 20 before 100."""
    for step in (100, 20, 3):
        _bundle(tmp_path / f"model.ckpt-{step}", moved=step > 20, step=step)
    reports = bncheck.inspect_run(tmp_path)
    assert [r.target.step for r in reports] == [3, 20, 100]
    assert [r.exit_code for r in reports] == [1, 1, 0]


def test_run_goes_on_after_a_broken_checkpoint(tmp_path: Path) -> None:
    """A checkpoint that is cut off becomes a report with exit code 2 and the reason; the others are judged."""
    _bundle(tmp_path / "model.ckpt-1", step=1)
    broken = _bundle(tmp_path / "model.ckpt-2", step=2)
    index = broken.with_name("model.ckpt-2.index")
    index.write_bytes(index.read_bytes()[:-10])
    first, second = bncheck.inspect_run(tmp_path)
    assert (first.exit_code, second.exit_code, second.verdict) == (0, 2, Verdict.INCONCLUSIVE)
    assert "model.ckpt-2" in second.headline


def test_report_as_json(tmp_path: Path) -> None:
    """`Report.to_json()` is the JSON of version 1."""
    document = json.loads(bncheck.inspect_checkpoint(_bundle(tmp_path / "m")).to_json())
    assert (document["schema"], document["verdict"], document["counts"]["layers"]) == (1, "pass", 2)


@pytest.mark.parametrize(("message", "named"), [(protos.GraphDef(), "GraphDef"), (protos.MetaGraphDef(), "MetaGraph")])
def test_a_graph_is_called_what_it_is(message: Any, named: str, tmp_path: Path) -> None:
    """A GraphDef that is given with a checkpoint is no MetaGraph."""
    graph = message.graph_def if hasattr(message, "graph_def") else message
    graph.node.add(name="x", op="Placeholder")
    (tmp_path / "given.pb").write_bytes(message.SerializeToString())
    report = bncheck.inspect_checkpoint(_bundle(tmp_path / "m"), graph=tmp_path / "given.pb")
    assert report.target.format == f"TF1 checkpoint + {named}"


def test_public_api_is_complete() -> None:
    """Every public name exists, is listed by dir(), and any other is refused."""
    assert {name for name in bncheck.__all__ if getattr(bncheck, name, None) is not None} == set(bncheck.__all__)
    assert set(bncheck.__all__) <= set(dir(bncheck))
    with pytest.raises(AttributeError, match="no attribute 'inspect_nothing'"):
        getattr(bncheck, "inspect_nothing")  # noqa: B009 - mypy knows that it is not there


@needs_fixtures
@pytest.mark.parametrize(
    ("name", "cause", "explained"),
    [
        ("forgotten", "BN201", "BN101"),
        ("too_early", "BN202", "BN102"),
        ("decay_0.9997", "BN103", None),
        ("decay_0.99", "BN103", None),
        ("wired", None, None),
    ],
)
def test_mobilenet(name: str, cause: str | None, explained: str | None) -> None:
    """The MobileNetV2 of the story: each fault has its own cause, what follows is explained by it, wired passes."""
    report = bncheck.inspect_checkpoint(FIXTURES / name)
    errors = {f.code: f.caused_by for f in report.findings if f.severity is bncheck.Severity.ERROR}
    assert len(report.layers) == 52
    assert report.exit_code == (0 if cause is None else 1)
    assert errors == ({} if cause is None else {cause: None} if explained is None else {cause: None, explained: cause})


@needs_fixtures
def test_graph_of_a_checkpoint_can_be_given_or_left_out(tmp_path: Path) -> None:
    """`graph` finds it elsewhere, `use_graph=False` leaves it out: then only the values tell."""
    for file in (FIXTURES / "forgotten").glob("model.ckpt-300.*"):
        shutil.copy(file, tmp_path / file.name)
    meta = tmp_path / "model.ckpt-300.meta"
    prefix = tmp_path / "model.ckpt-300"
    assert bncheck.inspect_checkpoint(prefix, use_graph=False).checked == ("values",)
    assert bncheck.inspect_checkpoint(meta).checked == ("values", "graph")
    other_name = meta.rename(tmp_path / "graph.meta")
    assert bncheck.inspect_checkpoint(prefix).checked == ("values", "graph")
    (tmp_path / "elsewhere").mkdir()
    elsewhere = other_name.rename(tmp_path / "elsewhere" / "graph.meta")
    assert bncheck.inspect_checkpoint(prefix).checked == ("values",)
    assert bncheck.inspect_graph(elsewhere.parent).checked == ("graph",)
    report = bncheck.inspect_checkpoint(prefix, graph=elsewhere)
    assert report.checked == ("values", "graph")
    assert "BN201" in {f.code for f in report.findings}
    assert bncheck.inspect_graph(elsewhere).checked == ("graph",)


@needs_real
@pytest.mark.parametrize(
    ("path", "layers"),
    [
        ("chiron_dna/final.ckpt-158301", 10),
        ("unetcoreograph_meta/model.ckpt", 4),
        ("handtracking_meta/model.ckpt", 60),
        ("basic_pitch/nmp", 3),
        ("mlperf_tiny_kws/kws_ref_model", 9),
        ("mlperf_tiny_vww/vww_96.h5", 27),
        ("fer_emotion/emotion_model.hdf5", 14),
        ("eegnet/EEGNet-8-2-weights.h5", 3),
        ("nsfwjs_mobilenetv2.npz", 52),
    ],
)
def test_healthy_real_models_pass(path: str, layers: int) -> None:
    """Models called healthy, clean or correct: all layers found, no error, exit code 0."""
    report = bncheck.inspect_model(REAL / path)
    assert (len(report.layers), report.verdict) == (layers, Verdict.PASS)


@needs_real
@pytest.mark.parametrize(("stems", "layers"), [(2, 24), (4, 48), (5, 60)])
def test_spleeter_fails(stems: int, layers: int) -> None:
    """The famous model with the fault fails from its index and graph alone."""
    report = bncheck.inspect_checkpoint(REAL / "spleeter_meta" / f"{stems}stems" / "model")
    assert (len(report.layers), report.exit_code) == (layers, 1)
    assert {"BN101", "BN206"} <= {f.code for f in report.findings}


def test_empty_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty path, as an unset variable of a shell gives it, is not the working folder."""
    monkeypatch.chdir(_bundle(tmp_path / "m.ckpt").parent)
    for inspect in (bncheck.inspect_model, bncheck.inspect_checkpoint, bncheck.inspect_graph, bncheck.inspect_run):
        with pytest.raises(UsageError, match="the path is empty"):
            inspect("")
