"""How long static commands take to start, beside a bare Python and one that imports numpy and protobuf.

python -m tests.bench.startup [ROUNDS]

Budget: a fifth of a second; `inspect checkpoint` with its graph at most 2.0 times the imports alone (1.5 times their
processor time). The two run in turn, and the ratio is the median of the ratios of each turn.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median

from tests.bench._measure import REPOSITORY, Run, inspect, medians, run, table

IMPORTS = "python -c 'import numpy, google.protobuf'"


def main(rounds: int = 21) -> None:
    """Prints one table."""
    bncheck = [sys.executable, "-m", "bncheck"]
    wired, forgotten = (
        str(REPOSITORY / "fixtures" / "mobilenet_v2" / kind / "model.ckpt-300") for kind in ("wired", "forgotten")
    )
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        IMPORTS: [sys.executable, "-c", "import numpy, google.protobuf"],
        "bncheck --help": [*bncheck, "--help"],
        "bncheck rules": [*bncheck, "rules"],
        "bncheck explain BN201": [*bncheck, "explain", "BN201"],
        "inspect checkpoint --no-graph": inspect("checkpoint", forgotten, "--no-graph"),
        "inspect checkpoint --no-graph --format json": inspect(
            "checkpoint", forgotten, "--no-graph", "--format", "json"
        ),
        "inspect checkpoint, 1.5 MB of MetaGraph, healthy": inspect("checkpoint", wired),
        "inspect checkpoint, 1.5 MB of MetaGraph, forgotten": inspect("checkpoint", forgotten),
    }
    costs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            cost = run(command)
            if number:
                costs[name].append(cost)
    rows = []
    for name, runs in costs.items():
        one = medians(runs)
        wall = _ratio([r.wall for r in runs], [r.wall for r in costs[IMPORTS]])
        cpu = _ratio([r.cpu for r in runs], [r.cpu for r in costs[IMPORTS]])
        rows.append((name, f"{1e3 * one.wall:.0f}", f"{1e3 * one.cpu:.0f}", f"{one.peak:.0f}", wall, cpu))
    table(("whole process, medians", "wall ms", "cpu ms", "peak MiB", "wall / imports", "cpu / imports"), rows)


def _ratio(runs: Sequence[float], beside: Sequence[float]) -> str:
    return f"{median(a / b for a, b in zip(runs, beside, strict=True)):.2f}x"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
