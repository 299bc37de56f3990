"""Averages that start at 0: where nothing tells a variance's initial value, statistics that are all 0 do."""

from __future__ import annotations

from dataclasses import replace

from bncheck.facts.layers import Facts, Layer


def with_zero_start(facts: Facts) -> Facts:
    """The facts, with variances said to start at 0 where every mean and every variance of the model is exactly 0.

    That is what `tf.train.ExponentialMovingAverage` of a tensor and Sonnet's averages hold before their first update
    (failure mode A16); exported graphs have no initialiser to tell it. Single layers of zeros are dead ones.
    """
    known = [layer for layer in facts.layers if layer.mean.constant_checked and layer.variance.constant_checked]
    if not known or not all(_holds_zeros(layer) for layer in known):
        return facts
    layers = tuple(
        replace(layer, variance=replace(layer.variance, initial=0.0)) if _holds_zeros(layer) else layer
        for layer in facts.layers
    )
    return replace(facts, layers=layers)


def _holds_zeros(layer: Layer) -> bool:
    return layer.variance.initial in (None, 0.0) and layer.mean.constant == 0 and layer.variance.constant == 0
