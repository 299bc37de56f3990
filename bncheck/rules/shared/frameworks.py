"""In which framework a model was made, so that a remedy speaks of that one alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from bncheck.facts.formats import FileKind
from bncheck.facts.layers import Facts, Layer
from bncheck.numerics.channels import keras_made

_TAG = re.compile(r"#.*\b(TF-slim|tf\.layers|Keras)\b")


class Framework(Enum):
    """Whose layers these are; the value is how remedies mark their lines."""

    SLIM = "TF-slim"
    LAYERS = "tf.layers"
    KERAS = "Keras"
    OWN = "own code"
    """Variables, moments and assignments by hand."""


def made_with(model: Facts, layers: Sequence[Layer] = ()) -> Framework:
    """What the graph's collections and variables tell of these layers (default: all), else the names of a checkpoint.

    TF-slim and tf.contrib list their layers' variables in a collection, and with tf.layers their updates in another;
    Keras lists neither, and has resource variables. Who writes batch norm by hand does what he likes.
    """
    layers = list(layers) or list(model.layers)
    graph = model.graph
    names = [vector.name for layer in layers for vector in layer.statistics if vector.name]
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
        within = all(update.name.startswith(f"{layer.name}") for layer in layers for update in layer.updates)
        return Framework.KERAS if within and not graph.update_collection else Framework.OWN
    if updates or any(site.form == "decomposed" for layer in layers for site in layer.sites):
        return Framework.OWN
    return Framework.LAYERS


def in_framework(code: str, framework: Framework) -> str:
    """The lines of a remedy that speak to this framework: a line marked with its name, and those up to the next mark.

    A remedy without marks suits all. By hand is best replaced by a layer of tf.layers, which needs nothing else.
    """
    wanted = {Framework.SLIM: "TF-slim", Framework.KERAS: "Keras"}.get(framework, "tf.layers")
    blocks: list[tuple[str, list[str]]] = []
    for line in code.splitlines():
        mark = _TAG.search(line)
        if mark or not blocks:
            blocks.append((mark[0] if mark else "", []))
        blocks[-1][1].append(line)
    fitting = [lines for mark, lines in blocks if wanted in mark]
    chosen = fitting or [lines for _, lines in blocks]
    return "\n".join(line for lines in chosen for line in lines)
