"""Runs from files on disk: which checkpoints belong to one, their order, and what their story says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import write_bundle

import bncheck
from bncheck.commands.target import unreadable
from bncheck.facts.errors import NoModel, ReadError
from bncheck.facts.findings import KERNELS, Report
from bncheck.facts.training_run import EventKind, RunStory
from bncheck.numerics.training_run.story import run_stories
from bncheck.report.views.training_run import good_told
from bncheck.settings.config import Settings
from bncheck.sources.bundle.checkpoint import read_checkpoint

CHANNELS, DECAY = 6, 0.9


def test_order_is_that_of_the_steps_inside(tmp_path: Path) -> None:
    """Names that sort otherwise do not matter, nor do times of writing."""
    for name, step in (("best", 30), ("a-final", 10), ("model.ckpt-1", 20)):
        _checkpoint(tmp_path / name, step)
    assert [report.target.step for report in bncheck.inspect_run(tmp_path)] == [10, 20, 30]


def test_folders_with_one_checkpoint_each_are_one_run(tmp_path: Path) -> None:
    """As savers write them that give each step its folder."""
    for step in (100, 20, 3):
        _checkpoint(tmp_path / f"step_{step}" / "model.ckpt", step)
    reports = bncheck.inspect_run(tmp_path)
    assert [report.target.step for report in reports] == [3, 20, 100]
    assert run_stories(reports)[0].names == tuple(f"step_{step}/model.ckpt" for step in (3, 20, 100))


def test_folders_with_several_are_runs_of_their_own(tmp_path: Path) -> None:
    """Their steps are not mixed, and hidden folders and models are left out."""
    for step in (10, 20):
        _checkpoint(tmp_path / "first" / f"model.ckpt-{step}", step)
        _checkpoint(tmp_path / "second" / "deep" / f"model.ckpt-{step}", step)
    _checkpoint(tmp_path / ".cache" / "model.ckpt-5", 5)
    _checkpoint(tmp_path / "export" / "variables" / "variables", 7)
    (tmp_path / "export" / "saved_model.pb").write_bytes(b"\x08\x01")
    reports = bncheck.inspect_run(tmp_path)
    assert [report.target.step for report in reports] == [10, 20, 10, 20]
    assert [Path(story.path).name for story in run_stories(reports)] == ["first", "deep"]


def test_nothing_at_any_depth(tmp_path: Path) -> None:
    """Folders without checkpoints: NoModel."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(NoModel):
        bncheck.inspect_run(tmp_path)


def test_updates_stop(tmp_path: Path) -> None:
    """The step after which no statistic changes, while the weights do; none of these is the one to quantize."""
    story = _story(tmp_path, range(100, 200, 10), stop=150)
    (event,) = story.events
    assert (event.kind, event.after, event.by) == (EventKind.STOPPED, 5, 6)
    assert "Updates stop at step 150 (model.ckpt-150)" in event.message
    assert (story.first_good, story.last_good) == (0, 5)


def test_frozen_weights_and_statistics_are_no_fault(tmp_path: Path) -> None:
    """Where nothing changes, nothing was trained."""
    for step in (10, 20, 30):
        _checkpoint(tmp_path / f"model.ckpt-{step}", 100, counter=step)
    assert run_stories(bncheck.inspect_run(tmp_path))[0].events == ()


def test_updates_never_start(tmp_path: Path) -> None:
    """The statistics are the initial ones in all checkpoints, while betas change."""
    story = _story(tmp_path, range(10, 60, 10), stop=0)
    assert [event.kind for event in story.events] == [EventKind.NEVER_STARTED]
    assert "no update ever ran" in story.events[0].message
    assert story.first_good is None


def test_updates_pause(tmp_path: Path) -> None:
    """A stretch without updates in the midst of a run is told with both ends, and faults nobody."""
    story = _story(tmp_path, range(100, 200, 10), pause=range(130, 161))
    (event,) = story.events
    assert (event.kind, event.severity.value) == (EventKind.PAUSED, "info")
    assert "from step 130 (model.ckpt-130) to step 160 (model.ckpt-160)" in event.message


def test_a_channel_dies_long_before_it_counts_as_dead(tmp_path: Path) -> None:
    """From step 130 on its variance shrinks by the decay alone: the window is told by that, not by the threshold."""
    for step in range(100, 400, 10):
        variance = _variance(step)
        variance[2] = _variance(130)[2] * DECAY ** max(0, step - 130) if step > 120 else variance[2]
        _checkpoint(tmp_path / f"model.ckpt-{step}", step, variance=variance)
    story = run_stories(bncheck.inspect_run(tmp_path, decay=DECAY))[0]
    (event,) = story.events
    assert (event.kind, event.after, event.by) == (EventKind.DIED, 2, 3)
    assert "1 channel dies between step 120 (model.ckpt-120) and step 130 (model.ckpt-130)" in event.message
    assert "(channel 2)" in event.message


