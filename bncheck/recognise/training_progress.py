"""How far training went, as the stored values tell, or, where only an index is at hand, their checksums."""

from __future__ import annotations

import math
import operator
import re
import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.formats import FileKind
from bncheck.facts.layers import RunFacts
from bncheck.facts.record import Record, replace
from bncheck.recognise.named.slots import ATTRIBUTE, is_slot
from bncheck.recognise.stored_vectors import CONSTANTS_TRIED, checksums_of_constants, constant_by_checksum
from bncheck.settings.options import Options
from bncheck.sources.bundle.crc32c import word_behind
from bncheck.sources.raw import RawModel, RawTensor

_GLOBAL_STEP = re.compile(r"(^|/)global_step$")
_FLAX_STEP = "step"
"""Of a TrainState."""
_ITERATIONS = re.compile(r"(^|/)_?(iterations?|iter)(_\d+)?$")
_TRACKED = re.compile(r"(^|[/.])num_batches_tracked$")
_BETA_POWER = re.compile(r"(^|.*/)beta([12])_power(_\d+)?$")
_BIAS = re.compile(r"(^|/)bias(es)?$")
_BIASES_LOOKED_AT = 50
_INTEGERS = {"int32": 4, "int64": 8, "uint32": 4, "uint64": 8}
_FLOATS = frozenset({"float32", "float64"})

_PLAUSIBLE_STEPS = 100_000_000
"""A step counter read from a checksum is not believed above this."""
_SLOTS_SIZED = 1000
_SLOTS_LOOKED_AT = 200
_SLOT_BYTES = 4 << 20
_ADAGRAD_STARTS_AT = 0.1
"""What its accumulator starts at; other slots at 0, RMSProp's mean square at 1."""
_USUAL_BETAS = (0.999, 0.9, 0.99, 0.98, 0.95, 0.995, 0.997, 0.9999, 0.5)
_LONGEST = 120_000
"""Float32 powers of 0.999 have died out by then."""

_Key = TypeVar("_Key")


class ProgressKeys(Record):
    """Which tensors tell how far training went, by their keys: the same for all checkpoints of one layout."""

    every: frozenset[str]
    steps: tuple[str, ...]
    iterations: tuple[str, ...]
    powers: tuple[tuple[str, str], ...]
    """Adam's beta1 and beta2, multiplied once a step."""
    slots: tuple[str, ...] | None
    """Those of optimizers that are looked at; None where there is none."""
    tracked: tuple[str, ...]
    """PyTorch's counters of its layers."""
    biases: tuple[str, ...]
    starts: tuple[frozenset[int], ...] | None = None
    """Checksums of what each slot may have started at; None where they do not tell all, or were not asked for."""


def progress_keys(tensors: Mapping[str, RawTensor]) -> ProgressKeys:
    """Told by names, and by the shapes of slots."""
    names = {key: key.removesuffix(ATTRIBUTE).removesuffix(":0") for key in tensors}
    return ProgressKeys(
        every=frozenset(tensors),
        steps=_matching(names, "global_step", _GLOBAL_STEP),
        iterations=_matching(names, "iter", _ITERATIONS),
        powers=_power_pairs(names),
        slots=_slots(tensors),
        tracked=_matching(names, "num_batches_tracked", _TRACKED),
        biases=tuple(key for key, name in names.items() if _is_bias(key, name, tensors))[:_BIASES_LOOKED_AT],
    )


def with_starts(keys: ProgressKeys, tensors: Mapping[str, RawTensor]) -> ProgressKeys:
    """The same for many checkpoints of one layout, whose slots are then told by their checksums."""
    starts = [checksums_of_constants(tensors[key], _ADAGRAD_STARTS_AT) for key in keys.slots or ()]
    known = tuple(one for one in starts if one is not None)
    return replace(keys, starts=known) if len(known) == len(starts) else keys


def run_facts(raw: RawModel, hints: Options, known: ProgressKeys | None = None) -> RunFacts:
    """Step counters, optimizer state, keys; `known` are those of another checkpoint of the same layout.

    Raises ReadError where the file is damaged.

    `updates`: --steps, else the largest of the optimizer's own count (Keras iterations, Adam's beta powers), the
    layers' (PyTorch's num_batches_tracked) and the global step, since a fine-tune resets one of them. A global step of
    0 by itself counts for nothing: it is also what a step has that was never handed to the optimizer. `optimizer_slots`
    looks at the 200 smallest, 4 MiB at most.
    """
    tensors = raw.tensors
    keys = progress_keys(tensors) if known is None else known
    steps = (*keys.steps, _FLAX_STEP) if raw.format.kind is FileKind.FLAX and _FLAX_STEP in tensors else keys.steps
    global_step = max(_counts(tensors, steps), default=None)
    iterations = _counts(tensors, keys.iterations)
    if raw.keras is not None:
        own = {tensor.name.removesuffix(":0"): tensor for tensor in raw.keras.optimizer_weights}
        iterations += _counts(own, _matching({name: name for name in own}, "iter", _ITERATIONS))
    powers = _adam_counts(tensors, keys.powers)
    if raw.keras is None:
        moved = None if keys.slots is None else _slots_moved(tensors, keys.slots, keys.starts)
    else:
        weights = raw.keras.optimizer_weights
        smallest = _smallest({n: one.shape for n, one in enumerate(weights)})
        moved = _moved([weights[n] for n in smallest]) if weights else None
    counts = {
        "optimizer iterations": max(iterations, default=None),
        "Adam's beta powers": max(powers, default=None),
        "num_batches_tracked": max(_counts(tensors, keys.tracked), default=0) or None,
    }
    updates, source = _updates(hints.steps, counts, global_step)
    if raw.repaired is not None and raw.repaired.confirmed and hints.steps is None:
        updates, source = None, "unknown: repaired since"
    return RunFacts(
        global_step=global_step,
        updates=updates,
        updates_from=source,
        optimizer_slots=moved,
        biases_moved=_biases_moved(tensors, keys.biases),
        keys=keys.every or None,
        values=any(tensor.unavailable is None or tensor.crc32c is not None for tensor in _each(tensors)),
        index_only=bool(tensors) and all(tensor.unavailable is not None for tensor in _each(tensors)),
    )


