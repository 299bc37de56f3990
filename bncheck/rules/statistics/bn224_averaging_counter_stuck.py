"""BN224 averaging-counter-stuck."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.wording import many, percent, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.testing import batch_norm, wired, with_graph

COUNT = """\
# the variable given as num_updates
train_op = optimizer.minimize(loss, global_step=global_step)"""


@rule(
    "BN224",
    "averaging-counter-stuck",
    severity=Severity.WARNING,
    needs=Needs.GRAPH,
    sees_too="C02",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The decay should rise with a counter that nothing writes, so it stays at its first value.

    What it detects
    ---------------
    `tf.train.ExponentialMovingAverage(decay, num_updates=n)` whose `n` no op increments: the global step of a
    `minimize` that was not given it.

    Why it matters
    --------------
    The decay is `min(decay, (1 + n) / (10 + n))`: 0.1 for n = 0. The averages are then those of the last batch or two,
    as noisy as a batch, and eval mode changes with every checkpoint.

    How it decides
    --------------
    An update's decay is the minimum of a constant and of something made of a scalar variable; nothing in the graph
    writes that variable but its initialiser and restores; and where a checkpoint is given, the variable is 0 there.

    Not detected
    ------------
    A count whose op is never run. A count that is fed.

    Fix
    ---
    Count the updates, or leave `num_updates` out:

        {COUNT}

    This checkpoint, without retraining: `bncheck repair PATH -o OUT --data images/`.

    References
    ----------
    moving_averages.py (ExponentialMovingAverage), tensorflow#2140. Failure mode C02.
    """
    found = {layer: counter for layer in model.layers if (counter := _counter(layer))}
    if not found:
        return
    first = next(iter(found))
    decay = next((u.decay for u in first.updates if u.stuck_counter and u.decay is not None), None)
    kept = "" if decay is None else f" It stays at {decay:g}, so each step keeps {percent(decay)} of the average."
    counters = tuple(dict.fromkeys(found.values()))
    code = COUNT.replace("the variable", f"`{counters[0]}`, the variable")
    yield Evidence(
        layers=tuple(layer.name for layer in found),
        message=f"The decay of {many(len(found), 'layer')} should rise with {quoted(counters)}, but no op in the "
        f"graph writes it.{kept}",
        location=counters[0],
        fix=fixes.training_code_and_repair(model, code),
        measurements=(
            Measurement(name="layers whose averaging counter is stuck", value=len(found), limit=0, unit="layers"),
            *([] if decay is None else [Measurement(name="decay", value=decay)]),
        ),
    )


def _counter(layer: Layer) -> str:
    return next((update.stuck_counter for update in layer.updates if update.stuck_counter), "")


def clean() -> tuple[Facts, ...]:
    """A fixed decay; one that rises."""
    return (with_graph(wired(batch_norm("bn"))), with_graph(wired(batch_norm("bn"), decay_rises=True)))


def broken() -> tuple[Facts, ...]:
    """A count that stays at 0."""
    return (with_graph(wired(batch_norm("bn"), decay=0.1, stuck_counter="global_step")),)
