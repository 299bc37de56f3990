"""Ranges of a float TFLite file's tensors over data, for TensorFlow's quantizer to take its scales from.

TensorFlow's own calibrator runs one kernel after the other without XNNPACK, which takes ten times as long. The ranges
are the same, down to one of its oddities, see `_shared`.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.litert.edit import dump, load, quantization_parameters, show
from bncheck.compare.litert.interpreter import LiteFile, Runner, feeds_of, portions
from bncheck.facts.errors import BncheckError

_ELEMENTS = 1 << 22
"""Activations of one invocation at most: bounds memory."""
_THREADS = os.cpu_count() or 1
_IN_PLACE = frozenset({"ADD", "SUB", "MUL", "DIV"})
_HIDDEN_RANGES = ("LSTM", "RNN", "SVDF", "IF", "CALL")
"""Parts of names of operators with tensors inside, whose ranges only TensorFlow's calibrator sees.

Not so WHILE: that calibrator (seen in 2.21) ends the process at one, and the quantizer leaves what is inside in float.
"""


def can_calibrate(file: LiteFile) -> bool:
    """Whether all tensors that need a range can be seen."""
    return file.batch in (-1, 1) and not any(part in o.kind for o in file.graph.operators for part in _HIDDEN_RANGES)


def ranges(file: LiteFile, batches: Iterable[NDArray[Any]]) -> Mapping[int, tuple[float, float]]:
    """Tensor -> (smallest, largest) value of every float activation and of the input, as TensorFlow's calibrator says.

    Raises BncheckError where a value is NaN or infinite, as it then has no range.
    """
    wanted = [n for o in file.graph.operators for n in o.outputs if file.graph.tensors[n].dtype == "float32"]
    elements = sum(math.prod(file.graph.tensors[n].shape[1:]) for n in wanted)
    runner = Runner(show(file.content, wanted), file.path)
    size = 1 if file.batch == 1 else max(1, _ELEMENTS // max(elements, 1))
    numbers = list(dict.fromkeys((*file.graph.inputs, *wanted)))
    found: dict[int, tuple[float, float]] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for images in batches:
            for samples in portions(images, size):
                runner.run(feeds_of(file, images[samples]))
                list(pool.map(lambda share: _widen(found, share, runner, file), _shares(numbers)))
    return found | {
        number: (min(found[number][0], found[output][0]), max(found[number][1], found[output][1]))
        for number, output in _shared(file)
        if number in found and output in found
    }


def _shared(file: LiteFile) -> Iterator[tuple[int, int]]:
    """(tensor, output) of the operators that write their output over an input that nobody else reads.

    TensorFlow's calibrator (seen in 2.21) looks at inputs when the operator has run. Where it ran in place the input's
    range then takes in the output's: of the branch that a residual connection adds, the sum's. Files that users make
    have these ranges, so ours have them too.
    """
    graph = file.graph
    readers = Counter(number for operator in graph.operators for number in operator.inputs)
    made = {number for operator in graph.operators for number in operator.outputs}
    for operator in graph.operators:
        if operator.kind in _IN_PLACE:
            output = operator.outputs[0]
            for number in operator.inputs[:2]:
                tensor = graph.tensors[number]
                free = number in made and readers[number] == 1 and number not in graph.outputs
                if free and tensor.dtype == "float32" and tensor.shape == graph.tensors[output].shape:
                    yield number, output
                    break


def _shares(numbers: Sequence[int]) -> list[Sequence[int]]:
    """Dealt to the threads, for most take microseconds."""
    return [numbers[first::_THREADS] for first in range(_THREADS)]


def _widen(found: dict[int, tuple[float, float]], numbers: Sequence[int], runner: Runner, file: LiteFile) -> None:
    for number in numbers:
        values = runner.tensor(number)
        if values.dtype != np.float32 or not values.size:
            continue
        low, high = float(np.min(values)), float(np.max(values))
        if not math.isfinite(high - low):
            name = file.graph.tensors[number].name
            raise BncheckError(f"{name} is not finite on the calibration data: it has no range to quantize")
        before = found.get(number, (low, high))
        found[number] = (min(low, before[0]), max(high, before[1]))


def with_ranges(content: bytes, found: Mapping[int, tuple[float, float]]) -> bytes:
    """The file with the ranges written where TensorFlow's calibrator writes them."""
    model = load(content)
    for number, (low, high) in found.items():
        tensor = model.subgraphs[0].tensors[number]
        if tensor.quantization is None:
            tensor.quantization = quantization_parameters()
        tensor.quantization.min, tensor.quantization.max = [low], [high]
    return dump(model)