def _biases_moved(tensors: Mapping[str, RawTensor], keys: Sequence[str]) -> bool | None:
    """Whether any bias differs between channels; those of an LSTM start at zeros and ones, and tell nothing then."""
    decided = None
    for key in keys:
        tensor = tensors[key]
        if tensor.unavailable is not None or tensor.dtype not in _FLOATS or len(tensor.shape) != 1:
            continue
        values = set(tensor.read().tolist())
        if len(values) > 1 and not values <= {0.0, 1.0}:
            return True
        decided = False
    return decided


def _is_bias(key: str, name: str, tensors: Mapping[str, RawTensor]) -> bool:
    """By its name or, where Keras numbers a layer's vectors, as the second one, behind a kernel."""
    if _BIAS.search(name):
        return True
    kernel = tensors.get(f"{key.removesuffix('/vars/1')}/vars/0") if key.endswith("/vars/1") else None
    return kernel is not None and len(kernel.shape) > 1


def _slots(tensors: Mapping[str, RawTensor]) -> tuple[str, ...] | None:
    """An optimizer's slots by their keys, the smallest; of very many, of a sample. None where there is none."""
    found = [key for key in tensors if is_slot(key, tensors)]
    sizes = {key: tensors[key].shape for key in found[:: max(1, len(found) // _SLOTS_SIZED)]}
    return tuple(_smallest(sizes)) if found else None


def _each(tensors: Mapping[str, RawTensor]) -> Iterator[RawTensor]:
    """Tensors one by one: a lazy mapping decodes no more than are asked for."""
    return (tensors[key] for key in tensors)


def _updates(given: int | None, counted: Mapping[str, int | None], global_step: int | None) -> tuple[int | None, str]:
    """(updates, where the number comes from)."""
    if given is not None:
        return given, "--steps"
    counts = [(count, source) for source, count in counted.items() if count is not None]
    if global_step:
        counts.append((global_step, "global_step"))
    if not counts:
        return None, ""
    best, source = max(counts, key=lambda count: count[0])
    if source != "global_step" and global_step == best:
        source = "global_step"
    if global_step is not None and global_step != best:
        source += f" (global_step says {global_step:,})"
    return best, source


def _matching(names: Mapping[str, str], word: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    """Keys of the names that a pattern is found in; nearly all lack the word that it has, and need no search."""
    return tuple(key for key, name in names.items() if word in name and pattern.search(name))


def _counts(tensors: Mapping[str, RawTensor], keys: Sequence[str]) -> list[int]:
    found = (_whole(tensors[key]) for key in keys)
    return [count for count in found if count is not None and count >= 0]


def _whole(tensor: RawTensor) -> int | None:
    """The one integer of a counter, from its checksum where its data are absent; None where it is none."""
    width = _INTEGERS.get(tensor.dtype)
    if width is None:
        # Keras 2.0 counts in a float
        number = _real(tensor)
        return int(number) if number is not None and number.is_integer() else None
    if math.prod(tensor.shape) != 1:
        return None
    if tensor.unavailable is None:
        return int(tensor.read().reshape(-1)[0])
    if tensor.crc32c is None:
        return None
    # of 8 bytes the upper 4 are taken to be 0: no run has 2**32 steps
    steps = word_behind(tensor.crc32c, size=width)
    return steps if steps <= _PLAUSIBLE_STEPS else None


def _real(tensor: RawTensor) -> float | None:
    """The one float of a scalar, exactly as stored; of absent data only float32, whose checksum determines it."""
    if tensor.dtype not in _FLOATS or math.prod(tensor.shape) != 1:
        return None
    if tensor.unavailable is None:
        return float(tensor.read().reshape(-1)[0])
    if tensor.crc32c is None or tensor.dtype != "float32":
        return None
    (value,) = struct.unpack("<f", word_behind(tensor.crc32c, size=4).to_bytes(4, "little"))
    return float(value)


def _power_pairs(names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Keys of each Adam's two beta powers, where both are stored."""
    pairs: dict[tuple[str, str], dict[str, str]] = {}
    for key, name in names.items():
        match = _BETA_POWER.match(name) if "_power" in name else None
        if match:
            pairs.setdefault((match[1], match[3] or ""), {})[match[2]] = key
    return tuple((pair["1"], pair["2"]) for pair in pairs.values() if len(pair) == 2)


def _adam_counts(tensors: Mapping[str, RawTensor], pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Steps of every Adam whose two beta powers are stored."""
    counts = []
    for first, second in ((tensors[one], tensors[two]) for one, two in pairs):
        if first.dtype == second.dtype:
            power1, power2 = _real(first), _real(second)
            if power1 is not None and power2 is not None:
                counts.append(adam_steps(power1, power2, dtype=first.dtype))
    return [count for count in counts if count is not None]


def adam_steps(beta1_power: float, beta2_power: float, *, dtype: str = "float32") -> int | None:
    """How often Adam stepped: its powers start at beta and are multiplied by beta in their own precision each step.

    So the bits of a power name its step: both powers must be that of the same step, the one for a usual beta, the other
    for any beta of up to six decimals (or died out, as 0.9**n does after 830 steps). Powers that rounded otherwise on
    their way count by their logarithm, for 0.9 and 0.999 only. None where they contradict, or beta2's died out.
    """
    for power, other in ((beta2_power, beta1_power), (beta1_power, beta2_power)):
        for beta in _USUAL_BETAS:
            powers = _powers(beta, dtype)  # each lower than the one before
            at = bisect_left(powers, -power, key=operator.neg)
            if at < powers.size and powers[at] == power and _agrees(other, at, dtype):
                return at
    logarithms = [_step_by_logarithm(beta2_power, 0.999), _step_by_logarithm(beta1_power, 0.9)]
    if logarithms[0] is None or not (_died_out(beta1_power) or logarithms[0] == logarithms[1]):
        return None
    return logarithms[0]


@lru_cache(maxsize=32)
def _powers(beta: float, dtype: str) -> NDArray[np.float64]:
    """beta, beta * beta, ... each rounded as a variable of this type is, as far as they are normal numbers."""
    kind = np.dtype(dtype)
    with np.errstate(under="ignore"):
        powers = np.multiply.accumulate(np.full(_LONGEST, beta, kind))
    normal: NDArray[np.float64] = powers[powers >= np.finfo(kind).tiny].astype(np.float64)
    return normal


def _died_out(power: float) -> bool:
    return 0 <= power < 1e-37


def _agrees(power: float, step: int, dtype: str) -> bool:
    """Whether a power is that of `step` for some beta of at most six decimals."""
    if _died_out(power):
        return True
    if not 0 < power < 1:
        return False
    powers = _powers(round(power ** (1 / (step + 1)), 6), dtype)
    return step < powers.size and bool(powers[step] == power)


def _step_by_logarithm(power: float, beta: float) -> int | None:
    if _died_out(power) or not 0 < power < 1:
        return None
    steps = math.log(power) / math.log(beta) - 1
    return round(steps) if abs(steps - round(steps)) < 0.02 else None


def _smallest(shapes: Mapping[_Key, tuple[int, ...]]) -> list[_Key]:
    """Slots that are looked at: the smallest ones first, for they cost least."""
    found: list[_Key] = []
    spent = 0
    for key, shape in sorted((one for one in shapes.items() if one[1]), key=lambda one: math.prod(one[1])):
        spent += math.prod(shape) * 4
        if spent > _SLOT_BYTES or len(found) == _SLOTS_LOOKED_AT:
            break
        found.append(key)
    return found


def _slots_moved(
    tensors: Mapping[str, RawTensor], keys: Sequence[str], starts: Sequence[frozenset[int]] | None
) -> tuple[int, int]:
    """`_moved` of these slots."""
    if starts is not None:
        from bncheck.sources.bundle.checkpoint import Tensors  # noqa: PLC0415 - runs alone need it

        if isinstance(tensors, Tensors):
            still = [one in known for one, known in zip(tensors.checksums(keys), starts, strict=True)]
            return still.count(False), len(still)
    return _moved([tensors[key] for key in keys])


def _moved(slots: Sequence[RawTensor]) -> tuple[int, int]:
    """(slots that left what they start at, slots looked at)."""
    told = [still for decided, still in map(_still, slots) if decided]
    return told.count(False), len(told)


def _still(tensor: RawTensor) -> tuple[bool, bool]:
    """(decided, whether the slot holds nothing but what it started at)."""
    decided, constant = constant_by_checksum(tensor, _ADAGRAD_STARTS_AT)
    if decided:
        return True, constant is not None
    if tensor.unavailable is not None or tensor.dtype not in ("bfloat16", "float16", "float32", "float64"):
        return False, False
    values = tensor.read()
    starts = (*CONSTANTS_TRIED, _ADAGRAD_STARTS_AT)
    return values.size > 0, any(bool(np.all(values == values.dtype.type(start))) for start in starts)
