"""Batch norm before a dense layer, which the converter takes into that layer's kernel.

TFLite fuses MUL and ADD by constants into the FULLY_CONNECTED behind them: kernel' = kernel times the scale of each
input, bias' = bias + kernel * shift. A batch norm behind the dense layer comes on top of that as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bncheck.foldproof.explain_layer import TAKEN_IN, Candidate, Explained, Explanation, explain, fold
from bncheck.foldproof.fit import USUAL_EPSILONS, Array, Folded, bounds, scale_fits
from bncheck.foldproof.kernel_places import Held, KernelPlace
from bncheck.foldproof.source_units import Kernel, Source, Statistics, Unit, Weights, bias_beside


@dataclass(frozen=True, kw_only=True, eq=False)
class NextDense:
    """A layer found in the dense operator behind it."""

    explanation: Explanation
    second: Unit | None
    """The layer behind the dense one, which is folded into the same operator."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Dense:
    """A dense layer of the source in the form of an operator."""

    held: Held
    kernel: Kernel
    form: Array
    """(outputs, inputs)."""


def forward(unit: Unit, place: KernelPlace, source: Source, others: Sequence[Unit]) -> NextDense | None:
    """The layer in an operator that has one input for each of its channels; None where it is not there.

    `others` are the layers that were not found elsewhere. Raises ReadError where the source is damaged.
    """
    for dense in _denses(unit, place, source):
        untouched = bounds(dense.held, dense.form).fits
        for candidate in _candidates(unit):
            scaled = dense.form * fold(candidate).scale
            known = bounds(dense.held, scaled)
            if not known.fits or not known.telling:
                continue
            for own in _with_biases(unit, candidate, source):
                if untouched and not own.bias.any() and candidate.statistics.folded != "stored":
                    continue  # in few bits the initial statistics are no change at all: nothing was taken in
                shift, terms = dense.form @ own.bias, np.abs(dense.form) @ own.terms
                for behind, second in _behind(dense, shift, terms, source, others):
                    for weights in behind.weights:
                        match = Explained(
                            unit=behind, place=place, held=dense.held, weights=weights, kernel=scaled, bounds=known
                        )
                        found = explain(match)
                        if found is not None and found.folded == "stored" and found.rank < TAKEN_IN:
                            return NextDense(explanation=_mine(found, unit, candidate), second=second)
    return None


def holds_kernel(unit: Unit, place: KernelPlace, source: Source) -> bool:
    """Whether an operator holds a dense layer's kernel times numbers along its inputs that `forward` did not explain.

    Only told of floats: the steps of integers run along the outputs.
    """
    for dense in _denses(unit, place, source):
        if not dense.held.kernel_half.any():
            turned = replace(dense.held, kernel=dense.held.kernel.T, kernel_half=np.zeros(place.fan_in))
            known = bounds(turned, dense.form.T)
            if known.fits and known.telling and not np.all(scale_fits(known, np.ones(place.fan_in))):
                return True
    return False


def _denses(unit: Unit, place: KernelPlace, source: Source) -> Iterator[_Dense]:
    if place.kind != "FULLY_CONNECTED" or place.fan_in != unit.channels or unit.problem:
        return
    held = next(place.read(), None)
    shapes = ((place.fan_in, place.channels), (place.channels, place.fan_in))
    for kernel in source.kernels() if held is not None else ():
        if held is not None and kernel.tensor.shape in shapes:
            for form in kernel.forms(place.channels):
                if form.shape == (place.channels, place.fan_in):
                    yield _Dense(held=held, kernel=kernel, form=form.astype(np.float64))


def _candidates(unit: Unit) -> Iterator[Candidate]:
    for epsilon in unit.epsilons or USUAL_EPSILONS[:2]:
        for statistics in unit.statistics:
            yield from (Candidate(weights, statistics, epsilon) for weights in unit.weights)


def _with_biases(unit: Unit, candidate: Candidate, source: Source) -> Iterator[Folded]:
    """The fold with the bias of the linear layer before it, which moves along, and without; any, where none tells."""
    biases = [candidate.weights.bias] if candidate.weights.bias.any() else []
    biases.append(np.zeros(unit.channels))
    if not source.ordered:
        biases.extend(values for _, values in source.vectors(unit.channels))
    for bias in biases:
        yield fold(candidate._replace(weights=replace(candidate.weights, bias=bias)))


def _behind(
    dense: _Dense, shift: Array, terms: Array, source: Source, others: Sequence[Unit]
) -> Iterator[tuple[Unit, Unit | None]]:
    """(what to explain the outputs by, the layer that it is): a batch norm behind the dense layer, or none."""
    name, channels = dense.kernel.tensor.name, dense.form.shape[0]
    ones, zeros = np.ones(channels), np.zeros(channels)
    beside = bias_beside(dense.kernel.tensor, source.find, channels)
    for unit in others:
        moved = []
        for w in unit.weights if unit.channels == channels and not unit.problem else ():
            bias = w.bias if w.kernel is not None or beside is None else beside
            if w.kernel is None or w.kernel.tensor.name == name:
                moved.append(replace(w, bias=bias + shift, bias_terms=np.abs(bias) + terms))
        if moved:
            yield replace(unit, weights=tuple(moved)), unit
    biases = [beside] if beside is not None else [zeros, *(values for _, values in source.vectors(channels))]
    plain = Statistics(folded="stored", mean=zeros, variance=ones)
    for bias in biases:
        weights = Weights(
            told="stored",
            kernel=dense.kernel,
            bias=bias + shift,
            gamma=ones,
            beta=zeros,
            bias_terms=np.abs(bias) + terms,
        )
        bare = Unit(layer=source.units[0].layer, number=-1, channels=channels)
        yield replace(bare, weights=(weights,), statistics=(plain,), epsilons=(0.0,)), None


def _mine(found: Explanation, unit: Unit, candidate: Candidate) -> Explanation:
    """The explanation of the operator as that of the layer before it."""
    return replace(
        found,
        match=replace(found.match, unit=unit),
        folded=candidate.statistics.folded,
        weights=candidate.weights.told,
        epsilon=candidate.epsilon,
        why="taken into the dense layer behind it",
    )
