"""`inspect checkpoint` on MobileNetV2 1.0 as a whole process, against the same facts read through TensorFlow.

python -m tests.bench.inspect_vs_tensorflow [ROUNDS]

Budget: 12 times as fast and a sixth of the memory.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench._measure import Figure, Run, in_turn, inspect, run, table

OURS = "bncheck inspect checkpoint"


def figures(*, quick: bool) -> list[Figure]:
    """The budget of DESIGN, section 9, against the cheaper way through TensorFlow of each MetaGraph."""
    found = []
    for name, costs in main(1 if quick else 7).items():
        ours, others = costs[OURS], [cost for way, cost in costs.items() if way != OURS]
        faster = min(cost.wall for cost in others) / ours.wall
        smaller = min(cost.peak for cost in others) / ours.peak
        told = f"{faster:.1f}x faster, 1/{smaller:.1f} of the memory"
        work = f"inspect checkpoint with graph against TensorFlow ({name})"
        found.append(Figure(work, "12x faster, 1/6 of the memory", told, faster >= 12 and smaller >= 6))
    return found


def main(rounds: int = 7) -> dict[str, dict[str, Run]]:
    """Prints one table for each of the two MetaGraphs, and gives the medians."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "-W", "ignore", "-m", "tests.bench._mobilenet", folder])
        for index in sorted(Path(folder).glob("*.index")):
            prefix = str(index.with_suffix(""))
            data, meta = (Path(f"{prefix}.{part}").stat().st_size / 1e6 for part in ("data-00000-of-00001", "meta"))
            print(f"\n{Path(prefix).name}: 52 layers, {data:.1f} MB of data, {meta:.1f} MB of MetaGraph")
            found[Path(prefix).name] = _compare(prefix, rounds)
    return found


def _compare(prefix: str, rounds: int) -> dict[str, Run]:
    by_hand = [sys.executable, "-m", "tests.bench._through_tensorflow", prefix]
    costs = in_turn(
        {
            OURS: inspect("checkpoint", prefix),
            "TensorFlow, MetaGraphDef parsed": [*by_hand, "parse"],
            "TensorFlow, import_meta_graph": [*by_hand, "import"],
        },
        rounds=rounds,
    )
    ours = costs[OURS]
    head = ("whole process, medians", "wall s", "cpu s", "peak MiB", "wall x", "cpu x", "memory x")
    table(head, [(name, *_numbers(cost), *_ratios(cost, ours)) for name, cost in costs.items()])
    return costs


def _numbers(cost: Run) -> tuple[str, str, str]:
    return f"{cost.wall:.2f}", f"{cost.cpu:.2f}", f"{cost.peak:.0f}"


def _ratios(cost: Run, ours: Run) -> tuple[str, str, str]:
    return f"{cost.wall / ours.wall:.1f}", f"{cost.cpu / ours.cpu:.1f}", f"{cost.peak / ours.peak:.1f}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
