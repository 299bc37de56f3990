"""In which framework a model was made, so that a remedy speaks of that one alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from bncheck.facts.formats import FileKind
from bncheck.facts.layers import Facts, Layer
from bncheck.numerics.channels import keras_made
from bncheck.rules.shared.fixes import of_pytorch

_NAME = r"(?:TF-slim|tf\.layers|Keras|PyTorch|Flax)"
_TAG = re.compile(rf"# {_NAME}(?:, {_NAME})*(?=[,:;]|$| in )")


_KERAS_MODEL = re.compile(r"(^|/)(sequential|functional|model_\d+)(_\d+)?/")
"""Names that Keras gives to models by itself; all that tells it from tf.layers where no update is made."""


class Framework(Enum):
    """Whose layers these are; the value is how remedies mark their lines."""

    SLIM = "TF-slim"
    LAYERS = "tf.layers"
    KERAS = "Keras"
    PYTORCH = "PyTorch"
    FLAX = "Flax"
    OWN = "own code"
    """Variables, moments and assignments by hand."""


_TAGS = {Framework.SLIM: "TF-slim", Framework.KERAS: "Keras", Framework.PYTORCH: "PyTorch", Framework.FLAX: "Flax"}


def made_with(model: Facts, layers: Sequence[Layer] = ()) -> Framework:
    """What the graph's collections and variables tell of these layers (default: all), else the names of a checkpoint.

    TF-slim and tf.contrib list their layers' variables in a collection, and with tf.layers their updates in another;
    Keras lists neither, and has resource variables. Who writes batch norm by hand does what he likes.
    """
    layers = list(layers) or list(model.layers)
    graph = model.graph
    names = [vector.name for layer in layers for vector in layer.statistics if vector.name]
    if of_pytorch(model):
        return Framework.PYTORCH
    if model.format.kind is FileKind.FLAX:
        return Framework.FLAX
    if graph is None:
        if model.format.kind is FileKind.KERAS or keras_made(model):
            return Framework.KERAS
        return Framework.SLIM if any("BatchNorm/" in name for name in names) else Framework.LAYERS
    if graph.model_variables.intersection(names):
        return Framework.SLIM
    updates = [update for layer in layers for update in layer.updates]
    if any(update.in_collection for update in updates):
        return Framework.LAYERS
    if keras_made(model):
        return Framework.KERAS
    if updates and all(update.resource and not update.collections for update in updates):
        within = all(f"{_own(layer)}/" in update.name for layer in layers for update in layer.updates)
        return Framework.KERAS if within and not graph.update_collection else Framework.OWN
    if updates or any(site.form == "decomposed" for layer in layers for site in layer.sites):
        return Framework.OWN
    return Framework.KERAS if names and all(map(_KERAS_MODEL.search, names)) else Framework.LAYERS


def _own(layer: Layer) -> str:
    """The layer's name without the scopes around it."""
    return layer.name.rpartition("/")[2]


def in_framework(code: str, framework: Framework) -> str:
    """The lines of a remedy that speak to this framework: a comment that begins with it, and those up to the next.

    A remedy without such comments suits all. By hand is best replaced by a layer of tf.layers, which needs nothing
    else. Where only one framework is left, its name goes without saying.
    """
    wanted = _TAGS.get(framework, "tf.layers")
    blocks: list[tuple[str, list[str]]] = []
    for line in code.splitlines():
        mark = _TAG.match(line)
        if mark or not blocks:
            blocks.append((mark[0] if mark else "", []))
        blocks[-1][1].append(line)
    fitting = [lines for mark, lines in blocks if wanted in mark]
    if not fitting:
        return code.rstrip("\n")
    return "\n".join(line for lines in fitting for line in map(_unmarked, lines) if line is not None)


def _unmarked(line: str) -> str | None:
    """A line without the names of frameworks that begin it; None where nothing else was said."""
    mark = _TAG.match(line)
    if mark is None:
        return line
    rest = line[mark.end() :].lstrip(",:; ")
    return f"# {rest}" if rest else None
