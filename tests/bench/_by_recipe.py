"""One way of finding out what a recipe of ai-edge-quantizer does to a float TFLite file, in a process of its own.

python -m tests.bench._by_recipe WAY FOLDER SAMPLES

WAY is "write" (makes FOLDER/model.tflite and FOLDER/images.npy), "bncheck", "quantizer" (one sample at a time) or
"quantizer-32". The libraries are loaded before the clock starts. Prints seconds, seconds of all threads, MiB at most.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECIPE = "static_wi8_ai8"
BATCH = 32


def write(folder: Path, samples: int) -> None:
    """The model, with statistics as far from 0 and 1 as those of a trained one, and its images."""
    import tensorflow as tf

    from tests.bench._keras_models import build

    converter = tf.lite.TFLiteConverter.from_keras_model(build("mobilenet_v2", 96))
    (folder / "model.tflite").write_bytes(converter.convert())
    images = np.random.default_rng(0).uniform(-1, 1, (samples, 96, 96, 3)).astype(np.float32)
    np.save(folder / "images.npy", images)


def by_bncheck(model: bytes, images: NDArray[Any]) -> int:
    """Quantized by the recipe, and compared; gives the number of operators told of."""
    from bncheck.compare.float_quantized import measure_quantized
    from bncheck.compare.litert.convert import by_recipe
    from bncheck.compare.litert.interpreter import read_file
    from bncheck.facts.measurements import DataFacts

    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    file = read_file(model)
    found = measure_quantized(
        file,
        read_file(by_recipe(file, RECIPE, batches)),
        layers=(),
        batches=((batch, None) for batch in batches),
        describe=lambda count, largest, number: DataFacts(
            description="noise", samples=count, batch_size=largest, batches=number
        ),
    )
    return len(found.operators)


def quantizer(model: bytes, images: NDArray[Any], batch: int) -> int:
    """Its own three steps; gives the number of tensors told of."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer as package

    (name,) = Interpreter(model_content=model).get_signature_runner().get_input_details()
    data = {"serving_default": [{name: images[start : start + batch]} for start in range(0, len(images), batch)]}
    threads = os.cpu_count() or 1
    made = package.Quantizer(bytearray(model), RECIPE)
    made.quantize(made.calibrate(data, num_threads=threads), enable_progress_report=False)
    return len(made.validate(data, num_threads=threads).get_all_tensor_results())


def main(way: str, folder: Path, samples: int) -> None:
    """Runs one way and prints what it cost."""
    warnings.simplefilter("ignore")
    if way == "write":
        write(folder, samples)
        return
    import ai_edge_quantizer  # noqa: F401 - before the clock starts

    import bncheck.compare.float_quantized
    import bncheck.compare.litert.convert  # noqa: F401 - as above

    model, images = (folder / "model.tflite").read_bytes(), np.load(folder / "images.npy")[:samples]
    wall, cpu = time.perf_counter(), time.process_time()
    found = by_bncheck(model, images) if way == "bncheck" else quantizer(model, images, BATCH if "-" in way else 1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert found > 20
    print(f"{wall:.4f} {cpu:.4f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
