"""`inspect graph` on training graphs of 10,000, 100,000 and 1,000,000 nodes: time and memory a node.

python -m tests.bench.graph_growth [ROUNDS]

Budget: linear, under 10 us a node. What the process needs to start is measured on a graph of one block, and taken off.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench._measure import Figure, Run, in_turn, inspect, run, table

SIZES = (1, 10_000, 100_000, 1_000_000)


def figures(*, quick: bool) -> list[Figure]:
    """The budget of DESIGN, section 9; quick without the graph of a million nodes."""
    sizes = SIZES[:-1] if quick else SIZES
    costs = main(1 if quick else 3, sizes)
    each = [1e6 * (costs[n].cpu - costs[sizes[0]].cpu) / n for n in sizes[1:]]
    told = ", ".join(f"{one:.1f}" for one in each) + f" us of processor time a node at {_listed(sizes[1:])} nodes"
    met = each[-1] < 10 and each[-1] < 2 * each[0]
    return [Figure("inspect graph as the graph grows", "linear, under 10 us a node", told, met)]


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(f"{size:,}" for size in sizes)


def main(rounds: int = 3, sizes: Sequence[int] = SIZES) -> dict[int, Run]:
    """Prints one table, and gives the medians by nodes."""
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "-W", "ignore", "-m", "tests.bench._graphs", folder, *map(str, sizes)])
        costs = in_turn({str(n): inspect("graph", str(Path(folder) / f"{n}.meta")) for n in sizes}, rounds=rounds)
        start = costs[str(sizes[0])]
        rows = [_row(n, Path(folder) / f"{n}.meta", costs[str(n)], start) for n in sizes[1:]]
    print(f"start-up, on one block: {start.wall:.2f} s, {start.cpu:.2f} s of CPU, {start.peak:.0f} MiB")
    table(("nodes", "file MB", "wall s", "cpu s", "wall us a node", "cpu us a node", "peak MiB", "bytes a node"), rows)
    return {n: costs[str(n)] for n in sizes}


def _row(nodes: int, path: Path, cost: Run, start: Run) -> tuple[str, ...]:
    return (
        f"{nodes:,}",
        f"{path.stat().st_size / 1e6:.0f}",
        f"{cost.wall:.2f}",
        f"{cost.cpu:.2f}",
        f"{1e6 * (cost.wall - start.wall) / nodes:.1f}",
        f"{1e6 * (cost.cpu - start.cpu) / nodes:.1f}",
        f"{cost.peak:.0f}",
        f"{(cost.peak - start.peak) * 2**20 / nodes:.0f}",
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
