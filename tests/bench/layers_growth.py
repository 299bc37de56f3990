"""Static commands on models of very many layers: time and memory a layer.

python -m tests.bench.layers_growth [ROUNDS]

Checkpoints of 1,000 to 50,000 layers (gamma, beta, statistics and a kernel each) without a graph, HDF5 weights of
10,000 and 100,000 datasets, and graphs in which each of up to 3,200 layers has a train op of its own. All are written
without TensorFlow. Processor time, since a shared machine says little by the clock.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench._measure import Figure, Run, in_turn, inspect, run, table

BUDGETS = {"checkpoint": (50_000, 5.0), "weights": (25_000, 20.0), "graph": (3_200, 3.0)}
"""Kind -> (layers, seconds of processor time); of weights none was set, and this is a guess."""
SIZES = {"checkpoint": (1_000, 10_000, 50_000), "weights": (2_500, 25_000), "graph": (400, 1_600, 3_200)}
QUICK = {"checkpoint": (1_000, 10_000), "weights": (2_500,), "graph": (400, 1_600)}
_COMMANDS = {"checkpoint": "checkpoint", "weights": "model", "graph": "graph"}
_NAMES = {"checkpoint": "{}.ckpt", "weights": "{}.weights.h5", "graph": "{}.meta"}


def figures(*, quick: bool) -> list[Figure]:
    """What the largest of each kind costs; quick: what the budget's would cost at the same time a layer."""
    found = []
    for kind, costs in main(1, QUICK if quick else SIZES).items():
        layers, budget = BUDGETS[kind]
        largest = max(costs)
        seconds = costs[largest].cpu * layers / largest
        guess = "" if largest == layers else f", from {largest:,} layers"
        told = f"{seconds:.1f} s of processor time{guess}, {costs[largest].peak:.0f} MiB at {largest:,}"
        found.append(
            Figure(f"inspect {_COMMANDS[kind]} of {layers:,} layers", f"{budget:g} s", told, seconds <= budget)
        )
    return found


def main(rounds: int = 1, sizes: dict[str, Sequence[int]] = SIZES) -> dict[str, dict[int, Run]]:
    """Prints one table, and gives the medians by kind and layers."""
    found: dict[str, dict[int, Run]] = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, counts in sizes.items():
            run([sys.executable, "-m", "tests.bench._many_layers", folder, kind, *map(str, counts)])
            places = {n: str(Path(folder) / _NAMES[kind].format(n)) for n in counts}
            costs = in_turn({str(n): inspect(_COMMANDS[kind], place) for n, place in places.items()}, rounds=rounds)
            found[kind] = {n: costs[str(n)] for n in counts}
            rows += [
                (f"{kind}, {n:,} layers", f"{c.wall:.2f}", f"{c.cpu:.2f}", f"{1e6 * c.cpu / n:.0f}", f"{c.peak:.0f}")
                for n, c in found[kind].items()
            ]
    table(("whole process", "wall s", "cpu s", "cpu us a layer", "peak MiB"), rows)
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