def test_a_jump(tmp_path: Path) -> None:
    """Variances that are forty times larger from one checkpoint to the next, and stay so."""
    for step in range(100, 250, 10):
        factor = 40 if step >= 180 else 1
        _checkpoint(tmp_path / f"model.ckpt-{step}", step, variance=factor * _variance(step))
    story = run_stories(bncheck.inspect_run(tmp_path, decay=DECAY))[0]
    (event,) = story.events
    assert (event.kind, event.after, event.by) == (EventKind.JUMPED, 7, 8)
    assert event.severity.value == "warning"


def test_init_share_to_come(tmp_path: Path) -> None:
    """How many updates are still lacking: 0.99 ** 459 is the first below 1 %."""
    for step in (100, 200):
        _checkpoint(tmp_path / f"model.ckpt-{step}", step)
    story = run_stories(bncheck.inspect_run(tmp_path, decay=0.99))[0]
    assert "after 459 updates, 259 more than there were" in story.outlook


def test_an_unreadable_checkpoint_stops_nothing(tmp_path: Path) -> None:
    """The windows skip it, and places still count it."""
    steps = range(100, 200, 10)
    _write_run(tmp_path, steps, stop=150)
    (tmp_path / "model.ckpt-120.index").write_bytes(b"no table")
    reports = bncheck.inspect_run(tmp_path)
    story = run_stories(reports)[0]
    assert [report.exit_code for report in reports].count(2) == 1
    assert reports[2].exit_code == 2
    (event,) = story.events
    assert (event.after, event.by) == (5, 6)
    assert len(story.series["layers updated"]) == len(reports)


def _story(folder: Path, steps: Iterable[int], **how: Any) -> RunStory:
    _write_run(folder, steps, **how)
    (story,) = run_stories(bncheck.inspect_run(folder))
    return story


def _write_run(folder: Path, steps: Iterable[int], *, stop: int | None = None, pause: range = range(0)) -> None:
    """Statistics follow the steps, to `stop` or but for a `pause`; betas always do."""
    for step in steps:
        seen = pause.start if step in pause else step if stop is None else min(step, stop)
        started = seen > 0
        _checkpoint(
            folder / f"model.ckpt-{step}",
            step,
            mean=_mean(seen) if started else np.zeros(CHANNELS, np.float32),
            variance=_variance(seen) if started else np.ones(CHANNELS, np.float32),
        )


def _mean(step: int) -> Any:
    return np.sin(np.arange(CHANNELS) + step / 50).astype(np.float32)


def _variance(step: int) -> Any:
    return (0.6 + 0.3 * np.cos(np.arange(CHANNELS) + step / 50)).astype(np.float32)


