"""BN223 shared-at-several-depths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Site
from bncheck.facts.training import has_statistics
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import in_framework, made_with
from bncheck.testing import batch_norm, site, wired, with_graph

OF_ITS_OWN = """\
# TF-slim: no reuse within one network
net = slim.batch_norm(net, scope=f"bn{i}")
# tf.layers
net = tf.layers.batch_normalization(net, name=f"bn{i}")
# Keras: a new layer for each place
x = tf.keras.layers.BatchNormalization()(x)"""


@rule(
    "BN223",
    "shared-at-several-depths",
    severity=Severity.WARNING,
    confidence=Confidence.MEDIUM,
    needs=Needs.GRAPH,
    meaning=Meaning.VALUES_FAULT,
    sees_too="B11",
)
def check(model: Facts) -> Iterator[Evidence]:
    """One batch norm serves several places of one forward pass that see different data.

    What it detects
    ---------------
    A layer one of whose places lies behind another in the same pass: one name under `AUTO_REUSE` in a loop, a Keras
    layer called again, the time steps of a recurrent network.

    Why it matters
    --------------
    In train mode each place has the statistics of its own batch. The moving statistics mix all of them and fit none: in
    eval mode each place is normalised with those of the others. Gamma and beta are shared as well.

    How it decides
    --------------
    By the activations: one site of the layer is reached from another through data, weights left aside. Towers, and
    the two sides of a siamese network, lie beside one another: BN208 and BN304 look at those. Time steps that each have
    a row of their own in one variable share nothing.

    Not detected
    ------------
    Places that happen to see alike data: `bncheck compare train-vs-eval` measures how far each is off. Loops.

    Fix
    ---
    A batch norm of its own for every place; in a recurrent network statistics for every time step:

        {OF_ITS_OWN}

    References
    ----------
    arXiv 1603.09025 (statistics per time step), tensorflow#9179. Failure mode B11.
    """
    shared = {layer: sites for layer in model.layers if has_statistics(layer) and (sites := _in_a_row(layer))}
    if not shared:
        return
    most = max(shared, key=lambda layer: len(shared[layer]))
    places = ", ".join(f"{layer.name} at {len(sites)}" for layer, sites in list(shared.items())[:3])
    more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
    yield Evidence(
        layers=tuple(layer.name for layer in shared),
        message=f"{many(len(shared), 'layer')} {'serves' if len(shared) == 1 else 'serve'} several places of one "
        f"forward pass, one after the other, with one set of statistics ({places}{more} places): "
        f"{quoted(site.name for site in shared[most])}. It holds a mixture of all of them.",
        location=shared[most][0].name,
        fix=fixes.training_code(in_framework(OF_ITS_OWN, made_with(model, list(shared)))),
        measurements=(
            Measurement(name="layers applied at several depths", value=len(shared), limit=0, unit="layers"),
            Measurement(name="most places of one layer", value=len(shared[most]), limit=1, unit="sites"),
        ),
    )


def _in_a_row(layer: Layer) -> list[Site]:
    """Sites of the layer that lie behind or before another of its sites."""
    rows = {site.name: site.row for site in layer.sites}
    behind = {
        site.name: {name for name in site.before if name != site.name and rows.get(name, -1) == site.row}
        for site in layer.sites
    }
    before = set().union(*behind.values()) if behind else set()
    return [site for site in layer.sites if behind[site.name] or site.name in before]


def _applied(*sites: Site) -> Facts:
    return with_graph(replace(wired(batch_norm("bn")), sites=sites))


def _place(name: str, *before: str, row: int | None = None) -> Site:
    return site(name, train_ops=("Adam",), before=before, row=row)


def clean() -> tuple[Facts, ...]:
    """One place; two towers; a tower behind another layer; two time steps with a row each."""
    return (
        _applied(_place("bn/a")),
        _applied(_place("bn/a"), _place("bn/b")),
        _applied(_place("bn/a"), _place("tower/bn", "tower/other")),
        _applied(_place("bn/a", row=0), _place("bn_1/a", "bn/a", row=1)),
    )


def broken() -> tuple[Facts, ...]:
    """Two depths of one pass."""
    return (_applied(_place("bn/a"), _place("bn_1/a", "bn/a")),)
