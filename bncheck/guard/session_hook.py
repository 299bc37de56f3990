"""TF1 sessions: a SessionRunHook that stops a run whose statistics stand still."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Facts, Layer
from bncheck.facts.remedies import WIRE_UPDATES
from bncheck.guard.watch import FIRST_STEPS, LOG, SHARE, Watch, check_first_steps, tell_share
from bncheck.guard.wiring import facts_of, loaded_tensorflow
from bncheck.settings.options import Options

_FIX_TF1 = f"Fix: the train op must run the updates:\n{indent(WIRE_UPDATES, '    ')}"


class StatisticsMoveHook:
    """A SessionRunHook that raises StatisticsNotMoving where statistics stand still in the first steps of a run.

    For MonitoredSession, Estimator and slim.training alike. Watches every batch norm that an optimizer of the graph
    trains on batch statistics. Steps are those of the global step where there is one, else runs of the session.
    `total_steps`, where given, is held against the decay: warns (UserWarning) if more than `share` of the initial
    values will be left at the end.
    """

    def __new__(cls, first_steps: int = FIRST_STEPS, *, share: float = SHARE, total_steps: int | None = None) -> Any:
        """The hook, a subclass of the SessionRunHook of the TensorFlow that is loaded."""
        base = loaded_tensorflow().compat.v1.train.SessionRunHook
        kind = type("StatisticsMoveHook", (_HookMethods, base), {"__doc__": cls.__doc__, "__module__": __name__})
        hook = kind()
        hook.watch = Watch(first_steps=check_first_steps(first_steps), share=share)
        hook.total_steps = total_steps
        return hook


class _HookMethods:
    """What a SessionRunHook does at each point of a session's life."""

    watch: Watch
    total_steps: int | None
    reads: Mapping[str, Sequence[Any]]
    step: Any = None
    first: int = 0
    runs: int = 0

    def begin(self) -> None:
        """Finds the layers and makes the ops that read their statistics, while the graph is still open."""
        v1 = loaded_tensorflow().compat.v1
        graph = v1.get_default_graph()
        layers = _trained(facts_of(graph, Options()))
        variables = {v.op.name: v for v in (*v1.global_variables(), *v1.local_variables())}
        with v1.name_scope("bncheck_guard"):
            self.reads = {
                layer.name: [
                    v1.identity(variable)
                    for vector in layer.statistics
                    for name, variable in variables.items()
                    if vector.name and (name == vector.name or name.startswith(f"{vector.name}/part_"))
                ]
                for layer in layers
            }
        self.reads = {layer: reads for layer, reads in self.reads.items() if reads}
        self.step = v1.train.get_global_step(graph)
        if not self.reads:
            warnings.warn(
                "bncheck.guard found no batch norm that this graph trains, so it watches nothing", stacklevel=2
            )
        tell_share((layer.decay for layer in layers if layer.decay is not None), self.watch.share, self.total_steps)

    def after_create_session(self, session: Any, coord: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Reads where the run starts, restored checkpoint included."""
        self.watch.start.clear()
        self.watch.begin(self._values(session))
        self.first, self.runs = (0 if self.step is None else int(session.run(self.step))), 0

    def before_run(self, run_context: Any) -> Any:  # noqa: ARG002 - the base class's signature
        """Asks for the global step with every run until the check is done."""
        if self.watch.done or self.step is None:
            return None
        return loaded_tensorflow().compat.v1.train.SessionRunArgs(self.step)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Checks once, after the first steps."""
        if self.watch.done or not self.reads:
            return
        self.runs += 1
        # read beside the train op, the global step may still be the one before it
        steps = self.runs if self.step is None else int(run_values.results) - self.first
        if steps >= self.watch.first_steps:
            self.watch.check(self._values(run_context.session), steps, _FIX_TF1)

    def end(self, session: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Nothing is left to do; a run shorter than the first steps stays unchecked, and says so."""
        if self.reads and not self.watch.done:
            LOG.warning("the run ended before %d steps: bncheck.guard did not check it", self.watch.first_steps)

    def _values(self, session: Any) -> dict[str, tuple[NDArray[Any], ...]]:
        found = session.run(self.reads)
        return {layer: tuple(np.array(value) for value in values) for layer, values in found.items()}


def _trained(facts: Facts) -> list[Layer]:
    """Layers with statistics that a train op of the graph trains on batch statistics."""
    from bncheck.facts.training import has_statistics, trained_on_batches, trainers  # noqa: PLC0415 - as in _facts

    return [layer for layer in facts.layers if has_statistics(layer) and trainers(layer) and trained_on_batches(layer)]
