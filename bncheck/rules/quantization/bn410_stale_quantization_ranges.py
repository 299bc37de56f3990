"""BN410 stale-quantization-ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, PerChannel
from bncheck.facts.wording import listing, many, percent
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.fixes import this_checkpoint
from bncheck.testing import batch_norm, facts

if TYPE_CHECKING:
    from bncheck.facts.fake_quant import Bound, FakeQuantFacts, RecordedRange

TIMES = 10.0
"""Rounding error against the least possible: the first steps of training move it by up to 7."""
FLOOR = 1e-3
"""Share of the weights' energy below which a rounding error does no harm: 30 dB."""
JUNK = 0.05
"""Share from which on it does: 13 dB, where a float model and its copy begin to differ in classes."""


@rule("BN410", "stale-quantization-ranges", severity=Severity.ERROR, needs=Needs.VALUES, sees_too="G06")
def check(model: Facts) -> Iterator[Evidence]:
    """The ranges of quantization-aware training were recorded with other statistics than the stored ones, or never.

    What it detects
    ---------------
    A graph that folds batch norm into its weights and rounds them (FakeQuant, as `create_training_graph` writes it),
    whose stored range for a kernel does not fit the kernel folded with the stored statistics; and ranges that still are
    what the graph initialises them with, although the weights were trained.

    Why it matters
    --------------
    The served graph and the converter read these ranges. Weights beyond them are clipped, and ranges much too wide
    leave only a few levels. It happens when statistics are corrected and ranges are not.

    How it decides
    --------------
    By numbers: each kernel is folded with the stored statistics and rounded as the op does it, within the stored range
    and within its own. The first error is more than 10 times the second and more than 0.1 % of the weights' energy; an
    error (not a warning) from 5 % on. Training records the range of a kernel in every step: in healthy checkpoints the
    two differ by hundredths, and in the first steps up to sevenfold at 0.02 % of the energy. Ranges of activations
    count where both ends are exactly the initial ones and the lower one is not 0, which no recording leaves as it was.

    Measured: a checkpoint whose statistics alone were repaired had 99.2 % accuracy in float, 11.4 % in its own graph,
    and 97.2 % once the ranges were recorded again.

    Not detected
    ------------
    Ranges of activations that were recorded with other statistics: what they should be only data tell. Statistics that
    never moved: the ranges of kernels fit them (BN101).

    Fix
    ---
    Record the ranges again with the statistics; a repair does it (`bncheck repair PATH -o OUT --data DATA`), and so
    does training on for some hundred steps with the updates wired.

    References
    ----------
    arXiv 1712.05877 (sections 3.1, 3.2), arXiv 1806.08342 (3.2.2), tensorflow/models#4521. Failure mode G06.
    """
    known = model.fake_quant
    if known is None:
        return
    stale = [recorded for recorded in known.ranges if _misfits(recorded)]
    if stale:
        yield _misfit(model, stale)
    elif _trained(model):
        yield from _never_written(model, known)


def _misfits(recorded: RecordedRange) -> bool:
    if recorded.noise is None or recorded.least_noise is None:
        return False
    return recorded.noise > max(TIMES * recorded.least_noise, FLOOR)


def _misfit(model: Facts, stale: Sequence[RecordedRange]) -> Evidence:
    worst = max(stale, key=lambda recorded: recorded.noise or 0.0)
    assert worst.extent is not None
    assert worst.noise is not None
    assert worst.least_noise is not None
    layers = tuple(recorded.layer for recorded in stale if recorded.layer is not None)
    cut = "clips them" if _outside(worst) else "leaves them few levels"
    untouched = " They still have their initial values." if all(map(_initial, stale)) else ""
    return Evidence(
        layers=layers,
        message=(
            f"The quantization ranges of folded weights do not fit the stored statistics in "
            f"{many(len(layers), 'layer')}: {listing(layers)}. The folded weights of {worst.layer} reach from "
            f"{float(worst.extent[0].min()):.3g} to {float(worst.extent[1].max()):.3g}; the range from "
            f"{_lowest(worst.low):.3g} to {_highest(worst.high):.3g} {cut}: they are off by {percent(worst.noise)} "
            f"instead of {percent(worst.least_noise)}.{untouched}"
        ),
        severity=Severity.ERROR if worst.noise > JUNK else Severity.WARNING,
        location=worst.low.name,
        fix=this_checkpoint(model),
        measurements=(
            Measurement(
                name="rounding error of the folded weights",
                value=worst.noise,
                limit=max(TIMES * worst.least_noise, FLOOR),
                unit="of their energy",
            ),
            Measurement(name="the same within their own range", value=worst.least_noise, unit="of their energy"),
        ),
    )


