"""Whether a checkpoint and a network fit each other, and what the one tells of the other. No TensorFlow here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from bncheck.backbones.registry import BACKBONES, Backbone, Spec
from bncheck.facts.errors import BncheckError
from bncheck.facts.wording import many
from bncheck.recognise.named.slots import is_slot

Shapes: TypeAlias = Mapping[str, "tuple[int | None, ...]"]
"""Variable -> shape; None for a dimension that is not known."""

MULTIPLIERS = (1.0, 0.35, 0.5, 0.75, 1.3, 1.4, *(number / 20 for number in range(1, 41)))
"""Depth multipliers that are tried: those published first."""
_SHOWN = 3
_OF_TRAINING = re.compile(r"(global_step|beta[12]_power)(_[0-9]+)?")


def under(scope: str, name: str) -> str:
    """The name of a variable in a scope; "" is the root."""
    return f"{scope}/{name}" if scope else name


def check_scope(spec: Spec, shapes: Shapes) -> None:
    """Raises BncheckError where the scope holds nothing of the network: with the scope or the backbone to name."""
    backbone = spec.backbone
    if _has(shapes, under(spec.scope, "")) and (spec.scope or backbone.landmark in shapes):
        return
    here = scopes_of(backbone, shapes)
    if here:
        shown = " or ".join(f"scope={scope or '/'}" for scope in here)
        hint = f"they are under another scope: add {shown}"
    else:
        others = [name for name, other in BACKBONES.items() if other.landmark and scopes_of(other, shapes)]
        tops = sorted({name.split("/")[0] for name in shapes})
        hint = f"this looks like {' or '.join(others)}" if others else f"it has {_listed(tops)}"
    raise BncheckError(f"the checkpoint has no variables of {spec} under {spec.scope or '/'!r}; {hint}")


def scopes_of(backbone: Backbone, shapes: Iterable[str]) -> tuple[str, ...]:
    """Scopes under which a checkpoint has this backbone."""
    ends = f"/{backbone.landmark}"
    found = {name.removesuffix(ends) for name in shapes if name.endswith(ends)}
    return tuple(sorted(found | ({""} if backbone.landmark in shapes else set())))


def told(spec: Spec, shapes: Shapes) -> Spec:
    """The spec with what was not said and the shapes tell: number of classes, depths, auxiliary logits."""
    options: dict[str, Any] = dict(spec.options)
    logits = shapes.get(under(spec.scope, spec.backbone.logits))
    if "num_classes" not in options and "final_endpoint" not in options and logits:
        options["num_classes"] = logits[-1]
    if spec.backbone.name == "mobilenet_v2":
        options = _told_of_mobilenet(options, spec.scope, shapes)
    if spec.backbone.name == "inception_v3":
        options.setdefault("create_aux_logits", _has(shapes, under(spec.scope, "AuxLogits/")))
    return replace(spec, options=options)


def check_network(spec: Spec, wanted: Shapes, every: Shapes, shapes: Shapes) -> list[str]:
    """Notes on what was left out; raises BncheckError that names what does not fit.

    `wanted` are the variables that the outputs need, `every` all of the graph, `shapes` those of the checkpoint.
    """
    scope = under(spec.scope, "")
    left = [name for name in shapes if not _belongs(name, every, shapes)]
    inside = [name for name in left if name.startswith(scope)]
    if "final_endpoint" in spec.options:
        inside = []  # whoever ends the network there wants what lies behind left out
    elif not spec.options.get("num_classes"):
        classifier = under(spec.scope, spec.backbone.logits.split("/")[0] + "/")
        inside = [name for name in inside if not name.startswith(classifier)]
    troubles = _troubles(wanted, shapes)
    if inside and not spec.options.get("partial"):
        troubles.append(f"{many(len(inside), 'variable')} of the checkpoint that the network lacks ({_listed(inside)})")
    if troubles:
        raise BncheckError(
            f"{spec} does not fit the checkpoint: {'; '.join(troubles)}{_advice(spec, wanted, shapes, inside)}"
        )
    notes = [f"ignored, as they are not part of {spec.backbone.name}: {_listed(left)}"] if left else []
    return notes + _without_statistics(wanted, shapes)


def check_builder(name: str, wanted: Shapes, every: Shapes, shapes: Shapes) -> list[str]:
    """As `check_network`; a checkpoint may have more than what a builder builds. Raises BncheckError."""
    troubles = _troubles(wanted, shapes)
    if troubles:
        nearest = ((v, _nearest(v, shapes)) for v in _lacking(wanted, shapes))
        hint = next((f"; nearest to {lacking} is {near}" for lacking, near in nearest if near), "")
        raise BncheckError(f"the graph of {name} does not fit the checkpoint: {'; '.join(troubles)}{hint}")
    left = [v for v in shapes if not _belongs(v, every, shapes)]
    notes = [f"ignored, as they are not in the graph of {name}: {_listed(left)}"] if left else []
    return notes + _without_statistics(wanted, shapes)


def _has(shapes: Shapes, start: str) -> bool:
    return any(name.startswith(start) for name in shapes)


def _told_of_mobilenet(options: dict[str, Any], scope: str, shapes: Shapes) -> dict[str, Any]:
    if "depth_multiplier" not in options:
        fitting = _fitting_multiplier(options, scope, shapes)
        options = options if fitting is None else {**options, "depth_multiplier": fitting}
    last = shapes.get(under(scope, "Conv_1/weights"))
    multiplier = options.get("depth_multiplier", 1.0)
    if last and multiplier < 1 and "finegrain_classification_mode" not in options:
        options = {**options, "finegrain_classification_mode": last[-1] == 1280}
    return options


def _fitting_multiplier(options: Mapping[str, Any], scope: str, shapes: Shapes) -> float | None:
    """The multiplier whose depths are those of the checkpoint; None where none has them all."""
    from bncheck.backbones.mobilenet_v2 import block_depths  # noqa: PLC0415 - loads TensorFlow

    blocks = ["expanded_conv", *(f"expanded_conv_{number}" for number in range(1, 17))]
    kernels = [under(scope, "Conv/weights"), *(under(scope, f"{block}/project/weights") for block in blocks)]
    found = [shapes[kernel][-1] if kernel in shapes else None for kernel in kernels]
    rounding = {"divisible_by": options.get("divisible_by", 8), "least": options.get("min_depth", 8)}
    for multiplier in MULTIPLIERS:
        depths = block_depths(multiplier, **rounding)
        if all(here is None or here == depth for here, depth in zip(found, depths, strict=True)):
            return multiplier
    return None


def _belongs(name: str, every: Shapes, shapes: Shapes) -> bool:
    """Whether the network has it, or it only accompanies training: a slot, an average, a step counter."""
    parts = name.split("/")
    accompanies = any("/".join(parts[:end]) in every for end in range(1, len(parts) + 1))
    return accompanies or _OF_TRAINING.fullmatch(parts[-1]) is not None or is_slot(name, shapes)


def _troubles(wanted: Shapes, shapes: Shapes) -> list[str]:
    lacking = _lacking(wanted, shapes)
    others = [
        f"{name} is {_size(shapes[name])} there and {_size(shape)} in the network"
        for name, shape in wanted.items()
        if name in shapes and not _same(shape, shapes[name])
    ]
    troubles = [f"{many(len(lacking), 'variable')} that it lacks ({_listed(lacking)})"] if lacking else []
    return troubles + ([f"{many(len(others), 'variable')} of another shape ({_listed(others)})"] if others else [])


def _lacking(wanted: Shapes, shapes: Shapes) -> list[str]:
    """What the checkpoint lacks, and a network cannot do without.

    Statistics alone are no misfit but a fault of the checkpoint, whose Saver left them out: rules tell of it, and a
    repair puts them in.
    """
    lacking = [name for name in wanted if name not in shapes]
    return [] if all(map(_is_statistic, lacking)) else lacking


def _without_statistics(wanted: Shapes, shapes: Shapes) -> list[str]:
    lacking = [name for name in wanted if name not in shapes and _is_statistic(name)]
    return [f"the checkpoint lacks {len(lacking)} statistics ({_listed(lacking)})"] if lacking else []


def _is_statistic(name: str) -> bool:
    return name.rpartition("/")[2] in ("moving_mean", "moving_variance")


def _same(shape: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    return len(shape) == len(other) and all(a is None or b is None or a == b for a, b in zip(shape, other, strict=True))


def _advice(spec: Spec, wanted: Shapes, shapes: Shapes, inside: list[str]) -> str:
    if spec.backbone.name == "mobilenet_v2" and "depth_multiplier" in spec.options:
        rest = {key: value for key, value in spec.options.items() if key != "depth_multiplier"}
        fitting = _fitting_multiplier(rest, spec.scope, shapes)
        if fitting is not None and fitting != spec.options["depth_multiplier"]:
            return f"; its depths are those of depth_multiplier={fitting:g}"
    if inside and not _troubles(wanted, shapes):
        return "; add partial=true to leave those out"
    elsewhere = [scope for scope in scopes_of(spec.backbone, shapes) if scope != spec.scope]
    return f"; there is one more under scope={elsewhere[0] or '/'}" if elsewhere else ""


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that ends most like it, else the most similar one."""
    parts = name.split("/")

    def shared(other: str) -> int:
        ends = zip(reversed(parts), reversed(other.split("/")), strict=False)
        return next((at for at, (a, b) in enumerate(ends) if a != b), min(len(parts), other.count("/") + 1))

    best = max(known, key=shared, default=None)
    if best is not None and shared(best) >= min(2, len(parts)):
        return best
    close = difflib.get_close_matches(name, list(known), n=1)
    return close[0] if close else None


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = len(every) - _SHOWN
    return ", ".join(every[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _size(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape) or "a scalar"
