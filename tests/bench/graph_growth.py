"""`inspect graph` on training graphs of 10,000, 100,000 and 1,000,000 nodes: time and memory a node.

python -m tests.bench.graph_growth [ROUNDS]

Budget: linear, under 10 us a node. What the process needs to start is measured on a graph of one block, and taken off.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench._measure import Run, in_turn, inspect, run, table

SIZES = (1, 10_000, 100_000, 1_000_000)


def main(rounds: int = 3) -> None:
    """Prints one table."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = map(str, SIZES)
        run([sys.executable, "-W", "ignore", "-m", "tests.bench._graphs", folder, *sizes])
        costs = in_turn({str(n): inspect("graph", str(Path(folder) / f"{n}.meta")) for n in SIZES}, rounds=rounds)
        start = costs[str(SIZES[0])]
        rows = [_row(n, Path(folder) / f"{n}.meta", costs[str(n)], start) for n in SIZES[1:]]
    print(f"start-up, on one block: {start.wall:.2f} s, {start.cpu:.2f} s of CPU, {start.peak:.0f} MiB")
    table(("nodes", "file MB", "wall s", "cpu s", "wall us a node", "cpu us a node", "peak MiB", "bytes a node"), rows)


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
