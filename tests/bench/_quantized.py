"""One way of finding out what quantization does to a model, in a process of its own.

python -m tests.bench._quantized WAY MODEL SIZE SAMPLES CALIBRATION

MODEL is a Keras file, or the prefix of a checkpoint of MobileNetV2 1.0; SIZE is the height and width of its images.
WAY is "bncheck", "debugger" (TensorFlow's QuantizationDebugger fed as its guide feeds it, one sample at a time) or
"debugger-32" (batches of 32). TensorFlow is loaded before the clock starts, in each. A Keras file is read after that,
by each in its own way; of a checkpoint the inference graph is made before, and both convert that. Prints seconds,
seconds of all threads, and the MiB resident at most.
"""

from __future__ import annotations

import importlib
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
from bncheck.compare.float_quantized import measure_quantized
from bncheck.compare.litert.convert import eval_graph, float_model, quantized_model
from bncheck.compare.litert.interpreter import read_file
from bncheck.compare.prepared import Prepared, prepare
from bncheck.compare.twins.twins import load_tensorflow
from bncheck.facts.measurements import DataFacts
from bncheck.settings.options import Options
from bncheck.sources import open_model


def prepared(path: str, size: int) -> Prepared:
    """The model's forward pass."""
    raw = open_model(Path(path), graph=None, use_graph=False)
    if path.endswith(".keras"):
        return prepare(raw, Options())
    what = parse(f"mobilenet_v2:image_size={size}")
    return prepare(build(what, raw.tensors, path=raw.path, input_shape=(size, size, 3)), Options())


def data(samples: int, batch: int, size: int) -> Iterator[NDArray[Any]]:
    """The same samples in batches of any size, made as they are asked for."""
    for start in range(0, samples, 32):
        made = np.random.default_rng(start).uniform(-1, 1, (min(32, samples - start), size, size, 3))
        images = made.astype(np.float32)
        for part in range(0, len(images), batch):
            yield images[part : part + batch]


def bncheck(tf: Any, model: Prepared, size: int, samples: int, calibration: int) -> int:
    """Both conversions and the comparison; gives the number of operators told of."""
    exact = read_file(float_model(tf, model))
    quantized = read_file(quantized_model(tf, model, "int8", data(calibration, 32, size), exact=exact))
    found = measure_quantized(
        exact,
        quantized,
        layers=model.layers,
        batches=((images, None) for images in data(samples, 32, size)),
        describe=lambda count, largest, batches: DataFacts(
            description="noise", samples=count, batch_size=largest, batches=batches
        ),
        scheme="int8",
    )
    return len(found.operators)


def converter(tf: Any, model: Prepared) -> Any:
    """TensorFlow's, of the graph that bncheck converts."""
    graph = eval_graph(model.forward)
    graph_def = tf.compat.v1.GraphDef.FromString(graph.graph_def.SerializeToString())
    imported = tf.Graph()
    with imported.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    first, last = (
        imported.get_tensor_by_name(name if ":" in name else f"{name}:0") for name in (*graph.inputs, *graph.outputs)
    )
    return tf.compat.v1.lite.TFLiteConverter(graph_def, [first], [last])


def debugger(  # noqa: PLR0917 - as for bncheck
    tf: Any, made: Any, size: int, samples: int, calibration: int, batch: int
) -> int:
    """TensorFlow's, with a converter; gives the number of layers told of."""
    made.optimizations = [tf.lite.Optimize.DEFAULT]
    made.representative_dataset = lambda: ([images] for images in data(calibration, batch, size))
    found = tf.lite.experimental.QuantizationDebugger(
        converter=made, debug_dataset=lambda: ([images] for images in data(samples, batch, size))
    )
    found.run()
    return len(found.layer_statistics)


def main(way: str, path: str, *numbers: str) -> None:
    """Runs one way and prints what it cost."""
    warnings.simplefilter("ignore")
    size, samples, calibration = map(int, numbers)
    tf = load_tensorflow()
    from_file = path.endswith(".keras")
    if from_file:
        importlib.import_module("keras")
    model = None if from_file else prepared(path, size)
    wall, cpu = time.perf_counter(), time.process_time()
    if way == "bncheck":
        found = bncheck(tf, model or prepared(path, size), size, samples, calibration)
    else:
        if model is None:
            made = tf.lite.TFLiteConverter.from_keras_model(tf.keras.models.load_model(path))
        else:
            made = converter(tf, model)
        found = debugger(tf, made, size, samples, calibration, 32 if way == "debugger-32" else 1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert found > 20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{wall:.4f} {cpu:.4f} {peak:.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
