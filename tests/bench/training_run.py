"""How long `inspect run` takes for a long run, against inspecting one of its checkpoints.

python -m tests.bench.training_run [FOLDER]

200 checkpoints of MobileNetV2 0.35 with their MetaGraphs, which `fixtures.long_run` trains unless FOLDER holds them.
Budget: 5 times as long as one, on 2 cores.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench._measure import Figure, in_turn, inspect, run, table

CHECKPOINTS, QUICK = 200, 60
MOST = 5.0


def figures(*, quick: bool) -> list[Figure]:
    """The budget of issue 12; quick: fewer checkpoints, of which one costs as much."""
    count = QUICK if quick else CHECKPOINTS
    with TemporaryDirectory() as folder:
        elapsed, processor = main(Path(folder), count, rounds=1 if quick else 3)
    told = f"{elapsed:.1f}x elapsed, {processor:.1f}x of processor time"
    return [Figure(f"inspect run, {count} checkpoints, against inspecting one", f"{MOST:g}x", told, elapsed <= MOST)]


def main(folder: Path, count: int = CHECKPOINTS, *, rounds: int = 3) -> tuple[float, float]:
    """Prints one table, and gives how many times as long the run takes, elapsed and in processor time."""
    if not any(folder.glob("*.index")):
        run([sys.executable, "-m", "fixtures.long_run", str(folder), str(count)], codes=(0,))
    one = min(folder.glob("*.index")).with_suffix("")
    asked = {"one": inspect("checkpoint", str(one)), "run": inspect("run", str(folder))}
    cost = in_turn(asked, rounds=rounds)
    elapsed, processor = cost["run"].wall / cost["one"].wall, cost["run"].cpu / cost["one"].cpu
    rows = [(name, f"{each.wall:.2f}", f"{each.cpu:.2f}", f"{each.peak:.0f}") for name, each in cost.items()]
    table(("inspected", "elapsed s", "processor s", "peak MiB"), rows)
    print(f"{elapsed:.1f}x elapsed, {processor:.1f}x of processor time")
    return elapsed, processor


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as made:
            main(Path(made))
