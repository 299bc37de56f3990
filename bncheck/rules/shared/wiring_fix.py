"""The code that makes a train op run the updates of a graph, with that graph's own names."""

from __future__ import annotations

from collections.abc import Sequence

from bncheck.facts import remedies
from bncheck.facts.layers import Facts, Layer, Update
from bncheck.rules.shared.frameworks import Framework, in_framework, made_with

_NAMED = 4
"""Updates that a remedy names one by one; more are told by how their names end."""


def collection_of(layers: Sequence[Layer]) -> str:
    """The collection, other than UPDATE_OPS, that lists every update of these layers; empty: there is none."""
    updates = [update for layer in layers for update in layer.updates]
    common = set(updates[0].collections).intersection(*(u.collections for u in updates)) if updates else set()
    return min(common, default="")


def waiting(layers: Sequence[Layer]) -> list[str]:
    """Ops outside the train op that wait for updates, without the layers' own reads of what was written."""
    return list(
        dict.fromkeys(
            waiter
            for layer in layers
            for update in layer.updates
            for waiter in update.waited_for_by
            if not waiter.startswith((f"{layer.name}/", f"{update.name}/", f"{update.name.rpartition('/')[0]}/"))
        )
    )


def wire(model: Facts, layers: Sequence[Layer]) -> str:
    """One block, for the framework the layers were made with."""
    updates = [update for layer in layers for update in layer.updates]
    framework = made_with(model, layers)
    if framework is Framework.KERAS:
        return remedies.WIRE_KERAS
    if not updates or all(update.in_collection for update in updates):
        return remedies.WIRE_UPDATES
    name = collection_of(layers)
    if name:
        return remedies.wire_collection(name)
    return f"{_gathered(layers, updates)}\n{remedies.UNDER_UPDATES}"


def train_mode(model: Facts, layers: Sequence[Layer] = ()) -> str:
    """Training with batch statistics, and the updates with it; a Keras model trained by itself runs them."""
    framework = made_with(model, layers)
    code = in_framework(remedies.TRAIN_MODE, framework)
    return code if framework is Framework.KERAS else f"{code}\n{remedies.WIRE_UPDATES}"


def _gathered(layers: Sequence[Layer], updates: Sequence[Update]) -> str:
    """The updates by name: a group that waits for them all, they themselves, or how their names end."""
    groups = waiting(layers)
    if groups and all(set(groups).intersection(update.waited_for_by) for update in updates) and len(groups) <= _NAMED:
        return _by_name(groups)
    if len(updates) <= _NAMED:
        return _by_name([update.name for update in updates])
    ends = sorted({update.name.rpartition("/")[2] for update in updates})[:_NAMED]
    listed = ", ".join(f'"{end}"' for end in ends)
    return (
        "operations = tf.get_default_graph().get_operations()\n"
        f'update_ops = [op for op in operations if op.name.rpartition("/")[2] in ({listed},)]'
    )


def _by_name(names: Sequence[str]) -> str:
    listed = "".join(f'    "{name}",\n' for name in names)
    return f"names = [\n{listed}]\nupdate_ops = [tf.get_default_graph().get_operation_by_name(name) for name in names]"
