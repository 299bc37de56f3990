"""Writes the same 43 batch norms of PyTorch twice: in a state dict of 1 MB, and beside kernels of 100 MB.

python -m tests.bench._pytorch_files FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tests.support.pytorch_writer import batch_norm, state_of, write_archive

LAYERS, CHANNELS = 43, 256
ENTERING = {"small": 2, "large": CHANNELS}


def main(folder: str) -> None:
    """Both files; every kernel by itself, of noise, which no file system shortens."""
    rng = np.random.default_rng(0)
    for name, entering in ENTERING.items():
        arrays: dict[str, np.ndarray] = {}
        for layer in range(LAYERS):
            arrays[f"layers.{layer}.conv.weight"] = rng.normal(0, 0.05, (CHANNELS, entering, 3, 3)).astype("f4")
            arrays |= batch_norm(f"layers.{layer}.bn", CHANNELS)
        storages = {str(place): array.tobytes() for place, array in enumerate(arrays.values())}
        write_archive(Path(folder) / f"{name}.pt", state_of(arrays), storages)


if __name__ == "__main__":
    main(sys.argv[1])
