"""Batch norm that an exporter wrote out as a scale and a shift, and that no convolution before it took in.

What looks the same and is none: gamma and beta of layer, group and instance norm, right behind an op of that kind or a
quotient by a root; one number for all channels (preprocessing, hard swish); a bias, to which nothing is multiplied.
Without a name that tells, a scale alone is a layer scale or a temperature, and one behind a shift such a scale behind a
bias. `after` and `feeds` tell normalisation of the input and scaling of the output, and the rule is less sure of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bncheck.facts.errors import NotFound
from bncheck.facts.lite import Leftover
from bncheck.recognise.lite.leftovers import Affine
from bncheck.recognise.onnx.affine_nodes import AFFINE, PASSED, AffineNode, affine_node, follower
from bncheck.recognise.onnx.nodes import OnnxNode
from bncheck.recognise.onnx.values import OnnxWiring

_MOVING = frozenset({*PASSED, "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Pad", "Slice"})
"""Ops that move values or change their type: looked through for what stands before and behind."""
_NORMS = frozenset(
    """
    LayerNormalization InstanceNormalization GroupNormalization RMSNormalization MeanVarianceNormalization
    LpNormalization SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization GroupNorm
    """.split()
)
_ROOTS = frozenset({"Sqrt", "Pow", "ReduceL2", "ReduceMean", "Softmax"})
"""What is divided by, or multiplied with, where data are normalised by themselves."""
_ARITHMETIC = frozenset({*_MOVING, "Mul", "Div", "Add", "Sub", "Max", "Clip", "Neg", "Reciprocal"})
_HOPS = 16


def leftovers(wiring: OnnxWiring) -> Iterator[Leftover]:
    """In the order of the nodes. Raises ReadError where a constant is damaged; such that are not at hand are left."""
    steps = {number: step for number, node in enumerate(wiring.nodes) if (step := _step(wiring, node)) is not None}
    seen: set[int] = set()
    for number, first in steps.items():
        if number in seen or first.axis is None:
            continue
        chain = _chain(wiring, steps, number)
        seen.update(chain)
        if any(steps[one].multiplier is not None and steps[one].axis is not None for one in chain):
            left = _leftover(wiring, steps, chain)
            yield from () if left is None else (left,)


def _step(wiring: OnnxWiring, node: OnnxNode) -> AffineNode | None:
    if node.op_type not in AFFINE:
        return None
    constants = (tensor for name in node.input if (tensor := wiring.tensor(name)) is not None)
    if any(tensor.unavailable or tensor.far for tensor in constants):
        return None
    try:
        return affine_node(wiring, node)
    except NotFound:  # of a file beside the model, which batch norm need not be in
        return None


def _chain(wiring: OnnxWiring, steps: Mapping[int, AffineNode], number: int) -> list[int]:
    """Steps that follow one another along one axis, from one by channel to the last such."""
    chain = [number]
    at = follower(wiring, number, steps)
    while at is not None and at not in chain and _fits(steps[at], steps[number]):
        chain.append(at)
        at = follower(wiring, at, steps)
    while steps[chain[-1]].axis is None:
        chain.pop()
    return chain


def _fits(step: AffineNode, first: AffineNode) -> bool:
    return step.axis is None or (step.axis == first.axis and _size(step) == _size(first))


def _size(step: AffineNode) -> int:
    values = step.multiplier if step.addend is None else step.addend
    return 1 if values is None else int(values.size)


def _leftover(wiring: OnnxWiring, steps: Mapping[int, AffineNode], chain: Sequence[int]) -> Leftover | None:
    first = steps[chain[0]]
    before = _before(wiring, first.data)
    if before is not None and _normalises(wiring, before):
        return None
    whole = Affine.identity(_size(first))
    with np.errstate(all="ignore"):  # infinite numbers are the rules' to judge
        for number in chain:
            whole = whole.then(steps[number])
    for values in (whole.multiplier, whole.addend, whole.multiplier_rounding, whole.addend_rounding):
        values.setflags(write=False)
    nodes = [wiring.nodes[number] for number in chain]
    found = Leftover(
        name=_name(nodes),
        operators=tuple(node.op_type for node in nodes),
        channels=_size(first),
        after="" if before is None else before.op_type,
        multiplier=whole.multiplier,
        addend=whole.addend if any(steps[number].addend is not None for number in chain) else None,
        multiplier_rounding=whole.multiplier_rounding,
        addend_rounding=whole.addend_rounding,
        feeds=_after(wiring, chain[-1]),
    )
    return found if found.named or (first.multiplier is not None and found.addend is not None) else None


def _name(nodes: Sequence[OnnxNode]) -> str:
    """The last name that tells a batch norm, else the last node's."""
    names = [name for node in reversed(nodes) for name in (node.name, *node.output) if name]
    return next((name for name in names if "batch" in name.lower() and "norm" in name.lower()), nodes[-1].label)


def _before(wiring: OnnxWiring, name: str) -> OnnxNode | None:
    """What made a value, reshapes and steps by one number looked through; None for the model's input."""
    node = wiring.producers.get(name)
    for _ in range(_HOPS):
        if node is None:
            break
        if node.op_type in _MOVING and node.input:
            name = node.input[0]
        elif (step := _by_one_number(wiring, node)) is not None:
            name = step
        else:
            break
        node = wiring.producers.get(name)
    return node


def _by_one_number(wiring: OnnxWiring, node: OnnxNode) -> str | None:
    """The data of arithmetic with one number for all; None for everything else."""
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or len(node.input) != 2:
        return None
    shapes = [wiring.shape(name) for name in node.input]
    others = [name for name, shape in zip(node.input, shapes, strict=True) if shape is None]
    numbers = [shape for shape in shapes if shape is not None and all(size == 1 for size in shape)]
    return others[0] if len(others) == len(numbers) == 1 else None


def _normalises(wiring: OnnxWiring, node: OnnxNode) -> bool:
    """Whether data are normalised there by moments or norms of themselves."""
    if node.op_type in _NORMS:
        return True
    if node.op_type not in ("Mul", "Div") or len(node.input) != 2:
        return False
    return any(_reaches_root(wiring, name) for name in node.input)


def _reaches_root(wiring: OnnxWiring, name: str) -> bool:
    for _ in range(_HOPS):
        node = wiring.producers.get(name)
        if node is None:
            return False
        if node.op_type in _ROOTS:
            return True
        moving = [given for given in node.input if given and wiring.tensor(given) is None]
        if node.op_type not in _ARITHMETIC or len(moving) != 1:
            return False
        name = moving[0]
    return False


def _after(wiring: OnnxWiring, number: int) -> str | None:
    """Op of the one node that reads the last output, reshapes looked through; "" for the model's output."""
    for _ in range(_HOPS):
        output = next((name for name in wiring.nodes[number].output if name), "")
        readers = wiring.readers.get(output, ())
        if output in wiring.outputs or not readers:
            return "" if not readers else None
        if len(readers) > 1:
            return None
        number = readers[0]
        if wiring.nodes[number].op_type not in _MOVING:
            return wiring.nodes[number].op_type
    return None
