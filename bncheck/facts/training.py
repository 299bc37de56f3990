"""Who trains a layer, which updates its train ops run, and did its statistics move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bncheck.facts.layers import Facts, Layer, Mode, Presence, Purpose, Role, Site, Update

UNCHANGED = 1 - 1e-6
"""A decay of 1, but for the rounding of 1 - decay in float32: the update writes what was there."""


def is_conditional(update: Update) -> bool:
    """Whether an update does nothing while training is switched off: inside a branch, or with a decay of 1 then."""
    return update.branch is not None or (update.decay_when_off is not None and update.decay_when_off >= UNCHANGED)


def has_statistics(layer: Layer) -> bool:
    """Whether the layer has moving statistics at all, at hand or not."""
    return any(vector.presence is not Presence.ABSENT for vector in layer.statistics)


def trainers(layer: Layer) -> tuple[str, ...]:
    """Train ops that ought to run the layer's updates: those that train its gamma or beta.

    Without either, those that depend on one of its sites. Empty: frozen on purpose, or in no training graph.
    """
    if layer.trained_by:
        return layer.trained_by
    if all(vector.presence is Presence.ABSENT for vector in (layer.gamma, layer.beta)):
        return tuple(dict.fromkeys(op for site in layer.sites for op in site.train_ops))
    return ()


def training_sites(layer: Layer) -> tuple[Site, ...]:
    """Sites that the layer is trained through: its train ops depend on them, and gradients flow from them."""
    ops = set(trainers(layer))
    return tuple(site for site in layer.sites if ops & set(site.train_ops) and site.backpropagated is not False)


def trained_on_batches(layer: Layer) -> bool:
    """Whether training can normalise with batch statistics; where no site tells, the updates themselves do."""
    sites = training_sites(layer) or layer.sites
    return any(site.mode is not Mode.EVAL for site in sites) if sites else bool(layer.updates)


def to_be_wired(model: Facts) -> tuple[Layer, ...]:
    """Layers whose updates the train op ought to run: trained, on batch statistics, and with updates that it could run.

    Updates collected in a loop cannot be waited for from outside: another fault (BN215).
    """
    return tuple(
        layer
        for layer in model.layers
        if any(not (update.in_loop and update.collected_in_branch) for update in layer.updates)
        and has_statistics(layer)
        and trainers(layer)
        and trained_on_batches(layer)
    )


def roles(updates: Iterable[Update]) -> tuple[Role, ...]:
    """Which of the two statistics these updates write, the mean first."""
    found = {update.role for update in updates}
    return tuple(role for role in (Role.MEAN, Role.VARIANCE) if role in found)


def run_by_training(layer: Layer) -> tuple[Update, ...]:
    """Updates of the layer that some train op runs."""
    return tuple(update for update in layer.updates if update.train_ops)


def moved(layers: Sequence[Layer]) -> bool | None:
    """Whether the statistics left their initial values: False if some layer's did not, None if that is unknown."""
    return together([layer.moved for layer in layers])


def together(known: Sequence[bool | None]) -> bool | None:
    """False if one is False, else None if one is None (or there is none), else True."""
    if False in known:
        return False
    return None if None in known or not known else True


def still(layers: Iterable[Layer]) -> int:
    """How many layers' statistics are known never to have moved."""
    return sum(layer.moved is False for layer in layers)


def served_outputs(outputs: Iterable[str]) -> tuple[str, ...]:
    """Outputs without those of training signatures (`train/loss`), which on-device training exports on purpose."""
    return tuple(output for output in outputs if not output.partition("/")[0].lower().startswith("train"))


def is_training_graph(model: Facts) -> bool:
    """Whether the graph at hand holds an optimizer."""
    return model.graph is not None and model.graph.purpose is Purpose.TRAINING
