"""BN222 mixed-modes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts.findings import Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Site
from bncheck.facts.training import has_statistics
from bncheck.facts.wording import listing, many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.layer_calls import with_switch
from bncheck.testing import batch_norm, site, wired, with_graph


@rule(
    "BN222",
    "mixed-modes",
    severity=Severity.ERROR,
    needs=Needs.GRAPH,
    explains=("BN205", "BN301", "BN306"),
    meaning=Meaning.WIRING_FAULT,
    sees="B08",
)
def check(model: Facts) -> Iterator[Evidence]:
    """In one forward pass some layers are always in train mode, while others are switched or in eval mode.

    What it detects
    ---------------
    `training=True` written into the calls of some layers of a network whose other layers follow a switch, or are in
    eval mode.

    Why it matters
    --------------
    With the switch off, the network mixes modes: some layers normalise with moving statistics, others with those of the
    batch, so a prediction depends on the other samples, and one sample alone gives another result. There is no error,
    and training looks healthy.

    How it decides
    --------------
    By the activations: one site lies before the other in the same pass. Train and switched: an error. Train and eval:
    an error where nothing trains that pass; in training it is how a frozen backbone gets a new head. A layer without
    moving statistics (BN220) has no other mode. A network that is trained in a pass of its own, all in train mode, and
    behind a switched one as well is a discriminator: no fault.

    Not detected
    ------------
    Two switches that are fed different values.

    Fix
    ---
    Give every layer the same switch:

        {CHOSEN_MODE}

    References
    ----------
    qianguih/voxelnet#84, keras-team/keras#9214. Failure mode B08.
    """
    if model.graph is None:
        return
    layers = [layer for layer in model.layers if has_statistics(layer)]
    by_name = {site.name: site for layer in layers for site in layer.sites}
    behind: dict[str, list[str]] = {}
    for after in by_name.values():
        for before in after.before:
            behind.setdefault(before, []).append(after.name)
    found: dict[Layer, Site] = {}
    others: dict[str, Site] = {}
    for layer in layers:
        fixed = [site for site in layer.sites if site.mode is Mode.TRAIN]
        mixed = {s.name: _others(s, [*s.before, *behind.get(s.name, ())], by_name) for s in fixed}
        accused = [site for site in fixed if mixed[site.name] and not _own_pass(site, fixed, mixed)]
        if accused:
            found[layer] = accused[0]
            others |= {site.name: site for one in accused for site in mixed[one.name]}
    if not found:
        return
    rest = [layer for layer in layers if any(site.name in others for site in layer.sites)]
    switch = next((site.switch for site in others.values() if site.mode is Mode.SWITCHED), None)
    yield Evidence(
        layers=tuple(layer.name for layer in found),
        message=f"{many(len(found), 'layer')} {'is' if len(found) == 1 else 'are'} always in train mode "
        f"({listing([layer.name for layer in found])}), while {many(len(rest), 'layer')} of the same forward pass "
        f"{_follow(list(others.values()), len(rest))} ({listing([layer.name for layer in rest])}): "
        "a prediction depends on the other samples of its batch.",
        location=next(iter(found.values())).name,
        fix=fixes.training_code(with_switch(model, list(found), switch), note="the same switch for all layers"),
        measurements=(
            Measurement(name="layers fixed in train mode", value=len(found), limit=0, unit="layers"),
            Measurement(name="layers switched or in eval mode", value=len(rest), unit="layers"),
        ),
    )


def _others(site: Site, connected: Sequence[str], by_name: dict[str, Site]) -> list[Site]:
    """Sites of the same pass that can be in eval mode while this one is not."""
    near = [by_name[name] for name in connected if name in by_name]
    trained = bool(site.train_ops)
    return [other for other in near if other.mode is Mode.SWITCHED or (other.mode is Mode.EVAL and not trained)]


def _own_pass(site: Site, fixed: Sequence[Site], mixed: dict[str, list[Site]]) -> bool:
    """Whether the layer is trained in a pass all in train mode too, and this is training's other pass."""
    return bool(site.train_ops) and any(not mixed[other.name] and other.train_ops for other in fixed)


def _follow(others: Sequence[Site], layers: int) -> str:
    verb = "follows" if layers == 1 else "follow"
    switches = [site.switch.predicate for site in others if site.switch is not None]
    if switches:
        return f"{verb} {quoted(switches)}"
    return "is in eval mode" if layers == 1 else "are in eval mode"


def _pass(first: Mode, second: Mode, *, trained: bool = True) -> Facts:
    """Two layers in a row."""
    a, b = wired(batch_norm("a"), mode=first), wired(batch_norm("b"), mode=second)
    if not trained:
        a, b = (replace(one, trained_by=(), updates=(), sites=(replace(one.sites[0], train_ops=()),)) for one in (a, b))
    after = replace(b.sites[0], before=(a.sites[0].name,))
    return with_graph(a, replace(b, sites=(after,)))


def clean() -> tuple[Facts, ...]:
    """One mode; one switch; a new head on a frozen backbone; a discriminator behind a switched generator."""
    g, d = wired(batch_norm("g"), "g_adam", Mode.SWITCHED), wired(batch_norm("d"), "d_adam")
    behind = site("d_1/bn", train_ops=("g_adam",), before=(g.sites[0].name,))
    return (
        _pass(Mode.TRAIN, Mode.TRAIN),
        _pass(Mode.SWITCHED, Mode.SWITCHED),
        _pass(Mode.EVAL, Mode.TRAIN),
        with_graph(g, replace(d, sites=(*d.sites, behind))),
    )


def broken() -> tuple[Facts, ...]:
    """The first layer hard-coded, the second switched; the other way round; a graph for prediction."""
    return (
        _pass(Mode.TRAIN, Mode.SWITCHED),
        _pass(Mode.SWITCHED, Mode.TRAIN),
        _pass(Mode.TRAIN, Mode.EVAL, trained=False),
    )
