"""The backbones that can be named (`--model mobilenet_v2:depth_multiplier=0.35`) and the builders that users bring.

What they are is told here without TensorFlow; `build.py` loads it and builds them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bncheck.facts.errors import UsageError

_ANY = {"image_size": int, "num_classes": int, "scope": str, "partial": bool}
"""Options of every backbone.

`image_size`: height and width of the input. `num_classes`: 0 for the features alone; told by the checkpoint where not
given. `scope`: under which the checkpoint has the network's variables. `partial`: what the checkpoint has under that
scope besides, such as the layers of a detection head, is left out.
"""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network that is built by its name."""

    name: str
    module: str
    """Module of `tf_slim.nets`; "" for our own."""
    scope: str
    """Variable scope of the public checkpoints."""
    image_size: int
    batch_norms: int
    """Layers up to the logits; 0: TF-slim ships this one without batch norm."""
    stem: str = ""
    """Name, relative to the scope, of the first kernel, whose third axis is the number of channels of the images."""
    landmark: str = ""
    """Name, relative to the scope, of a variable that tells this network from others."""
    logits: str = ""
    """Name, relative to the scope, of the kernel whose last axis is the number of classes."""
    options: Mapping[str, type] = field(default_factory=dict)
    """Keyword -> type of its value; besides `_ANY`."""


_RESNET_OPTIONS = {"epsilon": float, "output_stride": int}
_INCEPTION_OPTIONS = {"depth_multiplier": float, "min_depth": int}


def _resnet(version: int, depth: int) -> Backbone:
    name, units = f"resnet_v{version}_{depth}", {50: 16, 101: 33, 152: 50, 200: 66}[depth]
    # v1: the root, three in each unit, one in each of the four shortcuts; v2: three in each unit, and the last one
    norms = 1 + 3 * units + 4 if version == 1 else 3 * units + 1
    return Backbone(
        name=name,
        module=f"resnet_v{version}",
        scope=name,
        image_size=224,
        batch_norms=norms,
        stem="conv1/weights",
        landmark=f"block1/unit_1/bottleneck_v{version}/conv1/weights",
        logits="logits/weights",
        options=_RESNET_OPTIONS,
    )


BACKBONES: Mapping[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            name="mobilenet_v2",
            module="",
            scope="MobilenetV2",
            image_size=224,
            batch_norms=52,
            stem="Conv/weights",
            landmark="expanded_conv/depthwise/depthwise_weights",
            logits="Logits/Conv2d_1c_1x1/weights",
            options={
                "depth_multiplier": float,
                "min_depth": int,
                "divisible_by": int,
                "finegrain_classification_mode": bool,
                "final_endpoint": str,
                "output_stride": int,
                "use_explicit_padding": bool,
                "epsilon": float,
            },
        ),
        *(_resnet(version, depth) for version in (1, 2) for depth in (50, 101, 152, 200)),
        Backbone(
            name="inception_v1",
            module="inception_v1",
            scope="InceptionV1",
            image_size=224,
            batch_norms=57,
            stem="Conv2d_1a_7x7/weights",
            landmark="Conv2d_1a_7x7/weights",
            logits="Logits/Conv2d_0c_1x1/weights",
        ),
        Backbone(
            name="inception_v2",
            module="inception_v2",
            scope="InceptionV2",
            image_size=224,
            batch_norms=68,
            stem="Conv2d_1a_7x7/depthwise_weights",
            landmark="Conv2d_1a_7x7/depthwise_weights",
            logits="Logits/Conv2d_1c_1x1/weights",
            options=_INCEPTION_OPTIONS,
        ),
        Backbone(
            name="inception_v3",
            module="inception_v3",
            scope="InceptionV3",
            image_size=299,
            batch_norms=94,
            stem="Conv2d_1a_3x3/weights",
            landmark="Conv2d_1a_3x3/weights",
            logits="Logits/Conv2d_1c_1x1/weights",
            options={**_INCEPTION_OPTIONS, "create_aux_logits": bool},
        ),
        *(
            Backbone(name=name, module=name.partition("_")[0], scope=name, image_size=size, batch_norms=0)
            for name, size in (("alexnet_v2", 224), ("overfeat", 231), ("vgg_a", 224), ("vgg_16", 224), ("vgg_19", 224))
        ),
    )
}
"""Ours, and all that TF-slim 1.1.0 ships."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A backbone and what was said of it."""

    backbone: Backbone
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        said = ",".join(f"{key}={_shown(value)}" for key, value in self.options.items())
        return self.backbone.name + (f":{said}" if said else "")

    @property
    def scope(self) -> str:
        """Under which the checkpoint has the network's variables."""
        return str(self.options.get("scope", self.backbone.scope)).strip("/")


def names() -> tuple[str, ...]:
    """All that `parse` takes, those without batch norm left out."""
    return tuple(name for name, backbone in BACKBONES.items() if backbone.batch_norms)


def parse(text: str) -> Spec:
    """`NAME[:key=value,...]` with typed values.

    Raises UsageError for an unknown name or key (with the nearest), a value of another type, a key given twice, and a
    backbone without batch norm.
    """
    name, _, rest = text.strip().partition(":")
    backbone = BACKBONES.get(name)
    if backbone is None:
        raise UsageError(f"there is no backbone {name!r}{_near(name, names())}; available: {', '.join(names())}")
    if not backbone.batch_norms:
        raise UsageError(
            f"{name} has no batch norm as TF-slim builds it, so there is nothing to compare; build a variant that has "
            "some with --builder"
        )
    types = {**backbone.options, **_ANY}
    options: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if key not in types:
            raise UsageError(f"{name} has no option {key!r}{_near(key, types)}; it has {', '.join(types)}")
        if not equals or not value:
            raise UsageError(f"{name}: {key} needs a value, as in {key}={_EXAMPLES[types[key]]}")
        if key in options:
            raise UsageError(f"{name}: {key} is given twice")
        options[key] = _value(name, key, value, types[key])
    return Spec(backbone=backbone, options=options)


_EXAMPLES = {int: "224", float: "0.35", bool: "true", str: "layer_19"}
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _value(name: str, key: str, text: str, kind: type) -> Any:
    try:
        value = _TRUTHS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        what = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
        raise UsageError(f"{name}: {key} must be {what}, not {text!r}") from None
    if kind in (int, float) and not (value >= 0 and value < float("inf")):
        raise UsageError(f"{name}: {key} cannot be {text}")
    return value


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _near(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=2, cutoff=0.45)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
