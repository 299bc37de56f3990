"""Two matched TFLite files running on the same samples, chained and unchained, and what is added up of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.litert.edit import show
from bncheck.compare.litert.interpreter import (
    Batching,
    IntegerScale,
    LiteFile,
    Runner,
    affine,
    batching,
    feeds_of,
    portions,
    real_values,
)
from bncheck.compare.litert.local_errors import Local, unchained
from bncheck.compare.litert.match import Matching
from bncheck.compare.litert.outputs import OutputSums
from bncheck.compare.litert.sums import TensorSums, add_chain, add_local, places, round_into
from bncheck.compare.outputs import Kind

_ELEMENTS = 1 << 23
"""Activations of the float file that one invocation may have: bounds memory, and keeps what is compared near."""
LOCAL_SAMPLES = 64
"""Samples that operators are run on by themselves at least, ..."""
LOCAL_ELEMENTS = 1 << 26
"""... and more of them up to so many activations: thousands of values a channel, of which more tell nothing new."""
_THREADS = os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class _PairFeeds:
    """All fresh inputs that take one tensor of the float file with one rounding."""

    source: int
    rounded: IntegerScale | None
    quantized: tuple[int, ...]
    """Tensor numbers in the quantized file unchained."""
    reference: tuple[int, ...]
    """Those in the float file unchained."""


def _together(local: Local) -> tuple[_PairFeeds, ...]:
    groups: dict[tuple[int, IntegerScale | None], tuple[list[int], list[int]]] = {}
    for side, feeds in enumerate((local.quantized_feeds, local.reference_feeds)):
        for feed in feeds:
            groups.setdefault((feed.source, feed.rounded), ([], []))[side].append(feed.number)
    return tuple(
        _PairFeeds(source=source, rounded=rounded, quantized=tuple(ours), reference=tuple(theirs))
        for (source, rounded), (ours, theirs) in groups.items()
    )


class FilePair:
    """Four interpreters: both files chained, and both with each operator by itself."""

    def __init__(  # noqa: PLR0917 - both files, and what they are run on
        self,
        reference: LiteFile,
        quantized: LiteFile,
        matching: Matching,
        images: NDArray[Any],
        pool: Executor,
        kinds: Mapping[int, Kind] | None = None,
    ) -> None:
        self.matching = matching
        self.samples = 0
        self.outputs = [
            OutputSums(step=_step(matching, other), kind=(kinds or {}).get(other, _kind(matching, other)))
            for _, other in matching.compared
        ]
        self._files = (reference, quantized)
        ways = [batching(file, images) for file in self._files]
        self.local: Local = unchained(ways[1].content, ways[0].content, matching)
        self.sums: list[TensorSums | None] = [None] * len(self.local.parts)
        """Of each part; None where its tensors turned out to be of different sizes."""
        elements = max(1, sum(matching.quantized.elements(part.output) or 0 for part in self.local.parts))
        self._size, self._chain_size = _portions(elements, ways)
        self.local_samples = max(LOCAL_SAMPLES, LOCAL_ELEMENTS // elements)
        """How many of the first samples operators are run on by themselves."""
        parts, feeds = self.local.parts, (*self.local.quantized_feeds, *self.local.reference_feeds)
        wanted = [*(part.reference for part in parts), *(feed.source for feed in feeds)]
        self._float = Runner(show(ways[0].content, _computed(reference, wanted)), reference.path)
        wanted = [*(part.output for part in parts), *(feed.like for feed in self.local.quantized_feeds)]
        self._chain = Runner(show(ways[1].content, _computed(quantized, wanted)), quantized.path)
        self._alone = Runner(self.local.quantized, quantized.path)
        self._float_alone = None if self.local.reference is None else Runner(self.local.reference, reference.path)
        self._pool = pool
        self._in_full = False
        self._fed = _together(self.local)

    def run(self, images: NDArray[Any], labels: NDArray[Any] | None) -> None:
        """Adds one batch. Raises BncheckError where LiteRT refuses it."""
        # What is measured by itself ends at a sample, however the data are dealt to batches.
        whole = max(0, min(self.local_samples - self.samples, len(images)))
        for first, last, alone in ((0, whole, True), (whole, len(images), False)):
            for samples in portions(images[first:last], self._size if alone else self._chain_size):
                place = slice(first + samples.start, first + samples.stop)
                self._run(images[place], alone=alone)
                self._add_outputs(None if labels is None else np.asarray(labels)[place])
                self.samples += place.stop - place.start

    def _run(self, images: NDArray[Any], *, alone: bool) -> None:
        reference, quantized = self._files
        self._float.run(feeds_of(reference, images))
        self._chain.run(feeds_of(quantized, images))
        self._in_full = not all(map(self._finite, self.matching.compared))
        self._spread(self._add_chain, len(self.sums))
        if not alone:
            return
        feeds = self.local.quantized_feeds
        self._alone.shape({feed.number: self._chain.tensor(feed.like).shape for feed in feeds})
        if self._float_alone is not None:
            feeds = self.local.reference_feeds
            self._float_alone.shape({feed.number: self._float.tensor(feed.like).shape for feed in feeds})
        self._spread(self._feed, len(self._fed))
        self._alone.invoke()
        if self._float_alone is not None:
            self._float_alone.invoke()
        self._spread(self._add_local, len(self.sums))

    def _spread(self, work: Callable[[int], None], count: int) -> None:
        """Does `work` for each number below `count`, dealt to the threads beforehand: most take microseconds."""

        def some(first: int) -> None:
            for number in range(first, count, _THREADS):
                work(number)

        list(self._pool.map(some, range(_THREADS)))

    def _reference(self, number: int) -> NDArray[Any]:
        return real_values(self.matching.reference.tensor(number), self._float.tensor(number))

    def _feed(self, which: int) -> None:
        """Writes one tensor of the float file to the inputs that read it with one rounding."""
        feeds = self._fed[which]
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

    def _add_chain(self, which: int) -> None:
        part = self.local.parts[which]
        reference, test = self._reference(part.reference), self._chain.tensor(part.output)
        if reference.size != test.size or not test.size:
            return
        sums = self.sums[which] or TensorSums(channels=test.shape[-1] if test.ndim > 1 else 1)
        add_chain(sums, *self._compared(reference, test), affine(self.matching.quantized.tensor(part.output)))
        self.sums[which] = sums

    def _add_local(self, which: int) -> None:
        part, sums = self.local.parts[which], self.sums[which]
        if sums is None:
            return
        if part.rerun and self._float_alone is not None:
            tensor = self.matching.reference.tensor(part.reference)
            reference = real_values(tensor, self._float_alone.tensor(part.reference))
        else:
            reference = self._reference(part.reference)
            if part.given is not None:
                reference = part.given.real(part.given.stored(reference))
        test = self._alone.tensor(part.output)
        add_local(sums, *self._compared(reference, test), affine(self.matching.quantized.tensor(part.output)))

    def _compared(self, reference: NDArray[Any], test: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """What is added up of two tensors: all, where an output is not finite, to see where from."""
        if self._in_full:
            return reference, test
        return places(reference.reshape(test.shape)), places(test)

    def _finite(self, pair: tuple[int, int]) -> bool:
        number, other = pair
        return bool(np.all(np.isfinite(self._chain.tensor(number)))) and bool(
            np.all(np.isfinite(self._reference(other)))
        )

    def _add_outputs(self, labels: NDArray[Any] | None) -> None:
        for total, (number, other) in zip(self.outputs, self.matching.compared, strict=True):
            test = real_values(self.matching.quantized.tensor(number), self._chain.tensor(number))
            total.add(self._reference(other), test, labels)


def _step(matching: Matching, output: int) -> float:
    """Of the integers behind an output of the float file, should it have any."""
    how = affine(matching.reference.tensor(matching.reference.behind(output)))
    return 0.0 if how is None else how.scale


def _kind(matching: Matching, output: int) -> Kind:
    maker = matching.reference.makers.get(matching.reference.behind(output))
    return Kind.PROBABILITIES if maker is not None and maker.kind == "LOGISTIC" else Kind.UNKNOWN


def _computed(file: LiteFile, numbers: Iterable[int]) -> list[int]:
    """Without the file's inputs, which are there anyway."""
    return [number for number in numbers if number not in file.graph.inputs]


def _portions(elements: int, ways: Sequence[Batching]) -> tuple[int, int]:
    """Samples of one invocation where operators are run by themselves as well, and where only the chains are."""
    fixed = [way.size for way in ways if way.size is not None]
    if fixed:
        return min(fixed), min(fixed)
    return max(1, _ELEMENTS // elements), max(1, 2 * _ELEMENTS // elements)
