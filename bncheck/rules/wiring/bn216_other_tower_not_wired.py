"""BN216 other-tower-not-wired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Role, Site, Update
from bncheck.facts.training import trainers
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.testing import batch_norm, site, update, wired, with_graph

ALL_TOWERS = f"""\
# of all towers: after the last one is built
{remedies.COLLECT}
{remedies.UNDER_UPDATES}"""


@rule(
    "BN216",
    "other-tower-not-wired",
    severity=Severity.INFO,
    needs=Needs.GRAPH,
    meaning=Meaning.WIRING_FAULT | Meaning.STATISTICS_STAY,
    sees="C10",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Several towers share a layer, and the train op runs the updates of only some of them.

    What it detects
    ---------------
    Layers applied in several training towers of which some have their updates wired and others not.

    Why it matters
    --------------
    The statistics see only part of each batch: noisier, and biased if the towers get different data. Updating one tower
    on purpose is common practice and good enough; updating only the last one is usually a list overwritten in a loop.

    How it decides
    --------------
    Of the sites that the train op depends on and gradients flow from, those whose updates it runs. One of them: INFO,
    with its place, for that is how many do it on purpose. More than one but not all: WARNING: that is never intended.
    No tower wired is another fault (BN201, BN202).

    Not detected
    ------------
    Towers in different processes (Horovod, parameter servers): each has a graph of its own.

    Fix
    ---
    Decide, and say so in one place, after the loop (all: see BN208). TF-slim, tf.layers:

        {ALL_TOWERS}

    Keras: `tf.distribute.MirroredStrategy`, or `BatchNormalization(synchronized=True)`.

    References
    ----------
    argman/EAST#112, tensorflow/models#100, tensorflow#7439, horovod#49. Failure modes C10, C11; P8.
    """
    if model.graph is None or not model.graph.train_ops:
        return
    groups: dict[tuple[bool, ...], list[Layer]] = {}
    for layer in model.layers:
        towers = _towers(layer)
        if any(towers) and not all(towers):
            groups.setdefault(towers, []).append(layer)
    for towers, layers in groups.items():
        yield _evidence(towers, layers)


def _towers(layer: Layer) -> tuple[bool, ...]:
    """For each training tower in forward order, whether its updates are wired."""
    ops = set(trainers(layer))
    sites: dict[str, Site] = {
        s.name: s for s in layer.sites if ops & set(s.train_ops) and s.backpropagated is not False
    }
    by_site: dict[str, list[Update]] = {}
    for found in layer.updates:
        if found.site in sites:
            by_site.setdefault(str(found.site), []).append(found)
    ordered = sorted(by_site, key=lambda name: sites[name].order)
    return tuple(any(u.train_ops for u in by_site[name]) for name in ordered)


def _evidence(towers: Sequence[bool], layers: Sequence[Layer]) -> Evidence:
    count = sum(towers)
    one = count == 1
    place = "the first" if towers[0] else "the last" if towers[-1] else "one in the middle"
    reading = (
        f"only {place} has its updates wired: common practice"
        + (", unless the loop over towers overwrites the list" if not towers[0] else "")
        if one
        else f"the updates of {count} are wired and those of {len(towers) - count} are not"
    )
    lost = [u.name for layer in layers for u in layer.updates if not u.train_ops]
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"Of {len(towers)} training towers that share {many(len(layers), 'layer')}, {reading}. "
        f"Not run: {quoted(lost, 2)}.",
        severity=Severity.INFO if one else Severity.WARNING,
        confidence=Confidence.LOW if one else Confidence.MEDIUM,
        location=lost[0],
        fix=fixes.training_code(ALL_TOWERS),
        measurements=(
            Measurement(name="towers with wired updates", value=count, limit=len(towers), unit="towers"),
            Measurement(name="towers", value=len(towers), unit="towers"),
        ),
    )


def clean() -> tuple[Facts, ...]:
    """One tower; all of two; none (BN201's); a second application that no gradient flows from."""
    aside = towered("+-")
    aside = replace(aside, sites=(aside.sites[0], replace(aside.sites[1], backpropagated=False)))
    return (
        with_graph(wired(batch_norm("bn"))),
        with_graph(towered("++")),
        with_graph(towered("--")),
        with_graph(aside),
    )


def broken() -> tuple[Facts, ...]:
    """The first of two; the last of four; two of four (a warning)."""
    return (with_graph(towered("+-")), with_graph(towered("---+")), with_graph(towered("++--")))


def towered(wiring: str) -> Layer:
    """A layer applied in towers, one a sign: "+" where the train op runs the tower's updates, "-" where not."""
    sites = tuple(site(f"tower_{n}/bn/FusedBatchNormV3", train_ops=("Adam",), order=n) for n in range(len(wiring)))
    updates = tuple(
        update(
            "bn",
            role,
            name=f"tower_{n}/bn/Update_{role.value}",
            site=s.name,
            train_ops=("Adam",) if sign == "+" else (),
        )
        for n, (s, sign) in enumerate(zip(sites, wiring, strict=True))
        for role in (Role.MEAN, Role.VARIANCE)
    )
    return replace(wired(batch_norm("bn")), sites=sites, updates=updates)
