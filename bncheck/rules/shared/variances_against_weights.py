"""Moving variances held against what the weights before their layers predict, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bncheck.facts.findings import Measurement
from bncheck.facts.layers import Layer
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import names
from bncheck.numerics.variance_agreement import (
    FLAT,
    WITH_BETWEEN,
    SlopeOfAll,
    flat,
    off_level,
    together,
    variance_agreements,
)
from bncheck.rules.shared.against_weights import SURE, AgainstWeights

_ROOT = 0.35, 0.6
"""Powers of the predicted variances as which standard deviations rise, half of those of variances; a guess."""


def variances_against_weights(layers: Sequence[Layer]) -> AgainstWeights:
    """Of layers in forward order: whose variances do not rise with the predicted ones, or are of another scale."""
    told = zip(layers, variance_agreements(layers), strict=True)
    judged = {layer.name: found for layer, found in told if found is not None}
    flattened, off = flat(judged), off_level(judged)
    bad = [layer for layer in layers if layer.name in flattened or layer.name in off]
    if not bad:
        return AgainstWeights()
    of_all = together(judged)
    if of_all is not None and of_all.flat and of_all.between is not None:
        return _all_together(bad, of_all)
    worst = max(bad, key=lambda layer: (layer.name in flattened, judged[layer.name].channels))
    seen, layers_named = judged[worst.name], names(bad)
    if worst.name in flattened:
        how = (
            f"they rise with the predicted ones by the power {seen.slope:.2f} over {many(seen.channels, 'channel')} "
            f"(healthy: at least {FLAT}){_as_roots(seen.slope) if not seen.filled else _filled(seen.filled)}"
        )
        measured = Measurement(name="power of the predicted variances", value=seen.slope, limit=FLAT)
    else:
        times = math.exp(off[worst.name])
        how = f"they are {times:.2g} times what the other layers' let expect"
        measured = Measurement(name="variances against those expected", value=times, limit=1, unit="times")
    return AgainstWeights(
        bad=layers_named,
        message=f"The moving variances of {many(len(bad), 'layer')} of {len(judged)} do not fit the weights before "
        f"{'it' if len(bad) == 1 else 'them'}: {listing(layers_named)}. In {worst.name} {how}.",
        location=worst.variance.name,
        sure=seen.slope + SURE * seen.slope_error < FLAT and not seen.behind_images,
        measurements=(measured,),
    )


def _all_together(layers: Sequence[Layer], seen: SlopeOfAll) -> AgainstWeights:
    return AgainstWeights(
        bad=names(layers),
        message=f"The moving variances of {many(len(layers), 'layer')} do not fit the weights before them: in all, "
        f"within layers and from one to another, they rise with the predicted ones by the power {seen.slope:.2f} "
        f"(healthy: at least {WITH_BETWEEN}){_as_roots(seen.slope)}.",
        location=layers[0].variance.name,
        sure=seen.at_most(SURE) < WITH_BETWEEN,
        measurements=(Measurement(name="power of the predicted variances", value=seen.slope, limit=WITH_BETWEEN),),
    )


def _filled(share: float) -> str:
    return f", unless {share:.2g} is taken off them all, as of initial value"


def _as_roots(slope: float) -> str:
    return ", as standard deviations would" if _ROOT[0] < slope < _ROOT[1] else ""
