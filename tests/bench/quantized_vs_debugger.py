"""Float against quantized, operator by operator, against TensorFlow's QuantizationDebugger on the same model and data.

python -m tests.bench.quantized_vs_debugger [ROUNDS]

MobileNetV2 1.0 at 96x96, 64 samples to calibrate on, then 128 to 1,024 to compare on. Conversion is part of each; the
debugger tells local errors only, bncheck cumulative ones and outputs as well. Budget: twice as fast, memory flat.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

from tests.bench._measure import REPOSITORY, Run, environment, medians, run, table

CALIBRATION = 64
WAYS = ("bncheck", "debugger", "debugger-32")
SAMPLES = (128, 256, 512, 1024)


def main(rounds: int = 3) -> None:
    """Prints one table for each number of samples, then the memory."""
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "-W", "ignore", "-m", "tests.bench._mobilenet", folder])
        prefix = f"{folder}/barrier.ckpt-3000"
        peaks = []
        for samples in SAMPLES:
            runs: dict[str, list[Run]] = {way: [] for way in WAYS}
            for _ in range(rounds):
                for way in WAYS:
                    runs[way].append(_once(way, prefix, samples))
            costs = {way: medians(of_one) for way, of_one in runs.items()}
            ours = costs["bncheck"]
            peaks.append(ours.peak)
            print(f"\n{samples} samples")
            table(
                ("after TensorFlow is loaded, medians", "wall s", "cpu s", "wall x", "cpu x", "peak MiB"),
                [
                    (
                        way,
                        f"{cost.wall:.2f}",
                        f"{cost.cpu:.2f}",
                        f"{cost.wall / ours.wall:.2f}",
                        f"{cost.cpu / ours.cpu:.2f}",
                        f"{cost.peak:.0f}",
                    )
                    for way, cost in costs.items()
                ],
            )
        print(f"\npeak of bncheck, {SAMPLES[-1]} samples over {SAMPLES[0]}: {peaks[-1] / peaks[0]:.2f}x")


def _once(way: str, prefix: str, samples: int) -> Run:
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench._quantized", way, prefix]
    done = subprocess.run(
        [*command, str(samples), str(CALIBRATION)],
        cwd=REPOSITORY,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    wall, cpu, peak = map(float, done.stdout.split()[-3:])
    return Run(wall=wall, cpu=cpu, peak=peak)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
