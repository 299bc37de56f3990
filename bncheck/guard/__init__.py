"""One line in a training script that stops it before a run is wasted: batch norm statistics that nothing updates.

    bncheck.guard.assert_updates_wired(train_op)                      # TF1 graphs, before the first step
    hooks=[bncheck.guard.StatisticsMoveHook()]                        # MonitoredSession, Estimator, slim.training
    model.fit(..., callbacks=[bncheck.guard.StatisticsMoveCallback()])     # Keras 3 and tf-keras
    bncheck.guard.assert_running_statistics_move(model)               # PyTorch, before the loop
    Trainer(callbacks=[bncheck.guard.LightningStatisticsMoveCallback()])   # Lightning

Importing it imports no framework; using it takes the one that the script has loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncheck.guard.keras_callback import StatisticsMoveCallback
from bncheck.guard.session_hook import StatisticsMoveHook
from bncheck.guard.torch_hook import assert_running_statistics_move
from bncheck.guard.watch import StatisticsNotMoving, updates_until
from bncheck.guard.wiring import UpdatesNotWired, assert_updates_wired

if TYPE_CHECKING:
    from bncheck.guard.lightning_callback import LightningStatisticsMoveCallback as LightningStatisticsMoveCallback

__all__ = [
    "StatisticsMoveCallback",
    "StatisticsMoveHook",
    "StatisticsNotMoving",
    "UpdatesNotWired",
    "assert_running_statistics_move",
    "assert_updates_wired",
    "updates_until",
]


def __getattr__(name: str) -> Any:
    """The callback whose base class is Lightning's: made when it is asked for, so no part of `import *`."""
    if name != "LightningStatisticsMoveCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bncheck.guard.lightning_callback import LightningStatisticsMoveCallback  # noqa: PLC0415 - imports Lightning

    return LightningStatisticsMoveCallback
