"""Rules that find nothing whatever the values: checkpoints of one graph need not be judged by them again."""

from __future__ import annotations

from typing import ClassVar

from bncheck.facts.layers import Facts, Layer, Linear, RunFacts, Vector
from bncheck.facts.record import AnyRecord, Record, replace
from bncheck.judge.judge import at_hand
from bncheck.rules import RULES
from bncheck.rules.registry import Registry
from bncheck.rules.rule import Check


class _AValueAskedFor(Exception):
    pass


class _Blind(Record):
    """A record of which only those fields can be read that all checkpoints of one graph and layout share."""

    shared: ClassVar[frozenset[str]]

    def __getattribute__(self, name: str) -> object:
        if name in type(self).__dataclass_fields__ and name not in type(self).shared:
            raise _AValueAskedFor
        if name == "bounds":  # cached where it was asked for before
            raise _AValueAskedFor
        return object.__getattribute__(self, name)


class _BlindVector(_Blind, Vector, eq=False):
    shared: ClassVar = frozenset({"role", "presence", "name", "key", "shape", "dtype", "reason"})


class _BlindLinear(_Blind, Linear, eq=False):
    shared: ClassVar = frozenset({"name", "op", "kernel", "reason"})


class _BlindLayer(_Blind, Layer, eq=False):
    shared: ClassVar = frozenset(Layer.__dataclass_fields__) - {"predicted"}


class _BlindFacts(_Blind, Facts, eq=False):
    shared: ClassVar = frozenset(Facts.__dataclass_fields__) - {"gaps", "notes"}


class _BlindRun(_Blind, RunFacts, eq=False):
    shared: ClassVar = frozenset({"keys", "values", "index_only"})


def silent_rules(facts: Facts, rules: Registry = RULES) -> frozenset[str]:
    """Codes of rules that find nothing in these facts, nor in any that differ from them in values alone.

    Each is run on facts without values: one that asks for none, and finds nothing, never will.
    """
    layers = tuple(map(_blind_layer, facts.layers))
    blind = _blinded(replace(facts, layers=layers, run=_blinded(facts.run, _BlindRun)), _BlindFacts)
    known = at_hand(facts)
    asked = (rules.rule(code) for code in rules.codes if not rules.lacking(code, known))
    return frozenset(rule.code for rule in asked if _finds_nothing(rule.check, blind))


def _finds_nothing(check: Check, blind: Facts) -> bool:
    try:
        return next(check(blind), None) is None
    except _AValueAskedFor:
        return False


def _blind_layer(layer: Layer) -> Layer:
    mean, variance, gamma, beta = (
        _blinded(vector, _BlindVector) for vector in (layer.mean, layer.variance, layer.gamma, layer.beta)
    )
    shadows = {role: _blinded(vector, _BlindVector) for role, vector in layer.shadow_statistics.items()}
    hidden = replace(
        layer,
        mean=mean,
        variance=variance,
        gamma=gamma,
        beta=beta,
        linear=_blind_linear(layer.linear),
        sites=tuple(replace(site, linear=_blind_linear(site.linear)) for site in layer.sites),
        shadow_statistics=shadows,
    )
    return _blinded(hidden, _BlindLayer)


def _blind_linear(linear: Linear | None) -> Linear | None:
    return None if linear is None else _blinded(linear, _BlindLinear)


def _blinded(record: AnyRecord, kind: type[AnyRecord]) -> AnyRecord:
    made = object.__new__(kind)
    object.__getattribute__(made, "__dict__").update(record.__dict__)
    return made
