"""`inspect checkpoint` on the same statistics in 1 MB and inside 100 GB of sparse shards.

python -m tests.bench.checkpoint_growth [ROUNDS]

Budget: within 1.2 times in time and memory.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench._measure import Figure, Run, in_turn, inspect, run, table


def figures(*, quick: bool) -> list[Figure]:
    """The budget of DESIGN, section 9."""
    costs = main(3 if quick else 9)
    small, large = costs["small"], costs["large"]
    ratios = (large.cpu / small.cpu, large.peak / small.peak)
    told = f"{ratios[0]:.2f}x the processor time, {ratios[1]:.2f}x the memory"
    return [Figure("inspect as the checkpoint grows to 110 GB", "within 1.2x", told, max(ratios) <= 1.2)]


def main(rounds: int = 9) -> dict[str, Run]:
    """Prints one table, and gives the medians."""
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "-m", "tests.bench._sparse", folder])
        prefixes = {name: Path(folder) / f"{name}.ckpt" for name in ("small", "large")}
        costs = in_turn({name: inspect("checkpoint", str(path)) for name, path in prefixes.items()}, rounds=rounds)
        small = costs["small"]
        rows = [
            (
                f"{name}: {_gigabytes(prefixes[name]):,.3f} GB",
                f"{1e3 * cost.wall:.0f}",
                f"{1e3 * cost.cpu:.0f}",
                f"{cost.peak:.1f}",
                f"{cost.wall / small.wall:.2f}",
                f"{cost.cpu / small.cpu:.2f}",
                f"{cost.peak / small.peak:.2f}",
            )
            for name, cost in costs.items()
        ]
    table(("data files", "wall ms", "cpu ms", "peak MiB", "wall x", "cpu x", "memory x"), rows)
    return costs


def _gigabytes(prefix: Path) -> float:
    return sum(path.stat().st_size for path in prefix.parent.glob(f"{prefix.name}.data-*")) / 1e9


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
