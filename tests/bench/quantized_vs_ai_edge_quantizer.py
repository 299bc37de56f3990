"""Float against quantized from a float TFLite file, against ai-edge-quantizer's own calibrate, quantize and validate.

python -m tests.bench.quantized_vs_ai_edge_quantizer [ROUNDS]

MobileNetV2 1.0 at 96x96, 128 samples, recipe static_wi8_ai8; both calibrate on all of them and hold float against
quantized on all of them. Its way as its own example has it (examples/mnist/quantize_toy_model.py in its package), one
image a calibration step; and with batches of 32, which calibrator and validator take too: the moving average of the
ranges is then one over batches, and the file another. `validate` gives one number a tensor, with both files run from
the input; bncheck gives
outputs, every operator by itself and as it arrives, and the verdict. In one process each with the libraries loaded, and
as whole processes. Budget: three times as fast.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

from tests.bench._measure import REPOSITORY, Run, environment, in_turn, medians, run, table

SAMPLES = 128
WAYS = ("bncheck", "quantizer", "quantizer-32")


def main(rounds: int = 3) -> None:
    """Prints both tables."""
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "-W", "ignore", "-m", "tests.bench._by_recipe", "write", folder, str(SAMPLES)])
        runs: dict[str, list[Run]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                runs[way].append(_once(way, folder))
        told("libraries loaded", {way: medians(of_one) for way, of_one in runs.items()})
        files = [f"{folder}/model.tflite", "--data", f"{folder}/images.npy", "--scheme", "aeq:static_wi8_ai8"]
        whole = {
            "bncheck": [sys.executable, "-m", "bncheck", "compare", "float-vs-quantized", *files],
            **{way: _command(way, folder) for way in WAYS[1:]},
        }
        told("whole processes", in_turn(whole, rounds=rounds, codes=(0, 1, 3)))


def told(head: str, costs: dict[str, Run]) -> None:
    """Prints medians, and how much of bncheck's cost each takes."""
    ours = costs["bncheck"]
    print(f"\nMobileNetV2 at 96x96, {SAMPLES} samples, {head}")
    rows = [
        (
            way,
            f"{cost.wall:.2f}",
            f"{cost.cpu:.2f}",
            f"{cost.wall / ours.wall:.2f}",
            f"{cost.cpu / ours.cpu:.2f}",
            f"{cost.peak:.0f}",
        )
        for way, cost in costs.items()
    ]
    table(("medians", "wall s", "cpu s", "wall x", "cpu x", "peak MiB"), rows)


def _command(way: str, folder: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "tests.bench._by_recipe", way, folder, str(SAMPLES)]


def _once(way: str, folder: str) -> Run:
    done = subprocess.run(
        _command(way, folder), cwd=REPOSITORY, env=environment(), check=True, capture_output=True, text=True
    )
    wall, cpu, peak = map(float, done.stdout.split()[-3:])
    return Run(wall=wall, cpu=cpu, peak=peak)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
