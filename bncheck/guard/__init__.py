"""One line in a training script that stops it before a run is wasted: batch norm statistics that nothing updates.

    bncheck.guard.assert_updates_wired(train_op)                      # TF1 graphs, before the first step
    hooks=[bncheck.guard.StatisticsMoveHook()]                        # MonitoredSession, Estimator, slim.training
    model.fit(..., callbacks=[bncheck.guard.StatisticsMoveCallback()])     # Keras 3 and tf-keras
    bncheck.guard.assert_running_statistics_move(model)               # PyTorch, before the loop

Importing it imports no framework; using it takes the one that the script has loaded.
"""

from __future__ import annotations

from bncheck.guard.keras_callback import StatisticsMoveCallback
from bncheck.guard.session_hook import StatisticsMoveHook
from bncheck.guard.torch_hook import assert_running_statistics_move
from bncheck.guard.watch import StatisticsNotMoving, updates_until
from bncheck.guard.wiring import UpdatesNotWired, assert_updates_wired

__all__ = [
    "StatisticsMoveCallback",
    "StatisticsMoveHook",
    "StatisticsNotMoving",
    "UpdatesNotWired",
    "assert_running_statistics_move",
    "assert_updates_wired",
    "updates_until",
]
