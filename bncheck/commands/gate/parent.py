"""Runs a model in a process of its own, within time and memory; what was measured until it ended is kept."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from bncheck.commands.gate.budget import Budget
from bncheck.commands.gate.child import Failed, Message, Request, SamplesDone, TimeExpected
from bncheck.commands.shown import Shown
from bncheck.facts.errors import UsageError
from bncheck.facts.findings import StageName, StageState

BYTES = 1e6
"""In a megabyte."""
_STATUS = Path("/proc/self/status")
_BOOT = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from bncheck.commands.gate.child import main; main()"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """How a run ended."""

    shown: Shown | None = None
    """None: nothing was measured."""
    state: StageState = StageState.DONE
    why: str = ""
    """Why not everything was measured."""
    reached: Mapping[StageName, float] = field(default_factory=dict)
    """Stage -> seconds after which it was done."""
    peak_memory: float | None = None
    """Megabytes."""


def run(
    request: Request,
    budget: Budget,
    progress: Callable[[int, int | None], None] = lambda _done, _total: None,
    *,
    expected: Callable[[float], None] = lambda _: None,
) -> Outcome:
    """Serves a request in a process of its own, which is gone when this returns or raises.

    Raises UsageError where the call or a file is at fault, or memory is limited and cannot be measured here.
    """
    if budget.max_memory is not None and peak_memory(None) is None:
        raise UsageError("--max-memory: the memory of a process cannot be measured on this system")
    outcome, start = Outcome(), time.monotonic()
    with _started(request) as (process, messages):
        while True:
            peak = peak_memory(process.pid)
            if peak is not None:
                outcome = replace(outcome, peak_memory=max(peak, outcome.peak_memory or 0.0))
            message = _next(messages)
            if message is None:
                return outcome
            if isinstance(message, SamplesDone):
                progress(message.done, message.total)
            elif isinstance(message, TimeExpected):
                expected(message.seconds)
            elif isinstance(message, Shown):
                outcome = _with(outcome, message, _since(start))
            elif isinstance(message, Failed):
                if message.usage:
                    raise UsageError(message.sentence)
                return replace(outcome, state=StageState.IMPOSSIBLE, why=message.sentence)
            elif isinstance(message, _Ended):
                return replace(outcome, state=StageState.IMPOSSIBLE, why=_died(process.wait()))
            exceeded = budget.exceeded(outcome.peak_memory)
            if exceeded:
                process.kill()
                return replace(_drained(outcome, messages, _since(start)), state=StageState.OVER_BUDGET, why=exceeded)


@dataclass(frozen=True)
class _Ended:
    """The process closed its side without a last word."""


@dataclass(frozen=True)
class _Quiet:
    """Nothing was said for a while."""


_Messages = queue.SimpleQueue["Message | _Ended"]


def _next(messages: _Messages) -> Message | _Ended | _Quiet:
    try:
        return messages.get(timeout=0.05 if _STATUS.exists() else 0.5)
    except queue.Empty:
        return _Quiet()


@contextmanager
def _started(request: Request) -> Iterator[tuple[subprocess.Popen[bytes], _Messages]]:
    messages: _Messages = queue.SimpleQueue()
    # isolated, so that no module of the working folder takes the place of Python's own before sys.path is set
    command = [sys.executable, "-I", *(["-X", "utf8"] if sys.flags.utf8_mode else []), "-c", _BOOT]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - Python itself
    assert process.stdin is not None
    assert process.stdout is not None
    reader = threading.Thread(target=_read, args=(process.stdout, messages), daemon=True)
    reader.start()
    try:
        # where it died at its start, the reader tells
        with suppress(BrokenPipeError):
            process.stdin.write(pickle.dumps(sys.path) + pickle.dumps(request))
            process.stdin.flush()
        yield process, messages
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()


def _read(pipe: IO[bytes], messages: _Messages) -> None:
    try:
        while True:
            messages.put(pickle.load(pipe))  # noqa: S301 - written by the process that this one started
    except (EOFError, pickle.UnpicklingError):
        messages.put(_Ended())


def _with(outcome: Outcome, shown: Shown, seconds: float) -> Outcome:
    """With what one more message tells, `seconds` after the start."""
    known = {StageName.MODES: shown.comparison, StageName.QUANTIZED: shown.quantized}
    new = {name: seconds for name, found in known.items() if found is not None and name not in outcome.reached}
    return replace(outcome, shown=shown, reached={**outcome.reached, **new})


def _drained(outcome: Outcome, messages: _Messages, seconds: float) -> Outcome:
    """With what was measured before the end and not yet read."""
    while True:
        message = messages.get()
        if isinstance(message, _Ended):
            return outcome
        if isinstance(message, Shown):
            outcome = _with(outcome, message, seconds)


def _since(start: float) -> float:
    return time.monotonic() - start


def _died(code: int) -> str:
    if code >= 0:
        return f"the process that ran the model exited with code {code}: see what it printed"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ": a fault in native code"
    return f"the process that ran the model was killed by {name}{hint}"


def peak_memory(pid: int | None) -> float | None:
    """Most megabytes that a process (None: this one) has held in memory so far; None where that cannot be told."""
    status = _STATUS if pid is None else Path(f"/proc/{pid}/status")
    try:
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / BYTES
    except (OSError, StopIteration):
        return None if _STATUS.exists() else _held_now(pid)


def _held_now(pid: int | None) -> float | None:
    """By `ps`, where there is no /proc: what is held now."""
    try:
        done = subprocess.run(  # noqa: S603 - numbers only
            ["ps", "-o", "rss=", "-p", str(pid or os.getpid())],  # noqa: S607 - the system's own
            capture_output=True,
            check=False,
        )
        return int(done.stdout) * 1024 / BYTES
    except (OSError, ValueError):
        return None
