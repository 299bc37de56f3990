"""What a repair from few images, or from none, comes to on eight nets, with made-up pictures and without.

python -m tests.bench.few_images [--only NET,...] [--draws 6] [--cache DIR]

The fixtures' MobileNetV2 with forgotten updates, the net of photographs of `repairs`, and the six nets of `no_data`; an
estimate does not look at what is stored. Each gets statistics from 1 to 32 of its training images, alone and mixed with
pictures as `repair --data` does; from pictures alone, as `--rescue` does; and from many images. True is the accuracy of
eval mode on images that nothing else saw, of pixels on those that show something. What was measured is kept in the
cache. Exits 1 where pictures make a net worse by more than twice the standard error over the draws.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
from numpy.typing import NDArray

from bncheck.compare.prepared import prepare
from bncheck.facts.errors import UsageError
from bncheck.numerics.moments import Moments
from bncheck.repair.few_images import FEW, of_pictures, pictures_for
from bncheck.repair.population import population
from bncheck.repair.train_twin import TrainTwin, open_train_twin
from bncheck.repair.trial_twins import TrialTwins, open_trial
from bncheck.sources import open_model
from tests.bench import repairs
from tests.bench._no_data_nets import NETS, Samples, TrainedNet, handwriting, trained
from tests.bench.no_data import true_accuracy

SIZES = (1, 2, 4, 8, 16, 32)
MANY = 640
BATCH = 32
SEED = 300
OTHERS = ("forgotten", "photographs")

Measured = dict[str, list[float]]
""""rescue", "many", "SIZE alone" and "SIZE mixed" -> accuracy of each draw."""


def main() -> int:
    """Prints the table and where pictures do harm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join((*OTHERS, *NETS)))
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "bncheck-no-data")
    asked = parser.parse_args()
    harmed = []
    print(f"| net | none | {' | '.join(f'{size}: alone, mixed' for size in SIZES)} | {MANY} |")
    print("|---" * (len(SIZES) + 3) + "|")
    for name in asked.only.split(","):
        net = _net(name, asked.cache)
        found = _measured(net, asked.draws, asked.cache / f"few-{name}-{asked.draws}.json")
        print(f"| {net.name} | {' | '.join(_cells(found))} |", flush=True)
        harmed += [f"{net.name}, {size} images" for size in SIZES if _harmed(found, size)]
    print("worse with pictures:", "; ".join(harmed) or "none")
    return int(bool(harmed))


def _net(name: str, cache: Path) -> TrainedNet:
    if name == "forgotten":
        prefix = repairs.FIXTURES / name / "model.ckpt-300"
        return TrainedNet(name="MobileNetV2 0.35, digits, the fixture", path=prefix, samples=handwriting(), earlier={})
    if name == "photographs":
        net = repairs._photos(Path(tempfile.gettempdir()) / "bncheck-repairs")
        samples = Samples(train=net.train, labels=net.labels, unseen=net.unseen, unseen_labels=net.unseen_labels)
        return TrainedNet(name=net.name, path=net.prefix, samples=samples, earlier={})
    return trained(name, cache)


def _measured(net: TrainedNet, draws: int, kept: Path) -> Measured:
    found: Measured = json.loads(kept.read_text()) if kept.exists() else {}
    forward = prepare(open_model(net.path)).forward
    with open_train_twin(forward) as twin, open_trial(forward) as twins:
        for key, make in _asked(net, twin, draws):
            if key not in found:
                found[key] = [_true(twins, net, moments) for moments in make()]
                kept.write_text(json.dumps(found))
    return found


Many = Iterator[Mapping[str, Moments]]


def _asked(net: TrainedNet, twin: TrainTwin, draws: int) -> Iterator[tuple[str, Callable[[], Many]]]:
    images = net.samples.train
    order = [np.random.default_rng(SEED + draw).permutation(len(images)) for draw in range(draws)]
    low, high = float(images.min()), float(images.max())
    yield "many", lambda: iter([_alone(twin, images[order[0][:MANY]])])
    yield "rescue", lambda: iter([of_pictures(twin, images.shape[1:], low, high)])
    for size in SIZES:
        some = [images[one[:size]] for one in order]
        yield f"{size} alone", lambda some=some: (_alone(twin, few) for few in some)  # type: ignore[misc]
        if size < FEW:
            yield f"{size} mixed", lambda some=some: (_mixed(twin, few) for few in some)  # type: ignore[misc]


def _alone(twin: TrainTwin, images: NDArray[np.float32]) -> Mapping[str, Moments]:
    batches = [(images[start : start + BATCH], None) for start in range(0, len(images), BATCH)]
    try:
        return population(twin, batches, tolerance=0).moments
    except UsageError:
        return {}


def _mixed(twin: TrainTwin, images: NDArray[np.float32]) -> Mapping[str, Moments]:
    pictures, alone = pictures_for(twin, images), _alone(twin, images)
    return pictures.mixed(images, alone) if pictures is not None and alone else alone


def _true(twins: TrialTwins, net: TrainedNet, moments: Mapping[str, Moments]) -> float:
    """Accuracy with these statistics; NaN without any."""
    new = {layer: (one.mean, one.variance) for layer, one in moments.items()}
    return true_accuracy(twins, net, new) if new else float("nan")


def _cells(found: Measured) -> Iterator[str]:
    percent = {key: f"{100 * float(np.mean(values)):.1f}" for key, values in found.items()}
    yield percent["rescue"]
    for size in SIZES:
        yield ", ".join(percent[key] for key in (f"{size} alone", f"{size} mixed") if key in percent)
    yield percent["many"]


def _harmed(found: Measured, size: int) -> bool:
    if f"{size} mixed" not in found:
        return False
    gained = np.array(found[f"{size} mixed"]) - np.array(found[f"{size} alone"])
    return float(gained.mean()) < -2 * float(gained.std()) / len(gained) ** 0.5


if __name__ == "__main__":
    sys.exit(main())
