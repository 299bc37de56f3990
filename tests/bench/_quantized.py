"""One way of finding out what quantization does to MobileNetV2 1.0 at 96x96, in a process of its own.

python -m tests.bench._quantized WAY PREFIX SAMPLES CALIBRATION

WAY is "bncheck", "debugger" (TensorFlow's QuantizationDebugger fed as its guide feeds it, one sample at a time) or
"debugger-32" (batches of 32). TensorFlow is loaded and the inference graph made before the clock starts, in each.
Prints seconds, seconds of all threads, and the MiB resident at most.
"""

from __future__ import annotations

import resource
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.backbones.build import build
from bncheck.backbones.registry import parse
from bncheck.compare.convert import eval_graph, float_model, quantized_model
from bncheck.compare.float_quantized import measure_quantized
from bncheck.compare.train_eval import Prepared, prepare
from bncheck.compare.twins import load_tensorflow
from bncheck.measured import DataFacts
from bncheck.model import Hints
from bncheck.sources import open_model

SIZE = 96


def prepared(prefix: str) -> Prepared:
    """The checkpoint's forward pass."""
    raw = open_model(Path(prefix), graph=None, use_graph=False)
    what = parse(f"mobilenet_v2:image_size={SIZE}")
    return prepare(build(what, raw.tensors, path=raw.path, input_shape=(SIZE, SIZE, 3)), Hints())


def data(samples: int, batch: int) -> Iterator[NDArray[Any]]:
    """The same samples in batches of any size, made as they are asked for."""
    for start in range(0, samples, 32):
        made = np.random.default_rng(start).uniform(-1, 1, (min(32, samples - start), SIZE, SIZE, 3))
        images = made.astype(np.float32)
        for part in range(0, len(images), batch):
            yield images[part : part + batch]


def bncheck(tf: Any, model: Prepared, samples: int, calibration: int) -> int:
    """Both conversions and the comparison; gives the number of operators told of."""
    float_bytes = float_model(tf, model)
    quantized = quantized_model(tf, model, "int8", data(calibration, 32), float_bytes=float_bytes)
    found = measure_quantized(
        float_bytes,
        quantized,
        layers=model.layers,
        batches=((images, None) for images in data(samples, 32)),
        describe=lambda count, size, batches: DataFacts(
            description="noise", samples=count, batch_size=size, batches=batches
        ),
        scheme="int8",
    )
    return len(found.operators)


def debugger(tf: Any, model: Prepared, samples: int, calibration: int, batch: int) -> int:
    """TensorFlow's, from a converter of the same graph; gives the number of layers told of."""
    graph = eval_graph(model.forward)
    graph_def = tf.compat.v1.GraphDef.FromString(graph.graph_def.SerializeToString())
    imported = tf.Graph()
    with imported.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    first, last = (
        imported.get_tensor_by_name(name if ":" in name else f"{name}:0") for name in (graph.input, *graph.outputs)
    )
    converter = tf.compat.v1.lite.TFLiteConverter(graph_def, [first], [last])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([images] for images in data(calibration, batch))
    found = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=lambda: ([images] for images in data(samples, batch))
    )
    found.run()
    return len(found.layer_statistics)


def main(way: str, prefix: str, samples: str, calibration: str) -> None:
    """Runs one way and prints what it cost."""
    warnings.simplefilter("ignore")
    tf, model = load_tensorflow(), prepared(prefix)
    wall, cpu = time.perf_counter(), time.process_time()
    if way == "bncheck":
        found = bncheck(tf, model, int(samples), int(calibration))
    else:
        found = debugger(tf, model, int(samples), int(calibration), 32 if way == "debugger-32" else 1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert found > 60
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{wall:.4f} {cpu:.4f} {peak:.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
