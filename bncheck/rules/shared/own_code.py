"""Batch norm that was written by hand: the code that mends it, with the names of its graph."""

from __future__ import annotations

from bncheck.facts import remedies
from bncheck.facts.layers import Layer, Presence, Site, Switch

VARIABLES = "variables = {v.op.name: v for v in tf.global_variables()}"
_EPSILON = 1e-3
"""Where the graph tells none: the default of TF-slim, tf.layers and Keras."""


def with_stored(layer: Layer) -> str:
    """The formula with the stored statistics, by the names of the variables."""
    return (
        f'{VARIABLES}\nmean, variance = variables["{layer.mean.name}"], variables["{layer.variance.name}"]\n'
        f"net = {_formula(layer)}"
    )


def with_batch(layer: Layer, site: Site, decay: float) -> str:
    """The formula with batch moments, their averages, and the train op that runs these; empty unless channels last."""
    if site.rank is None or site.axis not in (-1, site.rank - 1):
        return ""
    updates = "".join(
        f'    tf.assign_sub(variables["{vector.name}"], {1 - decay:.6g} * (variables["{vector.name}"] - {batch})),\n'
        for vector, batch in zip(layer.statistics, ("mean", "variance"), strict=True)
    )
    return (
        f"{VARIABLES}\nmean, variance = tf.nn.moments(net, {list(range(site.rank - 1))})\nnet = {_formula(layer)}\n"
        f"# decay {decay:g}\nupdate_ops = [\n{updates}]\n{remedies.UNDER_UPDATES}"
    )


def inside_branch(layer: Layer, site: Site, switch: Switch, decay: float) -> str:
    """The condition that picks mean and variance, with the updates in its branch; empty where no tensors hold these."""
    if site.moments is None or switch.train_when is None:
        return ""
    moments = ", ".join(f'"{name}"' for name in site.moments)
    stored = ", ".join(f'variables["{vector.name}"]' for vector in layer.statistics)
    mode = f'graph.get_tensor_by_name("{switch.predicate}:0")'
    return (
        f"{VARIABLES}\ngraph = tf.get_default_graph()\n"
        f"batch = [graph.get_tensor_by_name(name) for name in ({moments})]\nstored = [{stored}]\n"
        "def train():    # the updates are made inside the branch\n"
        "    pairs = zip(stored, (tf.reshape(b, s.shape) for s, b in zip(stored, batch)))\n"
        f"    updates = [tf.assign_sub(s, {1 - decay:.6g} * (s - b)) for s, b in pairs]\n"
        "    with tf.control_dependencies(updates):\n"
        "        return tuple(map(tf.identity, batch))\n"
        f"mean, variance = tf.cond({mode if switch.train_when else f'tf.logical_not({mode})'}, train, "
        "lambda: tuple(map(tf.identity, stored)))"
    )


def _formula(layer: Layer) -> str:
    affine = [
        f'variables["{vector.name}"]' if vector.presence is not Presence.ABSENT else "None"
        for vector in (layer.beta, layer.gamma)
    ]
    return f"tf.nn.batch_normalization(net, mean, variance, {', '.join(affine)}, {layer.epsilon or _EPSILON:g})"
