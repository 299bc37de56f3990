"""`python -m tests.fuzz N [FORMAT ...]`: N damaged files, spread over the formats, and a table of what became of them.

Each runs in a worker process; one that dies is started again behind the case that it died in, which is a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
QUIET = 120.0
"""Seconds without a word after which a worker counts as hanging, whatever the processor's clock says."""


def work(name: str, first: int, last: int) -> None:
    """A worker: one line a case as it begins, one as it ends."""
    from tests.fuzz.cases import limited, outcome

    limited()
    for number in range(first, last):
        print(json.dumps([number, "begun"]), flush=True)  # noqa: T201 - to who started the worker
        print(json.dumps([number, outcome(name, number)]), flush=True)  # noqa: T201 - as above


def outcomes(name: str, first: int, last: int) -> dict[int, str]:
    """What became of these cases; a case in which the worker died or fell silent is a "bug"."""
    found: dict[int, str] = {}
    while first < last:
        command = [sys.executable, "-m", "tests.fuzz", "--work", name, str(first), str(last)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stderr is not None
            current = first
            watchdog = threading.Timer(QUIET, worker.kill)
            watchdog.start()
            for line in worker.stdout:
                current, told = json.loads(line)
                if told != "begun":
                    found[current] = told
                watchdog.cancel()
                watchdog = threading.Timer(QUIET, worker.kill)
                watchdog.start()
            watchdog.cancel()
            errors = worker.stderr.read()
        if current not in found:
            found[current] = f"bug: the process ended with code {worker.returncode}: {errors[-500:]}"
        first = current + 1
    return found


def table(by_format: dict[str, dict[int, str]]) -> str:
    """One line a format: cases, reports, named errors by name, failures."""
    rows = [f"{'format':18}{'cases':>8}{'reports':>9}{'errors':>8}{'failures':>10}  errors by name"]
    for name, found in by_format.items():
        count = Counter(told if not told.startswith("bug") else "bug" for told in found.values())
        errors = {told[6:]: n for told, n in count.most_common() if told.startswith("error ")}
        told = ", ".join(f"{error} {n}" for error, n in errors.items())
        head = f"{name:18}{len(found):8,}{count['report']:9,}{sum(errors.values()):8,}{count['bug']:10,}"
        rows.append(f"{head}  {told}")
    return "\n".join(rows)


def main(total: int, names: list[str]) -> int:
    """Runs `total` cases, prints the table and each kind of failure once; 1 where there are any."""
    from tests.fuzz.cases import AIMED

    began, chosen, start = time.monotonic(), names or list(AIMED), int(os.environ.get("FUZZ_FIRST", "0"))
    each = -(-total // len(chosen))
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        every = workers.map(lambda name: outcomes(name, start, start + each), chosen)
        by_format = dict(zip(chosen, every, strict=True))
    print(table(by_format))  # noqa: T201 - a command
    bugs = {
        (name, told.strip().splitlines()[-1][:160]): (number, told)
        for name, found in by_format.items()
        for number, told in found.items()
        if told.startswith("bug")
    }
    for (name, _), (number, told) in bugs.items():
        print(f"\n{name} {number} {told}")  # noqa: T201 - as above
    print(f"\n{time.monotonic() - began:.0f} s")  # noqa: T201 - as above
    return bool(bugs)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
