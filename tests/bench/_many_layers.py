"""Writes models of very many layers, without TensorFlow.

python -m tests.bench._many_layers FOLDER checkpoint|weights|graph LAYERS [LAYERS ...]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

CHANNELS = 16
VECTORS = ("gamma", "beta", "moving_mean", "moving_variance")


def checkpoint(path: Path, layers: int) -> None:
    """A V2 checkpoint, trained as its values tell: four vectors and a 1x1 kernel a layer."""
    from tests.support.bundle_writer import write_bundle

    random = np.random.default_rng(0)
    tensors = {}
    for number in range(layers):
        scope = f"net/block_{number}"
        for vector in VECTORS:
            tensors[f"{scope}/BatchNorm/{vector}"] = random.uniform(0.5, 2, CHANNELS).astype(np.float32)
        tensors[f"{scope}/weights"] = random.normal(size=(1, 1, CHANNELS, CHANNELS)).astype(np.float32)
    write_bundle(path, {**tensors, "global_step": np.array(100_000, np.int64)})


def weights(path: Path, layers: int) -> None:
    """HDF5 in the layout of Keras 3: four datasets a layer."""
    import h5py

    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(layers):
            group = file.create_group(f"layers/batch_normalization_{number}/vars")
            for place in range(len(VECTORS)):
                group.create_dataset(str(place), data=random.uniform(0.5, 2, CHANNELS).astype(np.float32))


def graph(path: Path, layers: int) -> None:
    """A MetaGraph in which each layer has updates and a train op of its own."""
    from bncheck.sources.graph import protos

    meta = protos.MetaGraphDef()
    add = meta.graph_def.node.add
    add(name="x", op="Placeholder")
    add(name="rate", op="Const")
    for number in range(layers):
        name = f"l{number}"
        for vector in VECTORS:
            add(name=f"{name}/{vector}", op="VariableV2").attr["shape"].shape.dim.add(size=4)
        site = add(name=f"{name}/bn", op="FusedBatchNormV3", input=["x", *(f"{name}/{vector}" for vector in VECTORS)])
        site.attr["is_training"].b = True
        for port, vector in enumerate(VECTORS[2:], start=1):
            add(name=f"{name}/{vector}/sub", op="Sub", input=[f"{name}/{vector}", f"{name}/bn:{port}"])
            add(name=f"{name}/{vector}/mul", op="Mul", input=[f"{name}/{vector}/sub", "rate"])
            add(name=f"{name}/{vector}/up", op="AssignSub", input=[f"{name}/{vector}", f"{name}/{vector}/mul"])
        add(name=f"{name}/grad", op="Mul", input=[f"{name}/bn", "rate"])
        add(name=f"{name}/apply", op="ApplyGradientDescent", input=[f"{name}/gamma", "rate", f"{name}/grad"])
        waits = [f"^{name}/apply", *(f"^{name}/{vector}/up" for vector in VECTORS[2:])]
        add(name=f"{name}/train", op="NoOp", input=waits)
        meta.collection_def["train_op"].node_list.value.append(f"{name}/train")
    path.write_bytes(meta.SerializeToString())


WRITERS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "checkpoint": ("{}.ckpt", checkpoint),
    "weights": ("{}.weights.h5", weights),
    "graph": ("{}.meta", graph),
}


def main(folder: Path, kind: str, sizes: list[int]) -> None:
    """Writes FOLDER/<layers> of a kind for each size."""
    name, write = WRITERS[kind]
    for size in sizes:
        write(folder / name.format(size), size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], [int(argument) for argument in sys.argv[3:]])
