"""Writes the same 52 batch norms twice: in a checkpoint of 1 MB, and inside one of 100 GB in 25 shards.

python -m tests.bench._sparse FOLDER

The large one has 68 embeddings of 512 MiB and Adam's two slots of each besides, as holes: its data files are sparse and
take a few MB on disk. Statistics, gammas, betas and the optimizer's state of them lie between the holes, the layers
spread over all shards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.bundle_writer import chunk, entry, number, serialized, table, write_bundle

LAYERS = 52
CHANNELS = 256
SHARDS = 25
EMBEDDINGS = 68
ROWS, COLUMNS = 131_072, 1_024
FLOAT32 = 1


def small() -> dict[str, Any]:
    """Key -> array."""
    random = np.random.default_rng(1)
    tensors: dict[str, Any] = {"global_step": np.array(3000, np.int64)}
    for name, beta in (("beta1_power", 0.9), ("beta2_power", 0.999)):
        tensors[name] = np.multiply.accumulate(np.full(3001, beta, np.float32))[-1]
    for layer in range(LAYERS):
        scope = f"tower/block_{layer}/BatchNorm"
        tensors[f"{scope}/moving_mean"] = random.normal(0, 0.5, CHANNELS).astype(np.float32)
        tensors[f"{scope}/moving_variance"] = random.uniform(0.2, 2.0, CHANNELS).astype(np.float32)
        for name in ("beta", "gamma"):
            tensors[f"{scope}/{name}"] = random.uniform(0.2, 2.0, CHANNELS).astype(np.float32)
            tensors[f"{scope}/{name}/Adam"] = random.normal(0, 0.1, CHANNELS).astype(np.float32)
            tensors[f"{scope}/{name}/Adam_1"] = random.uniform(1e-6, 1e-3, CHANNELS).astype(np.float32)
    return tensors


def embeddings() -> Iterator[str]:
    """Keys of the holes."""
    for place in range(EMBEDDINGS):
        name = f"tower/embedding_{place}/weights"
        yield from (name, f"{name}/Adam", f"{name}/Adam_1")


def write_large(prefix: Path) -> None:
    """Holes and arrays in turn, so that every shard has some of both."""
    ends = [0] * SHARDS
    entries = {b"": number(1, SHARDS) + chunk(3, number(1, 1))}
    contents: list[list[tuple[int, bytes]]] = [[] for _ in range(SHARDS)]
    holes, arrays = list(embeddings()), list(small().items())
    for place in range(max(len(holes), len(arrays))):
        shard = place % SHARDS
        if place < len(holes):
            size = 4 * ROWS * COLUMNS
            entries[holes[place].encode()] = entry(
                FLOAT32, (ROWS, COLUMNS), shard=shard, offset=ends[shard], size=size, checksum=1 + place
            )
            ends[shard] += size
        if place < len(arrays):
            name, value = arrays[place]
            kind, shape, stored, checksum = serialized(value)
            entries[name.encode()] = entry(
                kind, shape, shard=shard, offset=ends[shard], size=len(stored), checksum=checksum
            )
            contents[shard].append((ends[shard], stored))
            ends[shard] += len(stored)
    for shard, content in enumerate(contents):
        with Path(f"{prefix}.data-{shard:05d}-of-{SHARDS:05d}").open("wb") as file:
            for offset, stored in content:
                file.seek(offset)
                file.write(stored)
            file.truncate(ends[shard])
    Path(f"{prefix}.index").write_bytes(table(sorted(entries.items())))


if __name__ == "__main__":
    write_bundle(Path(sys.argv[1]) / "small.ckpt", small())
    write_large(Path(sys.argv[1]) / "large.ckpt")
