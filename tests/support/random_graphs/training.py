"""The training step: optimizer, what runs the updates, and the loop or condition around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .layers import Built, slim
from .recipe import Recipe

v1 = tf.compat.v1
UPDATE_OPS = v1.GraphKeys.UPDATE_OPS
RATE = 0.01


def train_step(built: Built, loss: Any, *, collected_early: list[Any]) -> Any:
    """The op that a script runs at each step; what it runs besides goes to `built.besides`."""
    recipe = built.recipe
    every = [op for ops in built.updates.values() for op in ops]
    wiring = recipe.wiring
    name = "net_update_ops" if wiring.startswith("own_collection") else UPDATE_OPS
    if not recipe.average.startswith("tf_keras") or wiring in ("collection", "create_train_op"):
        for op in every:
            v1.add_to_collection(name, op)
    if wiring in ("collection", "create_train_op", "own_collection"):
        every = v1.get_collection(name)
    if wiring == "create_train_op":
        return slim.learning.create_train_op(loss, _optimizer(recipe), global_step=_step())
    if wiring == "group":
        return tf.group(minimize(recipe, loss), *every, name="train_and_update")
    if wiring == "dependencies":
        trained = minimize(recipe, loss)
        with tf.control_dependencies([trained, *every]):
            return tf.identity(loss, name="trained_loss")
    if wiring == "tuple":
        return tf.tuple([loss], control_inputs=[minimize(recipe, loss), *map(_op, every)])[0]
    if wiring == "barrier":
        with tf.control_dependencies(every):
            barrier = tf.no_op(name="update_barrier")
        with tf.control_dependencies([barrier]):
            loss = tf.identity(loss)
        with tf.control_dependencies([loss]):
            return minimize(recipe, loss)
    if wiring == "loss_identity":
        with tf.control_dependencies(every):
            loss = tf.identity(loss, name="loss_with_updates")
        return minimize(recipe, loss)
    if wiring == "loss_dependency":
        with tf.control_dependencies(every):
            loss = loss + tf.zeros([])
        return minimize(recipe, loss)
    if wiring == "constructor":
        with tf.control_dependencies(every):
            optimizer = _optimizer(recipe)
        return minimize(recipe, loss, optimizer)
    awaited = {
        "early": collected_early,
        "wrong_scope": v1.get_collection(UPDATE_OPS, scope="towr_0"),
        "own_collection_missed": v1.get_collection(UPDATE_OPS),
        "some_only": built.updates[next(iter(built.updates))] if built.updates else [],
        "nobody": [],
        "separate_call": [],
    }.get(wiring, every)
    with tf.control_dependencies(awaited):
        return minimize(recipe, loss)


def _op(update: Any) -> Any:
    return getattr(update, "op", update)


def _step() -> Any:
    return v1.train.get_or_create_global_step()


def _optimizer(recipe: Recipe) -> Any:
    made = {
        "momentum": lambda: v1.train.MomentumOptimizer(RATE, 0.9),
        "adam": lambda: v1.train.AdamOptimizer(RATE),
        "rmsprop": lambda: v1.train.RMSPropOptimizer(RATE),
        "clipped": lambda: v1.train.MomentumOptimizer(RATE, 0.9),
    }
    return made.get(recipe.optimizer, lambda: v1.train.GradientDescentOptimizer(RATE))()


def minimize(recipe: Recipe, loss: Any, optimizer: Any = None) -> Any:
    """One step of the recipe's optimizer."""
    kind = recipe.optimizer
    optimizer = optimizer or (_optimizer(recipe) if kind != "by_hand" else None)
    by_kind: dict[str, Callable[[], Any]] = {
        "by_hand": lambda: _by_hand(loss),
        "clipped": lambda: _clipped(loss, optimizer),
        "two": lambda: _two(loss, optimizer),
        "accumulate": lambda: _accumulated(loss, optimizer),
        "gathered": lambda: _gathered(loss, optimizer),
        "cond_apply": lambda: _conditional(loss, optimizer),
    }
    return by_kind.get(kind, lambda: optimizer.minimize(loss, _step()))()


def _gradients(loss: Any) -> list[tuple[Any, Any]]:
    variables = v1.trainable_variables()
    return [(g, v) for g, v in zip(tf.gradients(loss, variables), variables, strict=True) if g is not None]


def _by_hand(loss: Any) -> Any:
    writes = [v1.assign_sub(v, RATE * g) for g, v in _gradients(loss)]
    return tf.group(*writes, v1.assign_add(_step(), 1), name="descent")


def _clipped(loss: Any, optimizer: Any) -> Any:
    pairs = _gradients(loss)
    clipped, _ = tf.clip_by_global_norm([g for g, _ in pairs], 1.0)
    return optimizer.apply_gradients(list(zip(clipped, (v for _, v in pairs), strict=True)), _step())


def _two(loss: Any, optimizer: Any) -> Any:
    """The last layer has an optimizer of its own."""
    pairs = _gradients(loss)
    other = v1.train.AdamOptimizer(RATE)
    return tf.group(optimizer.apply_gradients(pairs[:-1], _step()), other.apply_gradients(pairs[-1:]))


def _accumulated(loss: Any, optimizer: Any) -> Any:
    """Gradients of two micro-batches are summed in variables, then applied: here both in one call."""
    pairs = _gradients(loss)
    stores = [
        v1.get_variable(f"sum_of_gradients_{n}", v.shape, initializer=v1.zeros_initializer(), trainable=False)
        for n, (_, v) in enumerate(pairs)
    ]
    gather = [v1.assign_add(store, g / 2.0) for store, (g, _) in zip(stores, pairs, strict=True)]
    with tf.control_dependencies(gather):
        sums = [store.read_value() for store in stores]
    apply = optimizer.apply_gradients([(s, v) for s, (_, v) in zip(sums, pairs, strict=True)], _step())
    with tf.control_dependencies([apply]):
        return tf.group(*(v1.assign(store, tf.zeros_like(store)) for store in stores), name="apply_and_reset")


def _gathered(loss: Any, optimizer: Any) -> Any:
    """As SyncReplicasOptimizer: through accumulators, of one worker here."""
    pairs = _gradients(loss)
    accumulators = [
        v1.ConditionalAccumulator(tf.float32, shape=v.shape, shared_name=f"{v.op.name}/grad_accum") for _, v in pairs
    ]
    step = tf.cast(_step(), tf.int64)
    puts = [a.apply_grad(g, local_step=step) for a, (g, _) in zip(accumulators, pairs, strict=True)]
    with tf.control_dependencies(puts):
        taken = [a.take_grad(1) for a in accumulators]
    return optimizer.apply_gradients([(g, v) for g, (_, v) in zip(taken, pairs, strict=True)], _step())


def _conditional(loss: Any, optimizer: Any) -> Any:
    """Applied only where all gradients are finite (loss scaling)."""
    pairs = _gradients(loss)
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g, _ in pairs])
    slots = optimizer  # made outside, so that its variables are
    return v1.cond(finite, lambda: tf.group(slots.apply_gradients(pairs, _step())), tf.no_op)
