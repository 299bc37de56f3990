"""The code that applies layers in the mode that was meant, in their framework and with the names of their graph."""

from __future__ import annotations

from collections.abc import Sequence

from bncheck.facts import remedies
from bncheck.facts.layers import Facts, Layer, Switch
from bncheck.rules.shared import own_code
from bncheck.rules.shared.frameworks import Framework, in_framework, made_with


def eval_copy(model: Facts, layers: Sequence[Layer]) -> str:
    """A second application of the first of these layers, for validation."""
    framework = made_with(model, layers)
    if framework is Framework.OWN:
        return own_code.with_stored(layers[0])
    return in_framework(remedies.EVAL_MODE_COPY, framework).replace('"bn"', f'"{layers[0].name}"')


def with_switch(model: Facts, layers: Sequence[Layer], switch: Switch | None) -> str:
    """A layer whose mode a switch of the graph decides, which the code gets by its name."""
    code = in_framework(remedies.CHOSEN_MODE, made_with(model, layers))
    if switch is None or switch.train_when is None:
        return code
    name = f'tf.get_default_graph().get_tensor_by_name("{switch.predicate}:0")'
    word = "training" if "training=training" in code else "is_training"
    return f"{word} = {name if switch.train_when else f'tf.logical_not({name})'}\n{code}"
