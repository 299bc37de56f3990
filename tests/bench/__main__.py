"""Every budget in one run, and one table of them.

python -m tests.bench [--quick] [NAME ...]

NAME: a bench of this folder that has a budget; all of them without one. `--quick` takes smaller sizes and fewer rounds,
some minutes in all; what is told then is a hint. Each bench runs in a process of its own, so that none measures what
another left in memory. Exit code 1 where a budget is not met or a bench fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module

from tests.bench._measure import REPOSITORY, Figure, environment, table

BENCHES = (
    "inspect_vs_tensorflow",
    "startup",
    "checkpoint_growth",
    "pytorch_files",
    "graph_growth",
    "layers_growth",
    "training_run",
    "compare_steady_state",
    "engine",
    "quantized_vs_debugger",
    "suite",
)
_MARK = "figures: "
_MET = {True: "yes", False: "NO", None: "-"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is asked for; 1 where a budget is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench with a budget is called {unknown[0]!r}: {', '.join(BENCHES)}")
    if asked.alone:
        found = [one for name in asked.names for one in figures(name, quick=asked.quick)]
        print(_MARK + json.dumps([asdict(one) for one in found]))
        return 0
    told = [one for name in asked.names or BENCHES for one in _apart(name, quick=asked.quick)]
    print()
    rows = [(one.work, one.budget, one.measured, _MET[one.met]) for one in told]
    table(("work", "budget", "measured", "met"), rows)
    return 1 if any(one.met is False for one in told) else 0


def figures(name: str, *, quick: bool) -> list[Figure]:
    """The figures of one bench, measured in this process."""
    found: list[Figure] = import_module(f"tests.bench.{name}").figures(quick=quick)
    return found


def _apart(name: str, *, quick: bool) -> list[Figure]:
    """The same in a process of its own, whose tables are passed on; a bench that fails meets no budget."""
    print(f"\n== {name}", flush=True)
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench", "--alone", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, text=True, check=False)
    *shown, last = done.stdout.splitlines() or [""]
    print("\n".join(shown), flush=True)
    if done.returncode or not last.startswith(_MARK):
        return [Figure(name, "-", f"failed with exit code {done.returncode}", met=False)]
    return [Figure(**one) for one in json.loads(last.removeprefix(_MARK))]


if __name__ == "__main__":
    sys.exit(main())
