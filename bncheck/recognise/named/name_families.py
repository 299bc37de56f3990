"""How variable names tell that vectors belong to one batch norm: one line a naming family, and the search for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field

from bncheck.facts.layers import Role
from bncheck.facts.record import Record
from bncheck.recognise.auxiliary import SHADOW


class Family(Record):
    """Names that belong together; those of a role are tried in order."""

    name: str
    mean: str
    variance: str
    gamma: tuple[str, ...] = ("gamma", "scale")
    beta: tuple[str, ...] = ("beta", "offset", "shift")
    distinct: bool = True
    """Whether the names alone mean batch norm; else gamma or beta of the same shape has to stand beside them."""
    separators: str = "/._"
    starts_at_zero: bool = False
    """Both statistics start at 0 (averages of tensors), not at 0 and 1."""
    counter: str = ""
    """What counts the layer's updates."""


FAMILIES = (
    Family(name="TF-slim, tf.layers, Keras", mean="moving_mean", variance="moving_variance"),
    Family(name="hand-rolled, moving", mean="moving_mean", variance="moving_var"),
    Family(name="hand-rolled, population", mean="pop_mean", variance="pop_var"),
    Family(name="hand-rolled, population", mean="pop_mean", variance="pop_variance"),
    Family(name="hand-rolled, population", mean="population_mean", variance="population_variance"),
    Family(
        name="after PyTorch",
        mean="running_mean",
        variance="running_var",
        gamma=("weight", "gamma", "scale"),
        beta=("bias", "beta", "offset"),
        counter="num_batches_tracked",
    ),
    Family(name="hand-rolled, running", mean="running_mean", variance="running_variance"),
    Family(name="Tensorpack", mean="mean/EMA", variance="variance/EMA", separators="/"),
    Family(
        name="Sonnet 2",
        mean="moving_mean/average",
        variance="moving_variance/average",
        gamma=("scale",),
        beta=("offset",),
        separators="/",
        starts_at_zero=True,
    ),
    Family(
        name="Flax",
        mean="batch_stats/mean",
        variance="batch_stats/var",
        gamma=("scale",),
        beta=("bias",),
        separators="/",
    ),
    Family(name="after Caffe", mean="mean", variance="variance", distinct=False, separators="/"),
    Family(name="after Caffe", mean="mean", variance="var", distinct=False, separators="/"),
)

_FLAX = next(family for family in FAMILIES if family.name == "Flax")

MOMENTS = Family(
    name="tf.train.ExponentialMovingAverage of the batch moments", mean="", variance="", starts_at_zero=True
)

_LEAVES = tuple(sorted({leaf for f in FAMILIES for leaf in (f.mean, f.variance)}, key=len, reverse=True))
_LEAF = re.compile(rf"(?:^|(?<=[/._]))({'|'.join(map(re.escape, _LEAVES))})(_\d+)?$")
_OF_MOMENTS = re.compile(
    r"^(?:(?P<scope>.*?)/)?(?P<moments>moments(?:_\d+)?)/(?:[^/]+/)*"
    rf"(?:(?P<mean>Squeeze|mean)|(?P<variance>Squeeze_1|variance)){SHADOW}$"
)
_NAMED_BATCH_NORM = re.compile(r"(?:^|.*/)(BatchNorm|batch_normalization|BatchNormalization)(_\d+)?$")
"""Scopes that only a framework's own batch norm gives."""
_NAMED_BY_FLAX = re.compile(r"(?:^|.*/)BatchNorm_\d+$")
"""The same where the module is not named by its author."""


class Group(Record):
    """The names of one layer's vectors."""

    scope: str
    """What the names share; "" where they share nothing."""
    label: str
    """Name for the layer: the scope, or, where several layers share it, with the name of its mean."""
    family: Family
    names: Mapping[Role, str]
    """Present ones."""
    expected: Mapping[Role, str] = field(default_factory=dict)
    """What a statistic that is not there would be called."""
    counter: str = ""
    """Name of what counts the layer's updates, where its family has one; "" where it is not there."""


def find_groups(paths: Mapping[str, object]) -> list[Group]:
    """The layers among these names, in the order of the first statistic of each; shapes are not looked at."""
    claimed: set[str] = set()
    groups: list[Group] = []
    for path in paths:
        if path in claimed:
            continue
        group = _of_leaf(path, paths) or _of_moments(path, paths)
        if group is not None:
            claimed.update(group.names.values())
            groups.append(group)
    return groups