def _checkpoint(prefix: Path, step: int, *, counter: int | None = None, **statistics: Mapping[str, Any]) -> None:
    """One layer, whose every vector is a smooth function of the step unless it is given."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(
        prefix,
        {
            "bn/moving_mean": statistics.get("mean", _mean(step)),
            "bn/moving_variance": statistics.get("variance", _variance(step)),
            "bn/gamma": (1 + 0.1 * np.sin(np.arange(CHANNELS) + step / 70)).astype(np.float32),
            "bn/beta": (0.1 * np.cos(np.arange(CHANNELS) + step / 70)).astype(np.float32),
            "global_step": np.array(step if counter is None else counter, np.int64),
        },
    )


def test_processes_give_the_same_reports(tmp_path: Path) -> None:
    """Judged here or in two other processes: the same JSON, one that cannot be read among them."""
    _write_run(tmp_path, range(100, 240, 10), stop=150)
    (tmp_path / "model.ckpt-120.index").write_bytes(b"no table")
    here, there = (_documents(bncheck.inspect_run(tmp_path, engine=engine)) for engine in ("local:1", "local:2"))
    assert len(here) == 14
    assert here == there


def test_a_shared_graph_gives_the_same_facts(tmp_path: Path) -> None:
    """A graph that several checkpoints have is recognised once; each report is that of inspecting the checkpoint alone.

    The last is of another graph, and has another layout.
    """
    fixtures = Path(__file__).parents[2] / "fixtures" / "mobilenet_v2"
    for step, (values, graph) in enumerate(
        (("wired", "wired"), ("forgotten", "wired"), ("decay_0.99", "wired"), ("too_early", "too_early")), 1
    ):
        for file in (*(fixtures / values).glob("*.index"), *(fixtures / values).glob("*.data-*")):
            shutil.copy(file, tmp_path / file.name.replace("-300.", f"-{step}."))
        for file in (fixtures / graph).glob("*.meta"):
            shutil.copy(file, tmp_path / f"model.ckpt-{step}.meta")
    reports = bncheck.inspect_run(tmp_path, engine="local:1")
    alone = [bncheck.inspect_checkpoint(tmp_path / f"model.ckpt-{step}") for step in range(1, 5)]
    assert _documents(reports) == _documents(alone)


@pytest.fixture
def long_run(tmp_path: Path) -> Path:
    """Fourteen checkpoints of MobileNetV2, alike but for the eighth, whose updates were forgotten."""
    fixtures = Path(__file__).parents[2] / "fixtures" / "mobilenet_v2"
    for step in range(1, 15):
        for file in (fixtures / ("forgotten" if step == 8 else "wired")).glob("model.*"):
            graph = fixtures / "wired" / file.name if file.suffix == ".meta" else file
            shutil.copy(graph, tmp_path / file.name.replace("-300.", f"-{step}."))
    return tmp_path


def test_kernels_of_a_long_run_stay_unread_where_they_change_nothing(long_run: Path) -> None:
    """Findings are those of each checkpoint by itself; what was left unread is said, and so is that in the story."""
    reports = bncheck.inspect_run(long_run, engine="local:1")
    alone = bncheck.inspect_checkpoint(long_run / "model.ckpt-1"), bncheck.inspect_checkpoint(long_run / "model.ckpt-8")
    unread = [number for number, report in enumerate(reports) if KERNELS in {one.what for one in report.not_checked}]
    assert {0, 7, 13}.isdisjoint(unread)
    assert len(unread) >= 6
    for number, report in enumerate(reports):
        other = alone[number == 7]
        assert report.verdict is other.verdict
        assert [finding.code for finding in report.findings] == [finding.code for finding in other.findings]
    (story,) = run_stories(reports)
    assert (story.without_kernels, story.first_good) == (len(unread), 0)
    assert f"In {len(unread)} of 14 checkpoints kernels were not read" in good_told(story)


def _prefixes(graphs: str) -> list[Path]:
    """Checkpoints among the fixtures that have a graph."""
    found = sorted((Path(__file__).parents[2] / "fixtures").glob(graphs))
    return [path.with_suffix("") for path in found if path.with_suffix(".index").exists()]


_TINY = [
    pytest.param(prefix, marks=() if place % 8 == 0 else pytest.mark.slow, id=prefix.parent.parent.name)
    for place, prefix in enumerate(_prefixes("tiny/**/*.meta"))
]


@pytest.mark.parametrize("prefix", _TINY)
def test_each_checkpoint_is_judged_as_alone(tmp_path: Path, prefix: Path) -> None:
    """Eight of one layout: other values, values that are no numbers, bits that flipped, a file that was cut short."""
    random = np.random.default_rng(7)
    tensors = {key: tensor.read() for key, tensor in read_checkpoint(prefix).tensors.items()}
    for step in range(1, 9):
        write_bundle(tmp_path / f"m-{step}", {key: _other(value, step, random) for key, value in tensors.items()})
        shutil.copy(f"{prefix}.meta", tmp_path / f"m-{step}.meta")
    for name in ("m-5.index", "m-6.data-00000-of-00001"):
        content = bytearray((tmp_path / name).read_bytes())
        content[random.integers(len(content))] ^= 4
        (tmp_path / name).write_bytes(content)
    cut = tmp_path / "m-7.data-00000-of-00001"
    cut.write_bytes(cut.read_bytes()[:-1])
    found = _documents(bncheck.inspect_run(tmp_path, engine="local:1"))
    assert sorted(found, key=_path) == sorted(_documents(_alone(tmp_path)), key=_path)


def _other(value: Any, step: int, random: np.random.Generator) -> Any:
    """The first as it is; in the others some of the values of some tensors are others."""
    if step == 1 or value.dtype.kind != "f" or not value.size or random.random() < 0.5:
        return value
    with np.errstate(invalid="ignore"):
        other = value * random.choice([0.0, 1.0, 30.0, np.inf]) + random.normal(scale=0.1, size=value.shape)
    return np.where(random.random(value.shape) < random.choice([0.3, 1.0]), other, value).astype(value.dtype)


def _alone(folder: Path) -> Iterable[Report]:
    for index in folder.glob("*.index"):
        try:
            yield bncheck.inspect_checkpoint(index.with_suffix(""))
        except ReadError as error:
            yield unreadable(index.with_suffix(""), error, Settings())


def _path(document: Mapping[str, Any]) -> str:
    return str(document["target"]["path"])


def _documents(reports: Iterable[Report]) -> list[Any]:
    documents = [json.loads(report.to_json()) for report in reports]
    return [{key: value for key, value in document.items() if key != "timing"} for document in documents]
