"""A path becomes a target: its files are opened once, and recognised once, for whatever is to be judged or run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path

from bncheck.facts.errors import NoModel, ReadError, Unreadable, UsageError
from bncheck.facts.findings import ExitCode, Report, TargetInfo, Verdict
from bncheck.facts.layers import Facts
from bncheck.facts.record import Record
from bncheck.judge.judge import exit_code, judge
from bncheck.recognise import RunRecogniser, recognise
from bncheck.recognise.averaged_weights import with_averages
from bncheck.recognise.optimizer_averages import TOLD, served_weights
from bncheck.settings.config import Settings
from bncheck.settings.options import Options, given
from bncheck.sources import ReadBefore, is_beside, open_checkpoint, open_model
from bncheck.sources.raw import RawModel
from bncheck.sources.remote import located
from bncheck.sources.stamps import changed, saved_now, stamps

_PAUSES = (0.05, 0.1, 0.2)
"""Seconds between attempts at files that somebody writes."""


class Memory:
    """What targets that are read one after the other share: their graph, where it is the same, recognised once."""

    def __init__(self, options: Options) -> None:
        self.files = ReadBefore()
        self.recogniser = RunRecogniser(options)
        self._silent: dict[object, frozenset[str]] = {}

    def silent(self, facts: Facts) -> frozenset[str]:
        """Rules that find nothing in these facts, as those of another checkpoint of the same graph and layout told."""
        if facts.like is None:
            return frozenset()
        if facts.like not in self._silent:
            from bncheck.judge.blind import silent_rules  # noqa: PLC0415 - runs alone need it

            self._silent[facts.like] = silent_rules(facts)
        return self._silent[facts.like]


class Target(Record, eq=False):
    """A model whose files were read, and what was said about it."""

    path: str
    """As it was given."""
    raw: RawModel
    options: Options
    known: Facts | None = None
    """What more than the files themselves is known; None: nothing."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> how long it took; grows."""
    memory: Memory | None = None
    kernels: bool = True
    """Whether they are read, where the memory has the graph."""

    @cached_property
    def facts(self) -> Facts:
        """What the files tell; raises ReadError where what they hold is damaged."""
        if self.known is not None:
            return self.known
        with timed(self.seconds, "recognise"):
            shared = self.memory
            found = (
                recognise(self.raw, self.options)
                if shared is None
                else shared.recogniser.recognise(self.raw, kernels=self.kernels)
            )
            return replace(found, given=given(self.options))

    def judged(self, facts: Facts | None = None, settings: Settings | None = None) -> Report:
        """The report on what the files tell, or on facts that hold more."""
        facts = facts or self.facts
        with timed(self.seconds, "rules"):
            silent = frozenset[str]() if self.memory is None else self.memory.silent(facts)
            report = judge(facts, settings=settings or self.options.settings, silent=silent)
        return replace(report, timing=self.seconds)


def read_target(
    path: str | Path, options: Options, *, alone: bool = False, memory: Memory | None = None, kernels: bool = True
) -> Target:
    """Opens a path: a model of any format; a checkpoint with its graph.

    The path may be the `.meta` beside a checkpoint, unless it is to be read `alone`. `memory` shares a graph with the
    checkpoint read before, and may leave `kernels` unread. Raises ReadError where a file cannot be read (NoModel:
    nothing there), UsageError where `graph` does not belong.
    """
    if not str(path):
        raise UsageError("the path is empty: name a model")
    read = open_model if alone or not is_beside(located(path)) else open_checkpoint
    graph = None if options.graph is None else located(options.graph)

    def once() -> Target:
        seconds: dict[str, float] = {}
        with timed(seconds, "read"):
            shared = None if memory is None else memory.files
            raw = read(located(path), graph=graph, use_graph=options.use_graph, memory=shared)
        return Target(path=str(path), raw=raw, options=options, seconds=seconds, memory=memory, kernels=kernels)

    return _unchanged(located(path), once)