def without_statistics(paths: Iterable[str]) -> list[Group]:
    """Scopes called as only a framework's own batch norm is, that hold gamma or beta and no statistics at all."""
    found: dict[tuple[str, Family], dict[Role, str]] = {}
    for path in paths:
        scope, _, leaf = path.rpartition("/")
        if leaf in ("gamma", "beta") and _NAMED_BATCH_NORM.match(scope):
            found.setdefault((scope, FAMILIES[0]), {})[Role(leaf)] = path
        elif leaf in ("scale", "bias") and _NAMED_BY_FLAX.match(scope):
            found.setdefault((scope, _FLAX), {})[Role.GAMMA if leaf == "scale" else Role.BETA] = path
    return [
        Group(
            scope=scope,
            label=scope,
            family=family,
            names=names,
            expected={Role.MEAN: f"{scope}/{family.mean}", Role.VARIANCE: f"{scope}/{family.variance}"},
        )
        for (scope, family), names in found.items()
    ]


def _of_leaf(path: str, paths: Mapping[str, object]) -> Group | None:
    stem = path.rstrip("0123456789").removesuffix("_") if path[-1:].isdecimal() else path
    if not (path.endswith(_LEAVES) or stem.endswith(_LEAVES)):
        return None
    match = _LEAF.search(path)
    if match is None:
        return None
    leaf, number = match[1], match[2] or ""
    before = path[: match.start()]
    scope, separator = before[:-1], before[-1:]
    lonely = None
    for family in FAMILIES:
        if leaf not in (family.mean, family.variance) or (separator and separator not in family.separators):
            continue
        statistics = {Role.MEAN: f"{before}{family.mean}{number}", Role.VARIANCE: f"{before}{family.variance}{number}"}
        present = {role: name for role, name in statistics.items() if name in paths}
        affine = _affine(family, before, number, paths)
        if not family.distinct and (len(present) < 2 or not affine):
            continue
        label = scope if scope and not number else f"{before}{family.mean}{number}"
        expected = {role: name for role, name in statistics.items() if name not in present.values()}
        counter = f"{before}{family.counter}" if f"{before}{family.counter}" in paths else ""
        group = Group(
            scope=scope, label=label, family=family, names=present | affine, expected=expected, counter=counter
        )
        if not expected:
            return group
        # one of the pair: the first family whose partner is there would have been taken
        lonely = lonely or (group if affine or family is FAMILIES[0] else None)
    return lonely


def _affine(family: Family, before: str, number: str, paths: Mapping[str, object]) -> dict[Role, str]:
    found = {}
    for role, leaves in ((Role.GAMMA, family.gamma), (Role.BETA, family.beta)):
        name = next((n for leaf in leaves if (n := f"{before}{leaf}{number}") in paths), None)
        if name is not None:
            found[role] = name
    return found


def _of_moments(path: str, paths: Mapping[str, object]) -> Group | None:
    if not path.endswith(SHADOW):
        return None
    match = _OF_MOMENTS.match(path)
    if match is None:
        return None
    role = Role.MEAN if match["mean"] else Role.VARIANCE
    leaf = match["mean"] or match["variance"]
    other = {"Squeeze": "Squeeze_1", "Squeeze_1": "Squeeze", "mean": "variance", "variance": "mean"}[leaf]
    partner = f"{path[: -len(leaf + SHADOW)]}{other}{SHADOW}"
    partner_role = Role.VARIANCE if role is Role.MEAN else Role.MEAN
    names, expected = {role: path}, {partner_role: partner}
    if partner in paths:
        names, expected = names | expected, {}
    scope = _undoubled(match["scope"] or "")
    before = f"{scope}/" if scope else ""
    label = scope if scope and match["moments"] == "moments" else f"{before}{match['moments']}"
    affine = _affine(MOMENTS, before, "", paths) if match["moments"] == "moments" else {}
    return Group(scope=scope, label=label, family=MOMENTS, names=names | affine, expected=expected)


def _undoubled(scope: str) -> str:
    """The scope "a/b" behind "a/b/a/b" or "a/b/a/b_1": a variable made in a scope from an op of that scope."""
    parts = scope.split("/")
    half = len(parts) // 2
    left, right = "/".join(parts[:half]), "/".join(parts[half:])
    return left if len(parts) % 2 == 0 and re.fullmatch(re.escape(left) + r"(_\d+)?", right) else scope
