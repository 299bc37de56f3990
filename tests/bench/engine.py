"""How much sooner two workers of a dask cluster have run the data of a comparison, or of a repair, than one.

python -m tests.bench.engine [BLOCKS]

MobileNetV2 1.0 at 96x96, batches of 32 in blocks of 8, each worker on a processor of its own. Workers have TensorFlow
loaded, and open the model anew in each run. Elapsed times, and the processor time of the busiest worker, which is what
would pass where both processors are free. Budget: 1.8x.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench._measure import Figure, run, table

BLOCKS, QUICK = 48, 12
LEAST = 1.8


def figures(*, quick: bool) -> list[Figure]:
    """The budget of issue 12."""
    found = main(QUICK if quick else BLOCKS)
    told = ", ".join(f"{work} {elapsed:.2f}x elapsed, {busiest:.2f}x" for work, (elapsed, busiest) in found.items())
    met = all(max(ratios) >= LEAST for ratios in found.values())
    return [Figure("data on two workers against one, busiest worker's processor time", f"{LEAST}x", told, met)]


def main(blocks: int = BLOCKS) -> dict[str, tuple[float, float]]:
    """Prints one table; work -> how many times faster two workers are, elapsed and by the busiest one's time."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with TemporaryDirectory() as made:
        folder = Path(made)
        run([sys.executable, "-m", "tests.bench._mobilenet", str(folder)])
        prefix = next(folder.glob("barrier.ckpt-*.index")).with_suffix("")
        cost = {workers: _on(workers, prefix, _images(folder, blocks)) for workers in (1, 2)}
    rows, found = [], {}
    for work, (elapsed, busiest) in cost[1].items():
        two = cost[2][work]
        found[work] = (elapsed / two[0], busiest / two[1])
        rows.append((work, *(f"{each:.1f}" for each in (elapsed, two[0], busiest, two[1]))))
    table(("s", "elapsed on 1", "on 2", "busiest of 1", "of 2"), rows)
    return found


def _images(folder: Path, blocks: int) -> Path:
    import numpy as np

    path = folder / "images.npy"
    samples = np.random.default_rng(0).integers(0, 256, (blocks * 8 * 32, 96, 96, 3), np.uint8)
    np.save(path, samples, allow_pickle=False)
    return path


def _on(workers: int, prefix: Path, images: Path) -> dict[str, tuple[float, float]]:
    """Work -> (elapsed s, processor s of the busiest worker), after one run that only warms the caches."""
    import distributed

    import bncheck
    from bncheck.repair import repair

    with (
        distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        for number, worker in enumerate(client.scheduler_info()["workers"]):
            client.run(os.sched_setaffinity, 0, {number % (os.cpu_count() or 1)}, workers=[worker])
        common = {
            "data": images,
            "preprocess": "-1..1",
            "engine": cluster.scheduler_address.replace("tcp://", "dask://"),
            "model": "mobilenet_v2:image_size=96",
        }
        works: dict[str, Callable[..., Any]] = {
            "compare train-vs-eval": lambda **more: bncheck.compare_train_vs_eval(prefix, **common, **more),
            "repair --data": lambda **more: repair(
                prefix, images.parent / f"{workers}.{time.monotonic_ns()}.ckpt", tolerance=0.0, **common, **more
            ),
        }
        found = {}
        for work, call in works.items():
            call(batches=8)
            before, start = client.run(time.process_time), time.perf_counter()
            call()
            elapsed, after = time.perf_counter() - start, client.run(time.process_time)
            found[work] = (elapsed, max(after[worker] - before[worker] for worker in after))
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
