"""How long static commands take to start, beside a bare Python and one that imports numpy and protobuf.

python -m tests.bench.startup [ROUNDS]

Budget: a fifth of a second; `inspect checkpoint` with its graph at most 2.0 times `python -c 'import numpy,
google.protobuf'` (1.5 times its processor time). Two ratios of medians stand side by side. The budget's is
to that command as it is typed, where numpy starts OpenBLAS with a thread a core. bncheck starts it with one thread, and
the stricter ratio is to imports that do so too: they cost less, up to half the processor time.
"""

from __future__ import annotations

import sys

from tests.bench._measure import REPOSITORY, Figure, Run, inspect, medians, run, table

AS_TYPED = "python -c 'import numpy, google.protobuf'"
ONE_THREADED = f"{AS_TYPED}, one BLAS thread"
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


WITH_GRAPH = "inspect checkpoint, 1.5 MB of MetaGraph, healthy"


def figures(*, quick: bool) -> list[Figure]:
    """How long a command takes to start, against the imports that it cannot do without."""
    costs = main(3 if quick else 21)
    elapsed, processor = _ratios(costs[WITH_GRAPH], costs[AS_TYPED])
    strictly = "{:.2f}x and {:.2f}x".format(*_ratios(costs[WITH_GRAPH], costs[ONE_THREADED]))
    told = f"{elapsed:.2f}x elapsed, {processor:.2f}x of processor time ({strictly} with one BLAS thread on both sides)"
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
        AS_TYPED: imports,
        ONE_THREADED: imports,
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
            cost = run(command, variables={} if name == AS_TYPED else ONE_THREAD)
            if number:
                costs[name].append(cost)
    taken = {name: medians(runs) for name, runs in costs.items()}
    rows = [
        (
            name,
            f"{1e3 * one.wall:.0f}",
            f"{1e3 * one.cpu:.0f}",
            f"{one.peak:.0f}",
            *(f"{ratio:.2f}x" for of in (AS_TYPED, ONE_THREADED) for ratio in _ratios(one, taken[of])),
        )
        for name, one in taken.items()
    ]
    ratios = ("wall / imports", "cpu / imports", "wall / one thread", "cpu / one thread")
    table(("whole process, medians", "wall ms", "cpu ms", "peak MiB", *ratios), rows)
    return taken


def _ratios(one: Run, imports: Run) -> tuple[float, float]:
    """(elapsed, processor time) of a command over those of imports."""
    return one.wall / imports.wall, one.cpu / imports.cpu


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
