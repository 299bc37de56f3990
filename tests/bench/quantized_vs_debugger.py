"""Float against quantized, operator by operator, against TensorFlow's QuantizationDebugger on the same model and data.

python -m tests.bench.quantized_vs_debugger [ROUNDS]

64 samples to calibrate on, conversion part of each; three views. Both on one inference graph that is made before the
clock starts, of MobileNetV2 1.0 at 96x96, on 64 to 1,024 samples. Both from a Keras file, TensorFlow loaded, small and
large models. Whole processes from a Keras file: there `bncheck compare float-vs-quantized` compares train mode with
eval mode too. The debugger tells local errors only, bncheck cumulative ones and outputs as well. Budget: twice as fast,
memory flat.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

from tests.bench._measure import REPOSITORY, Figure, Run, environment, in_turn, medians, run, table

CALIBRATION = 64
WAYS = ("bncheck", "debugger", "debugger-32")
SAMPLES = (64, 128, 256, 512, 1024)
KERAS = {"mobilenet_v1_025": 96, "mobilenet_v2": 96, "mobilenet_v2_224": 224}
WHOLE = 128
"""Samples for whole processes."""


def figures(*, quick: bool) -> list[Figure]:
    """The budget of DESIGN, section 9, on MobileNetV2 from a Keras file; quick: MobileNet 0.25, one round."""
    name, rounds = ("mobilenet_v1_025", 1) if quick else ("mobilenet_v2", 3)
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "-W", "ignore", "-m", "tests.bench._keras_models", folder, str(WHOLE)])
        costs = alone(f"From the Keras file of {name}", f"{folder}/{name}.keras", KERAS[name], WHOLE, WAYS[:2], rounds)
    ratio = costs["debugger"].wall / costs["bncheck"].wall
    work = f"compare float-vs-quantized against QuantizationDebugger ({name}, {WHOLE} samples)"
    return [Figure(work, "2x faster", f"{ratio:.1f}x", ratio >= 2)]


def main(rounds: int = 3) -> None:
    """Prints one table for each model and number of samples, then the memory, then whole processes."""
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "-W", "ignore", "-m", "tests.bench._mobilenet", folder])
        run([sys.executable, "-W", "ignore", "-m", "tests.bench._keras_models", folder, str(WHOLE)])
        grown = {
            n: alone("One graph of MobileNetV2", f"{folder}/barrier.ckpt-3000", 96, n, WAYS, rounds)["bncheck"]
            for n in SAMPLES
        }
        first, last = grown[SAMPLES[0]], grown[SAMPLES[-1]]
        print(f"\npeak of bncheck, {SAMPLES[-1]} samples over {SAMPLES[0]}: {last.peak / first.peak:.2f}x")
        for name, size in KERAS.items():
            for samples in (64, 128):
                alone(f"From the Keras file of {name}", f"{folder}/{name}.keras", size, samples, WAYS[:2], rounds)
        for name in KERAS:
            whole(name, f"{folder}/{name}", rounds)


def alone(name: str, path: str, size: int, samples: int, ways: tuple[str, ...], rounds: int) -> dict[str, Run]:  # noqa: PLR0917
    """What each way costs, printed too."""
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            runs[way].append(_once(way, path, size, samples))
    costs = {way: medians(of_one) for way, of_one in runs.items()}
    told(f"{name} at {size}x{size}, {samples} samples, TensorFlow loaded", costs)
    return costs


def whole(name: str, path: str, rounds: int) -> None:
    """Prints what whole processes cost, from a Keras file to the report."""
    files = [f"{path}.keras", "--data", f"{path}.npz", "--calibration-batches", str(CALIBRATION // 32)]
    commands = {
        "bncheck": [sys.executable, "-m", "bncheck", "compare", "float-vs-quantized", *files],
        "debugger": [
            *(sys.executable, "-W", "ignore", "-m", "tests.bench._debugger"),
            *(f"{path}.keras", f"{path}.npz", str(CALIBRATION)),
        ],
    }
    told(f"Keras {name}, {WHOLE} samples, whole processes", in_turn(commands, rounds=rounds, codes=(0, 1, 3)))


def told(head: str, costs: dict[str, Run]) -> None:
    """Prints a table of medians, and how much of bncheck's cost each takes."""
    ours = costs["bncheck"]
    print(f"\n{head}")
    table(
        ("medians", "wall s", "cpu s", "wall x", "cpu x", "peak MiB"),
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


def _once(way: str, path: str, size: int, samples: int) -> Run:
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench._quantized", way, path, str(size)]
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
