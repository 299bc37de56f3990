"""A process of its own for what runs the model: real processes that measure, allocate, hang, crash and babble."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from bncheck.commands.gate import parent as isolated
from bncheck.commands.gate.budget import Budget
from bncheck.commands.gate.child import Request
from bncheck.commands.gate.parent import run
from bncheck.facts.errors import UsageError
from bncheck.facts.findings import StageName, StageState
from bncheck.settings.options import Options

REQUEST = Request(path="model", options=Options(data="synthetic"))

HEAD = """
import os, pickle, sys, time
sys.path[:] = pickle.load(sys.stdin.buffer)
out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
def tell(message):
    pickle.dump(message, out)
    out.flush()
from bncheck.commands.gate.child import TimeExpected, Failed, SamplesDone
from bncheck.commands.shown import Shown
from bncheck.testing import compared, difference
"""
"""A worker that does without TensorFlow: it tells real measurements of made-up layers."""

MEASURED = (
    'tell(SamplesDone(done=7, total=None)); tell(Shown(comparison=compared(difference("conv/BatchNorm")).comparison))\n'
)


def _budget(**limits: float) -> Budget:
    return Budget(started=time.monotonic(), **limits)


def _worker(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(isolated, "_BOOT", HEAD + code)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_all_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts arrive whole, progress and the time to expect are heard, the time and memory of the run are known."""
    _worker(monkeypatch, "tell(TimeExpected(seconds=90.0));" + MEASURED + "tell(None)")
    heard: list[tuple[int, int | None]] = []
    expected: list[float] = []
    outcome = run(REQUEST, _budget(), lambda done, total: heard.append((done, total)), expected=expected.append)
    assert expected == [90.0]
    assert outcome.state is StageState.DONE
    assert outcome.shown is not None
    assert outcome.shown.comparison is not None
    assert outcome.shown.comparison.layers[0].layer == "conv/BatchNorm"
    assert heard == [(7, None)]
    assert 0 < outcome.reached[StageName.MODES] < 60
    assert outcome.peak_memory is not None
    assert outcome.peak_memory > 1


def test_what_was_measured_before_a_failure_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later stage that cannot run costs nothing of the earlier one."""
    _worker(monkeypatch, MEASURED + "tell(Failed(sentence='no converter for FooOp', usage=False))")
    outcome = run(REQUEST, _budget())
    assert (outcome.state, outcome.why) == (StageState.IMPOSSIBLE, "no converter for FooOp")
    assert outcome.shown is not None


def test_usage_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has to correct is an error, and no finding hides it."""
    _worker(monkeypatch, "tell(Failed(sentence='data.npz: holds no images', usage=True))")
    with pytest.raises(UsageError, match=r"data\.npz: holds no images"):
        run(REQUEST, _budget())


def test_time_is_limited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run that hangs is ended, and its process is gone."""
    note = tmp_path / "pid"
    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(isolated, "_BOOT", code)
    outcome = run(REQUEST, _budget(max_time=2.0))
    assert outcome.state is StageState.OVER_BUDGET
    assert "--max-time 2" in outcome.why
    assert not _alive(int(note.read_text()))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the exact peak is read from /proc")
def test_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that takes more memory than it may is ended, and what it measured stands."""
    _worker(monkeypatch, MEASURED + "held = bytearray(b'x' * 400_000_000)\ntime.sleep(600)")
    outcome = run(REQUEST, _budget(max_memory=300))
    assert outcome.state is StageState.OVER_BUDGET
    assert "--max-memory 300" in outcome.why
    assert outcome.peak_memory is not None
    assert outcome.peak_memory > 300
    assert outcome.shown is not None


def test_enough_memory_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit above what is needed changes nothing."""
    _worker(monkeypatch, MEASURED + "tell(None)")
    assert run(REQUEST, _budget(max_memory=4000, max_time=600)).state is StageState.DONE


def test_memory_that_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that nothing would enforce is refused."""
    monkeypatch.setattr(isolated, "peak_memory", lambda _pid: None)
    with pytest.raises(UsageError, match="--max-memory"):
        run(REQUEST, _budget(max_memory=100))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("os.abort()", "SIGABRT: a fault in native code"),
        ("os.kill(os.getpid(), 9)", "SIGKILL, as the system does when memory runs out"),
        ("os._exit(7)", "code 7"),
        ("1 / 0", "code 1"),
    ],
)
def test_crashes(code: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies is told of, and takes nothing along."""
    _worker(monkeypatch, MEASURED + code)
    outcome = run(REQUEST, _budget())
    assert outcome.state is StageState.IMPOSSIBLE
    assert says in outcome.why
    assert outcome.shown is not None


def test_dead_on_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends before it reads its request is one that died."""
    monkeypatch.setattr(isolated, "_BOOT", "import os; os._exit(3)")
    assert "code 3" in run(REQUEST, _budget()).why


def test_prints_do_not_disturb(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """What native code or a builder prints goes to standard error, and is no message."""
    _worker(monkeypatch, "print('hello'); os.system('echo from C'); sys.stdout.flush()\n" + MEASURED + "tell(None)")
    assert run(REQUEST, _budget()).state is StageState.DONE
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "from C" in shown.err


def test_interrupt_ends_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-C while a model runs leaves no process behind."""
    note = tmp_path / "pid"
    _worker(monkeypatch, f"open({str(note)!r}, 'w').write(str(os.getpid()))\n" + MEASURED + "time.sleep(600)")

    def interrupt(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(REQUEST, _budget(), interrupt)
    assert not _alive(int(note.read_text()))


def test_working_folder_shadows_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file called pickle.py beside the model is not run."""
    (tmp_path / "pickle.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    _worker(monkeypatch, MEASURED + "tell(None)")
    assert run(REQUEST, _budget()).state is StageState.DONE


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_process_ends_with_the_one_that_asked(tmp_path: Path) -> None:
    """Where the gate itself is killed, the process that runs the model does not live on."""
    note = tmp_path / "pid"
    worker = (
        "import os, pickle, sys, threading, time; sys.path[:] = pickle.load(sys.stdin.buffer)\n"
        "pickle.load(sys.stdin.buffer)\n"
        "from bncheck.commands.gate import child\n"
        "threading.Thread(target=child._end_with_the_other_side, daemon=True).start()\n"
        f"open({str(note)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    asks = (
        "import time\nfrom bncheck.commands.gate import parent\nfrom bncheck.commands.gate.budget import Budget\n"
        "from bncheck.commands.gate.child import Request\n"
        f"parent._BOOT = {worker!r}\n"
        "from bncheck.settings.options import Options\n"
        "request = Request(path='model', options=Options(data='synthetic'))\n"
        "parent.run(request, Budget(started=time.monotonic()))"
    )
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", asks])  # noqa: S606 - Python itself
    try:
        _until(lambda: note.exists() and bool(note.read_text()))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    inner = int(note.read_text())
    _until(lambda: not _alive(inner))


def _until(holds: object, seconds: float = 30) -> None:
    assert callable(holds)
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
