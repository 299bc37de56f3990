"""Lightning: a callback that stops a run whose running statistics stand still. Importing it imports Lightning."""

from __future__ import annotations

import math
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from bncheck.facts.errors import UsageError
from bncheck.guard.torch_hook import decays, running_statistics
from bncheck.guard.watch import FIRST_STEPS, LOG, SHARE, Watch, check_first_steps, tell_share

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")
"""One library under two names: a Trainer takes callbacks of its own."""
_FIX_LIGHTNING = """\
Fix: a Trainer leaves each module in the mode it finds it in. Put the model into training mode before the run:
    model.train()
    trainer.fit(model, ...)
Frozen on purpose? Freeze the layer's weights too, and it is left out:
    layer.eval().requires_grad_(False)"""


def _bases() -> tuple[type, ...]:
    """`Callback` of what the script has loaded, else of what is installed. Raises UsageError where neither is."""
    loaded = [name for name in _PACKAGES if name in sys.modules]
    installed = [name for name in _PACKAGES if find_spec(name.partition(".")[0]) is not None]
    if not loaded and not installed:
        raise UsageError("Lightning is not installed: pip install lightning")
    return tuple(import_module(name).Callback for name in loaded or installed[:1])


_Callback: Any = type("_Callback", _bases(), {})


class LightningStatisticsMoveCallback(_Callback):  # type: ignore[misc]  # its base is known only when Lightning is
    """A callback of Lightning's Trainer that raises StatisticsNotMoving where statistics stand still.

    Watches every batch norm of the module that takes running averages and is trained; checks once, after the first
    batches of `fit`. Warns (UserWarning) at the start where the run is too short for the momentum: more than `share` of
    the initial values will be left. Raises UsageError for a number of steps below 1.
    """

    def __init__(self, first_steps: int = FIRST_STEPS, *, share: float = SHARE) -> None:
        self._first_steps, self._share = check_first_steps(first_steps), share
        self._watch = Watch(first_steps=first_steps, share=share)
        self._batches = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Reads where the run starts."""
        self._watch, self._batches = Watch(first_steps=self._first_steps, share=self._share), 0
        self._watch.begin(running_statistics(pl_module))
        tell_share(decays(pl_module), self._share, _batches_to_come(trainer))

    def on_train_batch_end(self, _trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
        """Checks once, after the first batches; lazy layers are compared with what the first one left."""
        self._batches += 1
        if self._watch.done:
            return
        if self._batches == 1:
            self._watch.begin(running_statistics(pl_module))
        if self._batches >= self._first_steps:
            self._watch.check(running_statistics(pl_module), self._batches, _FIX_LIGHTNING)

    def on_train_end(self, _trainer: Any, _pl_module: Any) -> None:
        """Says so where the run was too short to be checked."""
        if self._watch.start and not self._watch.done:
            LOG.warning("the run ended before %d steps: bncheck.guard did not check it", self._first_steps)


def _batches_to_come(trainer: Any) -> int | None:
    """Batches of the run, each of which updates the statistics; None where the Trainer has no end."""
    epochs, batches = trainer.max_epochs, trainer.num_training_batches
    ends = []
    if epochs is not None and epochs > 0 and math.isfinite(batches):
        ends.append(int(batches) * epochs)
    if trainer.max_steps > 0:
        ends.append(trainer.max_steps * trainer.accumulate_grad_batches)
    return min(ends, default=None)
