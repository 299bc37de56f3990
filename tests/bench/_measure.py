"""Runs commands as whole processes, one after the other in turn, and tells what each cost: nothing is asserted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one process cost."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds, user and system, all threads."""
    peak: float
    """MiB resident at most."""


@dataclass(frozen=True)
class Figure:
    """One line of the table of all budgets."""

    work: str
    budget: str
    measured: str
    met: bool | None
    """None where it could not be measured here."""


def run(command: Sequence[str], *, codes: Sequence[int] = (0, 1), variables: Mapping[str, str] | None = None) -> Run:
    """Runs a command in the repository, its output thrown away. Raises CalledProcessError for any other exit code.

    `variables` are of the environment, beside those that all have.

    The kernel counts what the parent held when it forked into the child's peak, so the caller must stay small: no
    numpy, no TensorFlow in the process that measures.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**environment(), **(variables or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in codes:
        raise subprocess.CalledProcessError(process.returncode, list(command), stderr=errors.decode(errors="replace"))
    return Run(wall=wall, cpu=used.ru_utime + used.ru_stime, peak=used.ru_maxrss / 1024)


def environment() -> dict[str, str]:
    """The environment of all processes: TensorFlow silent, this repository importable, bytecode cached.

    Every installation has its bytecode; without it each start of bncheck would compile 20,000 lines.
    """
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "TF_CPP_MIN_LOG_LEVEL": "3", "NO_COLOR": "1", "PYTHONPATH": path}


def in_turn(commands: Mapping[str, Sequence[str]], *, rounds: int, codes: Sequence[int] = (0, 1)) -> dict[str, Run]:
    """Name -> medians of `rounds` runs, A B C A B C ..., after one round that only warms the caches."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            cost = run(command, codes=codes)
            if number:
                runs[name].append(cost)
    return {name: medians(of_one) for name, of_one in runs.items()}


def medians(runs: Sequence[Run]) -> Run:
    """The median of each number by itself."""
    return Run(wall=median(r.wall for r in runs), cpu=median(r.cpu for r in runs), peak=median(r.peak for r in runs))


def inspect(*arguments: str, python: str = sys.executable) -> list[str]:
    """The command line of `bncheck inspect`."""
    return [python, "-m", "bncheck", "inspect", *arguments]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows under a head, the first column to the left, numbers to the right."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    for row in (head, *rows):
        name, *numbers = row
        cells = [name.ljust(widths[0]), *(text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True))]
        print("  ".join(cells).rstrip())
