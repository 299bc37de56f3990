"""Averages that trail weights which still move fast: what is left where decay, length and wiring explain nothing."""

from __future__ import annotations

from bncheck.facts.layers import Facts, Layer
from bncheck.facts.training import has_statistics
from bncheck.numerics.channels import keras_made
from bncheck.numerics.divergence import diverging, each_layer
from bncheck.numerics.init_share import init_share
from bncheck.rules.shared.data_mismatch import known_cause, unlike_training
from bncheck.rules.shared.init_share_measured import share_in_data
from bncheck.rules.shared.modes import judged_output, labels_tell

SETTLE = """\
# or any other schedule that ends near 0
learning_rate = tf.train.cosine_decay(start, global_step, steps)
# or continue for a few hundred steps at a hundredth of the learning rate"""
"""Weights that hardly move any more let their averages catch up."""

FORGOTTEN = 0.01
"""Init share up to which the initial value explains nothing: what 5 % does to a deep net is fatal, 1 % is not; a
guess."""
ALL_OVER = 0.5
"""Share of the layers that drift where it is the weights that move, and no layer's own fault; a guess."""


def lag(model: Facts) -> str:
    """The cause as sentences, with a space before; empty where labels do not tell, or anything else may explain it."""
    comparison = model.comparison
    if comparison is None or not labels_tell(comparison):
        return ""
    output = judged_output(comparison)
    if output is None or not output.junk or not _in_order(model):
        return ""
    drifting, layers = diverging(comparison), each_layer(comparison)
    if len(drifting) < 2 or len(drifting) < ALL_OVER * len(layers):
        return ""
    if known_cause(model) or unlike_training(model) is not None:
        return ""
    # the first layer sees the data as they are: where it drifts too, they may be at fault
    other = ", unless these data are from another domain than the training data" if drifting[0] is layers[0] else ""
    decay = max(layer.decay or 0.0 for layer in model.layers)
    return (
        f" Wiring and decay ({decay:g}) are in order, the statistics moved, and no initial value is left: the averages "
        f"cover about the last {round(1 / (1 - decay)):,} updates and lag behind weights that were still changing fast "
        f"when training ended{other}."
    )


def _in_order(model: Facts) -> bool:
    """Whether statistics of every layer moved, nothing of the initial value is left, and training updates them."""
    layers = [layer for layer in model.layers if has_statistics(layer)]
    return bool(layers) and all(_settled(layer, model) and _updated(layer, model) for layer in layers)


def _settled(layer: Layer, model: Facts) -> bool:
    """Its statistics moved, and nothing of the initial value is left: by the counters, or else by the data."""
    share = init_share(layer, model.run.updates)
    left = share > FORGOTTEN if share is not None else share_in_data(model) is not None
    return layer.moved is True and 0 < (layer.decay or 0.0) < 1 and not left


def _updated(layer: Layer, model: Facts) -> bool:
    """By the train op, where there is a graph that has one; Keras's `fit` sees to it by itself."""
    if model.graph is not None and model.graph.train_ops:
        return bool(layer.updates) and all(update.train_ops for update in layer.updates)
    return keras_made(model)
