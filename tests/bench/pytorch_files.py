"""`inspect` of a PyTorch file of 100 MB, beside one of 1 MB with the same statistics, and beside `torch.load`.

python -m tests.bench.pytorch_files [ROUNDS]

Budget: at most 0.3 s and 60 MB more than of the small one; 5 times as fast as a Python that imports torch and loads the
file with `weights_only=True`, which is left out where PyTorch is not installed.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.bench._measure import Figure, Run, in_turn, inspect, run, table

LARGE, SMALL, TORCH = "inspect, 100 MB", "inspect, 1 MB", "import torch, torch.load, 100 MB"
_LOAD = "import sys, torch; torch.load(sys.argv[1], weights_only=True)"
SECONDS, MEGABYTES, FASTER = 0.3, 60.0, 5.0


def figures(*, quick: bool) -> list[Figure]:
    """What 100 MB cost beyond 1 MB, and how much faster than PyTorch that is."""
    costs = main(3 if quick else 9)
    large, small, loaded = costs[LARGE], costs[SMALL], costs.get(TORCH)
    seconds, megabytes = large.wall - small.wall, (large.peak - small.peak) * 1.048576
    faster = None if loaded is None else loaded.wall / large.wall
    return [
        Figure(
            "inspect as a PyTorch file grows to 100 MB",
            f"{SECONDS} s and {MEGABYTES:.0f} MB more",
            f"{seconds:+.2f} s ({large.wall:.2f} against {small.wall:.2f}), {megabytes:+.1f} MB",
            seconds <= SECONDS and megabytes <= MEGABYTES,
        ),
        Figure(
            "inspect of a PyTorch file of 100 MB against torch.load with its import",
            f"{FASTER:.0f}x faster",
            "not measured: PyTorch is not installed" if faster is None else f"{faster:.1f}x faster",
            None if faster is None else faster >= FASTER,
        ),
    ]


def main(rounds: int = 9) -> dict[str, Run]:
    """Prints one table, and gives the medians; without PyTorch's line where it is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "-m", "tests.bench._pytorch_files", folder])
        large, small = (str(Path(folder) / f"{name}.pt") for name in ("large", "small"))
        commands = {LARGE: inspect("model", large), SMALL: inspect("model", small)}
        if find_spec("torch") is not None:
            commands[TORCH] = [sys.executable, "-c", _LOAD, large]
        costs = in_turn(commands, rounds=rounds)
    rows = [(name, f"{one.wall:.2f}", f"{one.cpu:.2f}", f"{one.peak * 1.048576:.1f}") for name, one in costs.items()]
    table(("whole process, medians", "wall s", "cpu s", "peak MB"), rows)
    return costs


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
