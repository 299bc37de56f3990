"""The code that makes a train op run the updates of a graph, with that graph's own names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from bncheck.facts import remedies
from bncheck.facts.layers import Facts, Layer, Presence, Update
from bncheck.facts.training import is_training_graph, roles, trainers, training_sites
from bncheck.rules.shared import own_code
from bncheck.rules.shared.frameworks import Framework, in_framework, made_with
from bncheck.rules.shared.init_share_fix import shorter_decay

_NAMED = 4
"""Updates that a remedy names one by one; more are told by how their names end."""


def collection_of(layers: Sequence[Layer]) -> str:
    """The collection, other than UPDATE_OPS, that lists every update of these layers; empty: there is none."""
    updates = [update for layer in layers for update in layer.updates]
    common = set(updates[0].collections).intersection(*(u.collections for u in updates)) if updates else set()
    return min(common, default="")


def waiting(layers: Sequence[Layer]) -> list[str]:
    """Ops outside the train op that wait for updates: of several layers, those that wait for more than one."""
    waited = [{waiter for update in layer.updates for waiter in update.waited_for_by} for layer in layers]
    found = dict.fromkeys(waiter for layer in layers for update in layer.updates for waiter in update.waited_for_by)
    return [waiter for waiter in found if sum(waiter in own for own in waited) >= min(2, len(layers))]


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


def per_network(model: Facts, layers: Sequence[Layer]) -> str:
    """The step of one of several networks, with the updates and the variables of its own scope."""
    code = wire(model, layers)
    inside = _scope(trained_with(model, layers) or [f"{layer.name}/" for layer in layers])
    of_updates = _scope([update.name for layer in layers for update in layer.updates])
    if not inside or made_with(model, layers) is Framework.KERAS:
        return code
    if of_updates:
        code = code.replace(remedies.UPDATES, f'{remedies.UPDATES[:-1]}, scope="{of_updates}")')
    return code.replace("(loss, global_step)", f'(loss, global_step, var_list=tf.trainable_variables("{inside}"))')


def trained_with(model: Facts, layers: Sequence[Layer]) -> list[str]:
    """Variables of the train ops that train these layers, where other train ops train none of them: one network."""
    ops = model.graph.train_ops if model.graph is not None else ()
    training = {name for layer in layers for name in trainers(layer)}
    own = {name for op in ops if op.name in training for name in op.variables}
    others = {name for op in ops if op.name not in training for name in op.variables}
    return sorted(own) if others and not own & others else []


def one_application(model: Facts, layers: Sequence[Layer]) -> str:
    """Of several applications of each layer in a step, the updates of the first; Keras joins the batches instead."""
    framework = made_with(model, layers)
    if framework is Framework.KERAS:
        return in_framework(remedies.UPDATE_ONCE, framework)
    first = {(u.variable, u.role): u for layer in layers for u in reversed(layer.updates) if u.train_ops}
    kept = [u for layer in layers for u in layer.updates if first.get((u.variable, u.role)) is u]
    if len(kept) <= _NAMED:
        return f"{_by_name([u.name for u in kept])}\n{remedies.UNDER_UPDATES}"
    ends = [u.site.rpartition("/")[0] for u in kept if u.site is not None]
    scope = _scope([f"{end}/" for end in ends]) if ends else ""
    scoped = f'{remedies.UPDATES[:-1]}, scope="{scope or "tower_0"}")'
    return f"# the updates of one tower only\nupdate_ops = {scoped}\n{remedies.UNDER_UPDATES}"


def write_updates(model: Facts, layers: Sequence[Layer]) -> str:
    """Updates made of the batch moments that the graph has, by name; empty where no tensor holds these, or for many."""
    pairs = []
    for layer in layers:
        moments = next((site.moments for site in training_sites(layer) if site.moments is not None), None)
        if moments is None:
            return ""
        written = roles(layer.updates)
        pairs += [
            (vector.name, batch)
            for vector, batch in zip(layer.statistics, moments, strict=True)
            if vector.role not in written and vector.presence is not Presence.ABSENT
        ]
    if not pairs or len(pairs) > 2 * _NAMED:
        return ""
    decay = decay_to_write(model, layers)
    listed = "".join(f'    "{name}": "{batch}",\n' for name, batch in pairs)
    return (
        f"graph = tf.get_default_graph()\n{own_code.VARIABLES}\n"
        f"# moving statistic: the batch statistic it averages\nbatches = {{\n{listed}}}\n"
        f"update_ops = {_existing(layers)}\n"
        "for name, batch in batches.items():\n"
        "    v = variables[name]\n"
        "    moment = tf.reshape(graph.get_tensor_by_name(batch), v.shape)\n"
        f"    # decay {decay:g}\n    update_ops.append(tf.assign_sub(v, {1 - decay:.6g} * (v - moment)))\n"
        f"{remedies.UNDER_UPDATES}"
    )


def decay_to_write(model: Facts, layers: Sequence[Layer]) -> float:
    """That of the updates which these layers have, else one short enough for the run, else 0.99."""
    known = next((u.decay for layer in layers for u in layer.updates if u.decay), None)
    return known or (shorter_decay(model.run.updates) if model.run.updates else 0.99)


def copy_statistics(model: Facts, layers: Sequence[Layer]) -> str:
    """Assignments that copy the statistics of trained layers to their copies, by name, and run with the weights'."""
    known = {layer.name: layer for layer in model.layers}
    pairs = [
        (vector.name, source.name)
        for layer in layers
        if layer.copied is not None
        for vector, source in zip(layer.statistics, known[layer.copied.source].statistics, strict=True)
    ]
    listed = "".join(f'    "{name}": "{source}",\n' for name, source in pairs)
    return (
        f"{own_code.VARIABLES}\ncopies = {{    # statistic: that of the trained layer\n{listed}}}\n"
        "copy_statistics = [tf.assign(variables[name], variables[source]) for name, source in copies.items()]\n"
        "session.run(copy_statistics)    # wherever the weights are copied"
    )


def _existing(layers: Sequence[Layer]) -> str:
    """The updates that these layers have already, as an expression."""
    updates = [update for layer in layers for update in layer.updates]
    if any(update.in_collection for update in updates):
        return remedies.UPDATES
    listed = ", ".join(f'"{update.name}"' for update in updates)
    return f"[graph.get_operation_by_name(name) for name in [{listed}]]" if updates else "[]"


def _scope(names: Sequence[str]) -> str:
    """The scope that all names lie in, with its slash; empty: none."""
    scopes = [name.split("/")[:-1] for name in names]
    common = list(takewhile(lambda level: len(set(level)) == 1, zip(*scopes, strict=False)))
    return "".join(f"{level[0]}/" for level in common)


def train_mode(model: Facts, layers: Sequence[Layer] = ()) -> str:
    """Training with batch statistics, and the updates with it; a Keras model that `fit` trains runs them."""
    framework = made_with(model, layers)
    sites = [(layer, site) for layer in layers for site in training_sites(layer)]
    if framework is Framework.OWN and sites:
        by_hand = own_code.with_batch(*sites[0], decay_to_write(model, layers))
        if by_hand:
            return by_hand
    if framework is Framework.KERAS and is_training_graph(model):
        return f"{remedies.CALL_KERAS}\n{remedies.WIRE_KERAS}"
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
