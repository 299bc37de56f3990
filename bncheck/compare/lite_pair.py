"""Two matched TFLite files running on the same samples, chained and unchained, and what is added up of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare import metrics
from bncheck.compare.lite_edit import show
from bncheck.compare.lite_local import Local, Part, unchained
from bncheck.compare.lite_match import Matching
from bncheck.compare.lite_run import (
    Affine,
    Batching,
    LiteFile,
    Runner,
    affine,
    batching,
    input_values,
    portions,
    real_values,
)
from bncheck.compare.lite_sums import TensorSums, add_chain, add_local, round_into

_ELEMENTS = 1 << 23
"""Activations of the float file that one invocation may have: bounds memory, and keeps what is compared near."""
LOCAL_SAMPLES = 128
"""Samples that operators are run on by themselves: thousands of values a channel, of which more tell nothing new."""


@dataclass(frozen=True, kw_only=True)
class _Feeds:
    """All fresh inputs that take one tensor of the float file with one rounding."""

    source: int
    rounded: Affine | None
    quantized: tuple[int, ...]
    """Tensor numbers in the quantized file unchained."""
    reference: tuple[int, ...]
    """Those in the float file unchained."""


def _together(local: Local) -> tuple[_Feeds, ...]:
    groups: dict[tuple[int, Affine | None], tuple[list[int], list[int]]] = {}
    for side, feeds in enumerate((local.quantized_feeds, local.reference_feeds)):
        for feed in feeds:
            groups.setdefault((feed.source, feed.rounded), ([], []))[side].append(feed.number)
    return tuple(
        _Feeds(source=source, rounded=rounded, quantized=tuple(ours), reference=tuple(theirs))
        for (source, rounded), (ours, theirs) in groups.items()
    )


@dataclass(kw_only=True, eq=False)
class OutputSums:
    """Sums of one output over the samples; r float, t quantized."""

    r2: float = 0.0
    t2: float = 0.0
    e2: float = 0.0
    classes: int = 0
    """0 where it is no scores of classes."""
    rows: int = 0
    agreeing: int = 0
    drift: float = 0.0
    labelled: int = 0
    right_float: int = 0
    right_quantized: int = 0


class Pair:
    """Four interpreters: both files chained, and both with each operator by itself."""

    def __init__(
        self, reference: LiteFile, quantized: LiteFile, matching: Matching, images: NDArray[Any], pool: Executor
    ) -> None:
        self.matching = matching
        self.samples = 0
        self.outputs = [OutputSums() for _ in matching.outputs]
        self._files = (reference, quantized)
        ways = [batching(file, images) for file in self._files]
        self.local: Local = unchained(ways[1].content, ways[0].content, matching)
        self.sums: list[TensorSums | None] = [None] * len(self.local.parts)
        self._size, self._chain_size = _portions(matching, self.local.parts, ways)
        parts, feeds = self.local.parts, (*self.local.quantized_feeds, *self.local.reference_feeds)
        wanted = [*(part.reference for part in parts), *(feed.source for feed in feeds)]
        self._float = Runner(show(ways[0].content, _computed(reference, wanted)), reference.path)
        wanted = [*(part.output for part in parts), *(feed.like for feed in self.local.quantized_feeds)]
        self._chain = Runner(show(ways[1].content, _computed(quantized, wanted)), quantized.path)
        self._alone = Runner(self.local.quantized, quantized.path)
        self._float_alone = None if self.local.reference is None else Runner(self.local.reference, reference.path)
        self._pool = pool
        self._fed = _together(self.local)

    def run(self, images: NDArray[Any], labels: NDArray[Any] | None) -> None:
        """Adds one batch. Raises BncheckError where LiteRT refuses it."""
        # What is measured by itself ends at a sample, however the data are dealt to batches.
        whole = max(0, min(LOCAL_SAMPLES - self.samples, len(images)))
        for first, last, alone in ((0, whole, True), (whole, len(images), False)):
            for samples in portions(images[first:last], self._size if alone else self._chain_size):
                place = slice(first + samples.start, first + samples.stop)
                self._run(images[place], alone=alone)
                self._add_outputs(None if labels is None else np.asarray(labels)[place])
                self.samples += place.stop - place.start

    def _run(self, images: NDArray[Any], *, alone: bool) -> None:
        reference, quantized = self._files
        self._float.run({reference.graph.inputs[0]: input_values(reference, images)})
        self._chain.run({quantized.graph.inputs[0]: input_values(quantized, images)})
        self.sums = list(self._pool.map(self._add_chain, self.local.parts, self.sums))
        if not alone:
            return
        feeds = self.local.quantized_feeds
        self._alone.shape({feed.number: self._chain.tensor(feed.like).shape for feed in feeds})
        if self._float_alone is not None:
            feeds = self.local.reference_feeds
            self._float_alone.shape({feed.number: self._float.tensor(feed.like).shape for feed in feeds})
        list(self._pool.map(self._feed, self._fed))
        self._alone.invoke()
        if self._float_alone is not None:
            self._float_alone.invoke()
        list(self._pool.map(self._add_local, self.local.parts, self.sums))

    def _reference(self, number: int) -> NDArray[Any]:
        return real_values(self.matching.reference.tensor(number), self._float.tensor(number))

    def _feed(self, feeds: _Feeds) -> None:
        """Writes one tensor of the float file to the inputs that read it with one rounding."""
        values = self._reference(feeds.source)
        stored = [self._alone.tensor(number) for number in feeds.quantized]
        real: list[NDArray[Any]] = []
        if self._float_alone is not None:
            real = [self._float_alone.tensor(number) for number in feeds.reference]
        own = affine(self.matching.reference.tensor(feeds.source))
        if feeds.rounded is None:
            for room in stored:
                np.copyto(room, values.reshape(room.shape), casting="unsafe")
            rounded = values
        elif own is not None:
            rounded = np.empty(values.shape, np.float32)
            round_into(feeds.rounded, values, stored[0] if stored else None, rounded)
        else:
            round_into(feeds.rounded, values, stored[0] if stored else None, real[0] if real else None)
            for room in stored[1:]:
                np.copyto(room, stored[0].reshape(room.shape))
            return
        for room in real:
            np.copyto(room, (rounded if own is None else own.stored(rounded)).reshape(room.shape), casting="unsafe")

    def _add_chain(self, part: Part, before: TensorSums | None) -> TensorSums | None:
        """The sums with this portion added; None where the two tensors are of different sizes."""
        reference, test = self._reference(part.reference), self._chain.tensor(part.output)
        if reference.size != test.size or not test.size:
            return None
        sums = before or TensorSums(channels=test.shape[-1] if test.ndim > 1 else 1)
        add_chain(sums, reference, test, affine(self.matching.quantized.tensor(part.output)))
        return sums

    def _add_local(self, part: Part, sums: TensorSums | None) -> None:
        if sums is None:
            return
        if part.rerun and self._float_alone is not None:
            tensor = self.matching.reference.tensor(part.reference)
            reference = real_values(tensor, self._float_alone.tensor(part.reference))
        else:
            reference = self._reference(part.reference)
            if part.given is not None:
                reference = part.given.real(part.given.stored(reference))
        add_local(sums, reference, self._alone.tensor(part.output), affine(self.matching.quantized.tensor(part.output)))

    def _add_outputs(self, labels: NDArray[Any] | None) -> None:
        for total, (number, other) in zip(self.outputs, self.matching.outputs, strict=True):
            test = real_values(self.matching.quantized.tensor(number), self._chain.tensor(number))
            _add_output(total, self._reference(other), test.reshape(self._reference(other).shape), labels)


def _add_output(total: OutputSums, reference: NDArray[Any], test: NDArray[Any], labels: NDArray[Any] | None) -> None:
    r, t = np.asarray(reference, np.float64), np.asarray(test, np.float64)
    with np.errstate(all="ignore"):
        total.r2 += float(np.sum(r**2))
        total.t2 += float(np.sum(t**2))
        total.e2 += float(np.sum((t - r) ** 2))
    if r.ndim < 2 or r.shape[-1] < 2 or any(size != 1 for size in r.shape[1:-1]):
        return
    r, t = (values.reshape(len(values), -1) for values in (r, t))
    total.classes = r.shape[-1]
    total.rows += len(r)
    chosen, other = metrics.top_classes(r), metrics.top_classes(t)
    total.agreeing += int(np.sum((chosen == other) & (chosen >= 0)))
    total.drift += metrics.softmax_drift(r, t) * len(r)
    if labels is not None:
        total.labelled += len(labels)
        total.right_float += int(np.sum((chosen == labels) & (chosen >= 0)))
        total.right_quantized += int(np.sum((other == labels) & (other >= 0)))


def _computed(file: LiteFile, numbers: Iterable[int]) -> list[int]:
    """Without the file's inputs, which are there anyway."""
    return [number for number in numbers if number not in file.graph.inputs]


def _portions(matching: Matching, parts: Sequence[Part], ways: Sequence[Batching]) -> tuple[int, int]:
    """Samples of one invocation where operators are run by themselves as well, and where only the chains are."""
    fixed = [way.size for way in ways if way.size is not None]
    if fixed:
        return min(fixed), min(fixed)
    elements = max(1, sum(matching.quantized.elements(part.output) or 0 for part in parts))
    return max(1, _ELEMENTS // elements), max(1, 2 * _ELEMENTS // elements)
