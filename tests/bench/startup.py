"""How long static commands take to start, beside a bare Python and one that imports numpy and protobuf.

python -m tests.bench.startup [ROUNDS]

Budget: a fifth of a second; `inspect checkpoint` with its graph at most 2.0 times the imports alone (1.5 times their
processor time). All run in turn, with one thread for OpenBLAS, which bncheck sets for itself: with a thread a core, as
numpy starts it, the imports alone cost up to twice the processor time, and how much depends on what else runs. One line
shows them so. Ratios are those of the medians.
"""

from __future__ import annotations

import sys

from tests.bench._measure import REPOSITORY, Figure, Run, inspect, medians, run, table

IMPORTS = "python -c 'import numpy, google.protobuf'"
AS_NUMPY_STARTS = f"{IMPORTS}, a BLAS thread a core"
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


WITH_GRAPH = "inspect checkpoint, 1.5 MB of MetaGraph, healthy"


def figures(*, quick: bool) -> list[Figure]:
    """How long a command takes to start, against the imports that it cannot do without."""
    costs = main(3 if quick else 21)
    elapsed, processor = (getattr(costs[WITH_GRAPH], of) / getattr(costs[IMPORTS], of) for of in ("wall", "cpu"))
    told = f"{elapsed:.2f}x elapsed, {processor:.2f}x of processor time"
    budget = "2.0x elapsed, 1.5x of processor time"
    work = "inspect checkpoint with its graph against the imports of numpy and protobuf"
    return [Figure(work, budget, told, elapsed <= 2.0 and processor <= 1.5)]


def main(rounds: int = 21) -> dict[str, Run]:
    """Prints one table, and gives the medians."""
    bncheck = [sys.executable, "-m", "bncheck"]
    wired, forgotten = (
        str(REPOSITORY / "fixtures" / "mobilenet_v2" / kind / "model.ckpt-300") for kind in ("wired", "forgotten")
    )
    imports = [sys.executable, "-c", "import numpy, google.protobuf"]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        IMPORTS: imports,
        AS_NUMPY_STARTS: imports,
        "bncheck --help": [*bncheck, "--help"],
        "bncheck rules": [*bncheck, "rules"],
        "bncheck explain BN201": [*bncheck, "explain", "BN201"],
        "inspect checkpoint --no-graph": inspect("checkpoint", forgotten, "--no-graph"),
        "inspect checkpoint --no-graph --format json": inspect(
            "checkpoint", forgotten, "--no-graph", "--format", "json"
        ),
        WITH_GRAPH: inspect("checkpoint", wired),
        "inspect checkpoint, 1.5 MB of MetaGraph, forgotten": inspect("checkpoint", forgotten),
    }
    costs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            cost = run(command, variables={} if name == AS_NUMPY_STARTS else ONE_THREAD)
            if number:
                costs[name].append(cost)
    taken = {name: medians(runs) for name, runs in costs.items()}
    beside = taken[IMPORTS]
    rows = [
        (
            name,
            f"{1e3 * one.wall:.0f}",
            f"{1e3 * one.cpu:.0f}",
            f"{one.peak:.0f}",
            f"{one.wall / beside.wall:.2f}x",
            f"{one.cpu / beside.cpu:.2f}x",
        )
        for name, one in taken.items()
    ]
    table(("whole process, medians", "wall ms", "cpu ms", "peak MiB", "wall / imports", "cpu / imports"), rows)
    return taken


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
