"""The second model in a checkpoint that holds averages of its weights (TF-slim's `--moving_average_decay`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bncheck.facts.layers import Layer
from bncheck.recognise.auxiliary import SHADOW
from bncheck.sources.raw import RawModel


def with_averages(raw: RawModel) -> RawModel | None:
    """The model whose every variable has the value of its average, where there is one; None without any.

    As `ExponentialMovingAverage.variables_to_restore` restores it. What is read so is written back under the key of the
    average.
    """
    averages = {key.removesuffix(SHADOW): raw.tensors[key] for key in raw.tensors if key.endswith(SHADOW)}
    known = {name: tensor for name, tensor in averages.items() if name in raw.tensors}
    if not known:
        return None
    return replace(raw, tensors={**{key: raw.tensors[key] for key in raw.tensors}, **known})


def sharing_statistics(averaged: Iterable[Layer]) -> tuple[str, ...]:
    """Layers of `with_averages` whose statistics have no average: the raw and the averaged weights share them."""
    return tuple(
        layer.name for layer in averaged if any(v.key and not v.key.endswith(SHADOW) for v in layer.statistics)
    )