def _unchanged(path: Path, once: Callable[[], Target]) -> Target:
    """What was read of files that nobody wrote meanwhile: read again, a few times, where somebody did.

    A trainer that saves over its own files otherwise looks like damage, or, where nothing is checksummed, mixes two
    models. Raises ReadError, Unreadable where the files never rest.
    """
    for pause in (*_PAUSES, None):
        before = stamps(path)
        error: ReadError | None = None
        try:
            target = once()
            _ = target.facts
        except ReadError as found:
            error = found
        now = stamps(path)
        file = changed(before, now)
        if file is None and (error is None or pause is None or not saved_now(now)):
            if error is not None:
                raise error
            return target
        if pause is None:
            break
        time.sleep(pause)
    assert file is not None
    if error is None and target.raw.format.is_checkpoint:
        return target  # whose tensors are held against the checksums of one index
    raise Unreadable(file, "it changes while it is being read", hint="try again once it is saved")


def read_runnable(path: str | Path, options: Options) -> Target:
    """As `read_target`, in the graph of the backbone or builder where one is named: what data can be run through.

    Raises ReadError or UsageError also for data that no model can be run on, before TensorFlow is loaded.
    """
    from bncheck.compare.data.first_look import look_at  # noqa: PLC0415 - only where a model is run

    look_at(options)
    if not built(options):
        return with_chosen_weights(read_target(path, options))
    refuse_two_networks(options)
    target = read_target(path, replace(options, use_graph=False))
    return with_chosen_weights(in_network(replace(target, options=options)))


def in_network(target: Target) -> Target:
    """A checkpoint's tensors in the graph of the backbone or builder; the same where none is named."""
    options = target.options
    if not built(options):
        return target
    from bncheck.backbones.build import with_network  # noqa: PLC0415 - as above
    from bncheck.compare.data.data import sample_shape  # noqa: PLC0415 - only where a model is run

    with timed(target.seconds, "read"):
        shape = None if options.data is None else sample_shape(options.data, options.size)
        return replace(target, raw=with_network(target.raw, options, shape))


def with_chosen_weights(target: Target) -> Target:
    """The model that the averages of its weights make, where these are asked for.

    A Keras file holds one model, which is served: asking for the other raises UsageError, as averages do where there
    are none.
    """
    asked = target.options.weights
    served = None if asked is None else served_weights(target.raw)
    if served is not None:
        if served.value != asked:
            raise UsageError(f"--weights {asked}: {target.path} holds no such model; {TOLD[served]}")
        return target
    if asked != "ema":
        return target
    raw = with_averages(target.raw)
    if raw is None:
        raise UsageError(
            f"{target.path} has no averages of its weights (…/ExponentialMovingAverage): use --weights raw"
        )
    return replace(target, raw=raw)


def built(options: Options) -> bool:
    """Whether the network is none that a file holds."""
    return options.model is not None or options.builder is not None


def refuse_two_networks(options: Options) -> None:
    """Raises UsageError where the network is given twice."""
    if options.model is not None and options.builder is not None:
        raise UsageError("--model and --builder exclude each other: both say what the network is")
    if built(options) and options.graph is not None:
        raise UsageError("--graph and --model or --builder exclude each other: both say what the network is")


def read_quantized(options: Options) -> RawModel | None:
    """The TFLite file that was made of the model; None where none is given. Raises UsageError for any other."""
    if options.quantized is None:
        return None
    lite = open_model(options.quantized, use_graph=False)
    if lite.lite is None:
        raise UsageError(f"{options.quantized}: {lite.format}, not a TFLite file: --quantized takes one")
    return lite


def unreadable(path: Path, error: ReadError, settings: Settings) -> Report:
    """The report of one of several targets that cannot be read; one that holds no model is merely inconclusive."""
    nothing = isinstance(error, NoModel)
    return Report(
        target=TargetInfo(path=str(path), format="no model" if nothing else "unreadable"),
        verdict=Verdict.INCONCLUSIVE,
        exit_code=exit_code(Verdict.INCONCLUSIVE, settings) if nothing else ExitCode.ERROR,
        layers=(),
        findings=(),
        suppressed=(),
        not_checked=(),
        checked=(),
        rules=(),
        headline=str(error),
        fail_on=settings.fail_on.value,
    )


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Notes how long the block takes."""
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
