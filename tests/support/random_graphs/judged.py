"""What bncheck says of a trained graph against what is true of it: layers, modes, wiring, cause."""

from __future__ import annotations

from dataclasses import dataclass

import bncheck
from bncheck.facts.findings import Report
from bncheck.facts.layers import Layer, Mode

from .averages import DECAY
from .build import Trained
from .recipe import Recipe, wired_by_construction

UNWIRED = frozenset({"BN101", "BN201"})
PARTLY = frozenset({"BN102", "BN202"})


@dataclass(frozen=True)
class Answers:
    """Sentences on what differs, by question; none where all agree."""

    differing: dict[str, str]
    report: Report

    def __bool__(self) -> bool:
        return bool(self.differing)


def ask(recipe: Recipe, trained: Trained) -> Answers:
    """Inspects the checkpoint with its MetaGraph."""
    report = bncheck.inspect_checkpoint(trained.prefix)
    found = {(layer.mean.name, layer.variance.name): layer for layer in report.layers}
    differing = {}
    true = {names: scope for scope, names in trained.layers.items()}
    if recipe.average == "never" and recipe.mode == "train":
        # stored statistics that nothing reads or writes are none: each site is a layer of its own
        if len(report.layers) != recipe.layers:
            differing["layers"] = f"{len(report.layers)} of {recipe.layers}"
    elif set(found) != set(true):
        differing["layers"] = f"{sorted(found)} for {sorted(true)}"
    else:
        modes = {scope: _modes(found[names]) for names, scope in true.items()}
        wrong = {scope: said for scope, said in modes.items() if said not in expected_modes(recipe)}
        if wrong:
            differing["modes"] = str(wrong)
        decays = {scope: _decays(found[names]) for names, scope in true.items()}
        if any(said != expected_decays(recipe) for said in decays.values()):
            differing["decay"] = f"{decays} for {expected_decays(recipe)}"
        wired = {scope: _wired(found[names]) for names, scope in true.items()}
        if wired != trained.moved and recipe.mode != "eval":
            differing["wiring"] = f"{wired} for {trained.moved}"
    told = {(finding.code, finding.severity.value) for finding in report.findings}
    errors = {code for code, severity in told if severity == "error"}
    warnings = {code for code, severity in told if severity == "warning"}
    if not any(errors <= allowed and needed <= errors for needed, allowed in expected_errors(recipe)):
        differing["cause"] = f"errors {sorted(errors)}, warnings {sorted(warnings)}"
    elif warnings - expected_warnings(recipe) or (recipe.wiring == "separate_call" and "BN201" not in warnings):
        differing["cause"] = f"warnings {sorted(warnings)}, errors {sorted(errors)}"
    return Answers(differing, report)


def _modes(layer: Layer) -> frozenset[Mode]:
    return frozenset(site.mode for site in layer.sites)


def _wired(layer: Layer) -> bool:
    """Whether a train op runs updates of both statistics."""
    return len({update.role for update in layer.updates if update.train_ops}) == 2


def _decays(layer: Layer) -> set[float | None]:
    return {update.decay for update in layer.updates}


def expected_decays(recipe: Recipe) -> set[float | None]:
    """Decays of a layer's updates."""
    if recipe.average == "never" or recipe.mode == "eval":
        return set()
    return {None} if recipe.average == "cumulative" else {DECAY}


def expected_modes(recipe: Recipe) -> tuple[frozenset[Mode], ...]:
    """Sets of modes of a layer's sites, any of which is right."""
    train, evaluated, switched = (frozenset({m}) for m in (Mode.TRAIN, Mode.EVAL, Mode.SWITCHED))
    if recipe.mode == "constant":
        return (train, switched)
    return ({"train": train, "eval": evaluated, "towers": train | evaluated}.get(recipe.mode, switched),)


def expected_errors(recipe: Recipe) -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
    """(what must be there, what may be there), any of which is right."""
    if recipe.average == "never":
        if recipe.mode == "train":
            return ((frozenset(), frozenset()),)
        return ((frozenset({"BN203"}), frozenset({"BN203", "BN101"})),)
    if recipe.mode == "eval":
        return ((frozenset({"BN204"}), frozenset({"BN204", "BN101"})),)
    if recipe.partly:
        return ((PARTLY - {"BN102"}, PARTLY),)
    if recipe.wiring == "separate_call":
        return ((frozenset(), frozenset()),)
    if not wired_by_construction(recipe):
        return ((frozenset({"BN201"}), UNWIRED),)
    if recipe.saver != "all":
        return ((frozenset({"BN209"}), frozenset({"BN209", "BN108"})),)
    return ((frozenset(), frozenset()),)


def expected_warnings(recipe: Recipe) -> frozenset[str]:
    """What is said besides, rightly."""
    allowed = {"BN403"}  # of weights and statistics as they came out, whatever wrote them
    if recipe.wiring == "separate_call":
        allowed.add("BN201")
    if recipe.decoy in ("instance", "layer") or recipe.formula == "plain":
        # the values alone: there is no gamma, or one whose scale is normalised away right behind it, which never moves
        allowed.add("BN101")
    return frozenset(allowed)
