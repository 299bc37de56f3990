"""The process around a command: its three standard streams, and signals that end it without leaving things behind."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType


class Terminated(BaseException):
    """SIGTERM or SIGHUP came: unwinds as an interrupt does, so that unfinished files go; `args` is the signal."""


class Nowhere(io.TextIOWrapper):
    """Stands for a standard stream that was closed when the process began."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull).open("wb"), encoding="utf-8")  # noqa: SIM115 - as long as the process


@contextmanager
def prepared() -> Iterator[None]:
    """For one command: closed standard streams lead to nothing, and signals to end unwind it.

    A file that is opened while a standard stream is closed would take its number, and be written to by native code.
    """
    for number in range(3):
        if not _is_open(number):
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or Nowhere()
    sys.stderr = sys.stderr or Nowhere()
    ends = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    before = {}
    if threading.current_thread() is threading.main_thread():
        # one that the caller ignores, as nohup does, stays ignored
        before = {end: signal.getsignal(end) for end in ends if signal.getsignal(end) is signal.SIG_DFL}
    for end in before:
        signal.signal(end, _terminate)
    try:
        yield
    finally:
        for end, handler in before.items():
            signal.signal(end, handler)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _terminate(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
    raise Terminated(number)


def forget_stdout() -> None:
    """Standard output leads to nothing from here on, so that the interpreter's flush at exit does not complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
