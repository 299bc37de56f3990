"""Constants of an ONNX graph as real numbers, whatever they are stored in, and how far rounding may have moved them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import Malformed
from bncheck.facts.record import replace
from bncheck.recognise.integer_types import EXTREMES, SLACK
from bncheck.recognise.onnx.flatten import FlatOnnx, flat_onnx
from bncheck.recognise.onnx.nodes import OnnxNode, integer, transposition
from bncheck.sources.onnx.onnx import raw_tensor
from bncheck.sources.raw import RawModel, RawTensor

Array = NDArray[np.float64]

MADE_OF_CONSTANTS = ("DequantizeLinear", "Transpose", "Cast", "Identity")
"""Ops that a constant may come through."""
_DRAWN = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
_MOST_STEPS = 16
"""Such ops looked through, as a damaged file may have them in a circle."""
_ROUNDED = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Half a step of a type of few bits, relative."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxNumbers:
    """Constants of the graph as real numbers."""

    values: Array
    half: Array
    """How far rounding moved each at most; in a shape that broadcasts."""
    cut_off: NDArray[np.bool_] | None = None
    """Those at the end of an integer type's range."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxWiring:
    """The wiring of a model, functions and bodies written out."""

    path: Path
    nodes: Sequence[OnnxNode]
    constants: Mapping[str, RawTensor]
    producers: Mapping[str, OnnxNode]
    readers: Mapping[str, Sequence[int]]
    """Name -> numbers of the nodes that read it."""
    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    left: Sequence[str]
    """Nodes in whose functions or bodies there is batch norm that was not written out."""

    @classmethod
    def of(cls, raw: RawModel) -> OnnxWiring:
        """Of a model that `sources.onnx` read. Raises ReadError."""
        flat = flat_onnx(raw)
        readers: dict[str, list[int]] = {}
        for number, node in enumerate(flat.nodes):
            for name in node.input:
                readers.setdefault(name, []).append(number)
        return cls(
            path=raw.path,
            nodes=flat.nodes,
            constants=_stored(raw.path, flat),
            producers={name: node for node in flat.nodes for name in node.output if name},
            readers=readers,
            inputs=flat.inputs,
            outputs=flat.outputs,
            left=flat.left,
        )

    @cached_property
    def of_data(self) -> frozenset[str]:
        """Names of values that depend on what the model is given, or are drawn; all others are made of constants."""
        found: set[str] = set()
        of_constants = {"", *self.constants}
        for node in self.nodes:  # in topological order
            found.update(name for name in node.input if name not in of_constants)
            depends = node.op_type in _DRAWN or not found.isdisjoint(node.input)
            (found if depends else of_constants).update(node.output)
        return frozenset(found)

    def given(self, node: OnnxNode, slot: int | None) -> str:
        """Name of an input; "" where there is none."""
        return node.input[slot] if slot is not None and slot < len(node.input) else ""

    def tensor(self, name: str) -> RawTensor | None:
        """The stored tensor that a name is made of."""
        for _ in range(_MOST_STEPS):
            node = self.producers.get(name)
            if name in self.constants or node is None or node.op_type not in MADE_OF_CONSTANTS or not node.input:
                break
            name = node.input[0]
        return self.constants.get(name)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Of a constant, as the file describes it; None where it is none."""
        if self.tensor(name) is None:
            return None
        turns: list[OnnxNode] = []
        while name not in self.constants:
            node = self.producers[name]
            turns += [node] if node.op_type == "Transpose" else []
            name = node.input[0]
        shape = self.constants[name].shape
        for node in reversed(turns):
            order = transposition(node, len(shape))
            if order is None:
                return None
            shape = tuple(shape[place] for place in order)
        return shape

    def axes(self, node: OnnxNode) -> list[int] | None:
        """Of a reduction: an attribute, or since version 18 an input; None where they are not told."""
        told = node.attributes.get("axes")
        if told is not None:
            return list(told.ints)
        known = self.numbers(self.given(node, 1))
        return None if known is None else [int(axis) for axis in known.values.reshape(-1)]

    def numbers(self, name: str) -> OnnxNumbers | None:
        """The real values of a constant; None where it is none. Raises ReadError where it is damaged."""
        if name in self.constants:
            return _as_stored(self.constants[name])
        node = self.producers.get(name)
        if node is None or self.tensor(name) is None:
            return None
        if node.op_type == "DequantizeLinear":
            if integer(node, "block_size", 0):
                return None
            return self.dequantized(*(self.given(node, slot) for slot in range(3)), axis=integer(node, "axis", 1))
        inner = self.numbers(node.input[0])
        if inner is None:
            return None
        if node.op_type != "Transpose":
            return inner
        order = transposition(node, inner.values.ndim)
        if order is None:
            return None
        half = np.transpose(np.broadcast_to(inner.half, inner.values.shape), order)
        cut_off = None if inner.cut_off is None else np.transpose(inner.cut_off, order)
        return OnnxNumbers(values=np.transpose(inner.values, order), half=half, cut_off=cut_off)

    def dequantized(self, name: str, scale: str, zero: str = "", *, axis: int) -> OnnxNumbers | None:
        """(stored - zero) * scale, a scale a tensor or one for each place along `axis`."""
        tensor, scales = self.constants.get(name), self.numbers(scale)
        zeros = self.numbers(zero) if zero else None
        if tensor is None or scales is None or not scales.values.size or (zero and zeros is None):
            return None
        integers = tensor.read()
        shape = [1] * integers.ndim
        if scales.values.size > 1:
            if not -integers.ndim <= axis < integers.ndim or integers.shape[axis] != scales.values.size:
                return None
            shape[axis] = scales.values.size
        if zeros is not None and zeros.values.size not in (1, scales.values.size):
            return None
        step = scales.values.reshape(shape)
        start = 0.0 if zeros is None else zeros.values.reshape(shape if zeros.values.size > 1 else [1] * integers.ndim)
        ends = EXTREMES.get(tensor.dtype)
        return OnnxNumbers(
            values=(integers.astype(np.float64) - start) * step,
            half=0.5 * SLACK * np.abs(step),
            cut_off=None if ends is None else (integers <= ends[0]) | (integers >= ends[1]),
        )


def _stored(path: Path, flat: FlatOnnx) -> dict[str, RawTensor]:
    """Every name whose value the file holds: initialisers, Constant nodes, and what only passes these on."""
    found = dict(flat.tensors)
    for node in flat.nodes:
        if node.op_type == "Constant" and len(node.output) == 1:
            held = node.attributes.get("value")
            if held is not None:  # by its output, as the tensor itself need have no name
                found[node.output[0]] = replace(raw_tensor(path, held.t, {}), name=node.output[0])
        elif node.op_type == "Identity" and node.output and len(node.input) == 1 and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _as_stored(tensor: RawTensor) -> OnnxNumbers:
    values = tensor.read().astype(np.float64)
    relative = _ROUNDED.get(tensor.dtype)
    return OnnxNumbers(values=values, half=np.zeros(()) if relative is None else relative * np.abs(values))


def real_constants(wiring: OnnxWiring) -> dict[str, RawTensor]:
    """What is stored, and what the graph makes of integers or turns, as the floats that they stand for.

    Nothing is computed before one is read, which raises ReadError where the file is damaged.
    """
    found = dict(wiring.constants)
    for node in wiring.nodes:
        for name in node.output if node.op_type in MADE_OF_CONSTANTS else ():
            stored, shape = wiring.tensor(name), wiring.shape(name)
            if name not in found and stored is not None and shape is not None:
                read = partial(_computed, wiring, name)
                found[name] = RawTensor(
                    name=name, dtype="float32", shape=shape, read=read, unavailable=stored.unavailable, far=stored.far
                )
    return found


def _computed(wiring: OnnxWiring, name: str) -> NDArray[np.float32]:
    known = wiring.numbers(name)
    if known is None:
        raise Malformed(wiring.path, f"{name} is made of constants that do not fit each other")
    return known.values.astype(np.float32)
