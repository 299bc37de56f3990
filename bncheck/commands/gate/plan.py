"""Which stages a model goes through after its files were judged, and what became of them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bncheck.commands.gate.budget import Budget
from bncheck.commands.gate.stages import Progress
from bncheck.commands.target import Target
from bncheck.facts.findings import Stage, StageName, StageState
from bncheck.facts.layers import Facts
from bncheck.settings.config import Settings
from bncheck.settings.options import Options, silent

if TYPE_CHECKING:
    from bncheck.commands.gate.parent import Outcome

_RAISE = "raise the limit, or use less data (--batches)"


@dataclass(frozen=True, kw_only=True, eq=False)
class Ran:
    """What is known of a model after its stages."""

    facts: Facts
    stages: tuple[Stage, ...]
    peak_memory: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Measuring:
    """Runs any model of one gate with the same options, within the same budget."""

    options: Options
    budget: Budget
    progress: Progress

    def ran(self, target: Target, stopped: str = "") -> Ran:
        """The facts with what was measured, and how each stage ended; `stopped` tells why nothing is to be run."""
        planned = self._planned(target.facts, stopped)
        to_run = [stage.name for stage in planned if stage.state is StageState.DONE]
        if not to_run:
            return Ran(facts=target.facts, stages=planned)
        from bncheck.commands.gate.child import Request  # noqa: PLC0415 - as above
        from bncheck.commands.gate.parent import run  # noqa: PLC0415 - only where something is run

        options = replace(
            self.options,
            graph=target.options.graph,
            quantize=StageName.QUANTIZED in to_run,
            progress=silent,
            expected=silent,
            settings=Settings(),
        )
        request = Request(path=target.path, options=options)
        outcome = run(
            request,
            self.budget,
            lambda done, total: self.progress(to_run[-1], done, total),
            expected=self.options.expected,
        )
        return Ran(
            facts=_merged(target.facts, outcome),
            stages=tuple(_ended(stage, outcome, given=self._given) for stage in planned),
            peak_memory=outcome.peak_memory,
        )

    @property
    def _given(self) -> bool:
        """Whether quantized is a file, not a conversion."""
        return self.options.quantize and self.options.quantized is not None

    def _planned(self, facts: Facts, stopped: str) -> tuple[Stage, Stage]:
        """Both stages after the files: those that are to be run stand as done."""
        both = self._why_none(facts, stopped)
        if both is not None:
            return both, replace(both, name=StageName.QUANTIZED)
        modes, quantization = (
            Stage(name=StageName.MODES, state=StageState.DONE),
            Stage(name=StageName.QUANTIZED, state=StageState.DONE),
        )
        if facts.lite is not None:
            modes = replace(modes, state=StageState.LEFT_OUT, why="a TFLite file has no train mode")
            if not self._given:
                why, how = "a TFLite file is not quantized again", "give the quantized file with --quantized"
                quantization = replace(quantization, state=StageState.LEFT_OUT, why=why, how=how)
        if not self.options.quantize:
            quantization = replace(quantization, state=StageState.LEFT_OUT, why="--no-quantize was given", how="")
        return modes, quantization

    def _why_none(self, facts: Facts, stopped: str) -> Stage | None:
        """The first stage where neither is to be run."""
        if self.options.data is None:
            how = f"bncheck gate {shlex.quote(facts.path)} --data images/"
            return Stage(name=StageName.MODES, state=StageState.LEFT_OUT, why="no data was given", how=how)
        if stopped:
            return Stage(
                name=StageName.MODES, state=StageState.STOPPED, why=stopped, how="to run it anyway: --all-stages"
            )
        exceeded = self.budget.exceeded()
        return Stage(name=StageName.MODES, state=StageState.OVER_BUDGET, why=exceeded, how=_RAISE) if exceeded else None


def _ended(stage: Stage, outcome: Outcome, *, given: bool) -> Stage:
    """A stage that was to be run, as it ended; `given`: quantized is a file, not a conversion."""
    if stage.state is not StageState.DONE:
        return stage
    if stage.name in outcome.reached:
        before = outcome.reached.get(StageName.MODES, 0.0) if stage.name == StageName.QUANTIZED else 0.0
        return replace(stage, seconds=outcome.reached[stage.name] - before)
    how = _RAISE if outcome.state is StageState.OVER_BUDGET else ""
    if not how and StageName.MODES in outcome.reached and not given:
        how = "skip it with --no-quantize"
    if outcome.state is StageState.DONE:
        return replace(stage, state=StageState.IMPOSSIBLE, why="it was not measured")
    return replace(stage, state=outcome.state, why=outcome.why, how=how)


def _merged(files: Facts, outcome: Outcome) -> Facts:
    """What was measured joins what the files tell.

    A network that was built by a backbone's name or the user's code knows less than the model's own graph, where there
    is one: its measurements join the facts of that graph, if both speak of the same layers.
    """
    shown = outcome.shown
    if shown is None:
        return files
    network = shown.network
    if network is None:
        return shown.joined(files)
    same = {layer.name for layer in network.layers} <= {layer.name for layer in files.layers}
    whole = files if files.graph is not None and same else network
    return shown.joined(replace(whole, fold=network.fold or files.fold))