def _never_written(model: Facts, known: FakeQuantFacts) -> Iterator[Evidence]:
    """Ranges of activations that nothing was recorded in."""
    from bncheck.facts.fake_quant import Rounds  # noqa: PLC0415 - start-up

    told = [r for r in known.ranges if r.rounds is Rounds.ACTIVATIONS and r.low.initial not in {None, 0.0}]
    untouched = [recorded for recorded in told if _initial(recorded)]
    if not untouched:
        return
    names = tuple(recorded.low.name.rpartition("/")[0] for recorded in untouched)
    yield Evidence(
        layers=(),
        message=(
            f"{len(untouched)} of {many(len(told), 'activation range')} still "
            f"{'has its' if len(untouched) == 1 else 'have their'} initial values, "
            f"{_lowest(untouched[0].low):g} to {_highest(untouched[0].high):g}, although the weights were trained: "
            f"{listing(names)}."
        ),
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        location=untouched[0].low.name,
        fix=this_checkpoint(model),
        measurements=(Measurement(name="ranges never recorded", value=len(untouched), limit=0, unit="ranges"),),
    )


def _trained(model: Facts) -> bool:
    return any(layer.affine_moved for layer in model.layers)


def _initial(recorded: RecordedRange) -> bool:
    """Whether both ends are bit-exactly what they start with."""
    return all(
        bound.initial is not None and bound.values is not None and bool(np.all(bound.values == bound.initial))
        for bound in (recorded.low, recorded.high)
    )


def _outside(recorded: RecordedRange) -> bool:
    assert recorded.extent is not None
    low, high = recorded.extent
    return float(low.min()) < _lowest(recorded.low) or float(high.max()) > _highest(recorded.high)


def _lowest(bound: Bound) -> float:
    return float("nan") if bound.values is None else float(bound.values.min())


def _highest(bound: Bound) -> float:
    return float("nan") if bound.values is None else float(bound.values.max())


def _bound(name: str, value: float, initial: float) -> Bound:
    from bncheck.facts.fake_quant import Bound  # noqa: PLC0415 - start-up

    return Bound(name=name, key=name, values=np.array(value), initial=initial)


def _range(
    low: float, high: float, *, extent: tuple[float, float] | None = None, noise: tuple[float, float] | None = None
) -> RecordedRange:
    """That of the folded weights of the layer "bn" where `extent` is given, else of an activation."""
    from bncheck.facts.fake_quant import RecordedRange, Rounds  # noqa: PLC0415 - start-up

    ends: tuple[PerChannel, PerChannel] | None = None if extent is None else (np.array(extent[0]), np.array(extent[1]))
    scope = "conv/act_quant" if extent is None else "conv/weights_quant"
    return RecordedRange(
        name=f"{scope}/FakeQuantWithMinMaxVars",
        rounds=Rounds.ACTIVATIONS if extent is None else Rounds.WEIGHTS,
        low=_bound(f"{scope}/min", low, -6.0),
        high=_bound(f"{scope}/max", high, 6.0),
        bits=8,
        narrow=extent is not None,
        layer=None if extent is None else "bn",
        extent=ends,
        noise=None if noise is None else noise[0],
        least_noise=None if noise is None else noise[1],
    )


def _model(*ranges: RecordedRange) -> Facts:
    from bncheck.facts.fake_quant import FakeQuantFacts  # noqa: PLC0415 - start-up

    return facts(batch_norm("bn"), fake_quant=FakeQuantFacts(ranges=ranges, folded=1))


def clean() -> tuple[Facts, ...]:
    """A range one step old; ranges that activations moved; a kernel whose values were not at hand."""
    return (
        _model(_range(-1.6, 1.5, extent=(-1.61, 1.52), noise=(8.2e-5, 8.0e-5)), _range(-3.1, 4.0)),
        _model(_range(-1.6, 1.5, extent=(-1.61, 1.52))),
        facts(batch_norm("bn")),
    )


def broken() -> tuple[Facts, ...]:
    """Recorded with variance 1 where 0.1 is stored; never written; too wide; activations never written."""
    return (
        _model(_range(-0.66, 0.62, extent=(-2.0, 1.9), noise=(0.31, 8.0e-5))),
        _model(_range(-6.0, 6.0, extent=(-0.2, 0.2), noise=(0.08, 8.0e-5))),
        _model(_range(-6.0, 6.0, extent=(-0.9, 0.9), noise=(4.0e-3, 8.0e-5))),
        _model(_range(-1.6, 1.5, extent=(-1.61, 1.52), noise=(8.2e-5, 8.0e-5)), _range(-6.0, 6.0)),
    )
