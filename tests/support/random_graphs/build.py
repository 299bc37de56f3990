"""Builds, trains and saves the graph of a recipe: real TensorFlow, a real session, a real Saver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from . import decoys
from .layers import Built, batch_norm, phase_of
from .recipe import Recipe
from .training import UPDATE_OPS, train_step

v1 = tf.compat.v1
BATCH, CLASSES, STEPS = 8, 4, 45
"""With decay 0.8 that many steps leave 4e-5 of the initial statistics."""


@dataclass(frozen=True)
class Trained:
    """A checkpoint with its MetaGraph, and what is true of it."""

    prefix: Path
    layers: dict[str, tuple[str, str]]
    """Scope -> variables of mean and variance."""
    moved: dict[str, bool] = field(default_factory=dict)
    """Scope -> whether running the train op alone changed both statistics, as seen in a session."""


@contextmanager
def _kinds(recipe: Recipe) -> Iterator[None]:
    """Variables and control flow of the recipe's years."""
    resource, control = v1.resource_variables_enabled(), v1.control_flow_v2_enabled()
    (v1.enable_resource_variables if recipe.resource == "yes" else v1.disable_resource_variables)()
    (v1.enable_control_flow_v2 if recipe.control == "v2" else v1.disable_control_flow_v2)()
    try:
        yield
    finally:
        (v1.enable_resource_variables if resource else v1.disable_resource_variables)()
        (v1.enable_control_flow_v2 if control else v1.disable_control_flow_v2)()


def _linear(x: Any, channels: int, scope: str) -> Any:
    with v1.variable_scope(scope, reuse=v1.AUTO_REUSE):
        if len(x.shape) == 4:
            kernel = v1.get_variable("kernel", [3, 3, x.shape[-1], channels])
            return tf.nn.conv2d(x, kernel, 1, "SAME")
        return tf.matmul(x, v1.get_variable("kernel", [x.shape[-1], channels]))


def forward(built: Built, images: Any, phase: Any) -> Any:
    """Logits [N, CLASSES] of images [N, 6, 6, 3]."""
    recipe = built.recipe
    h = decoys.ON_INPUTS.get(recipe.decoy, lambda x: x)(images)
    if recipe.network == "dense":
        h = tf.reshape(h, [-1, 108])
    for number in range(recipe.layers):
        if recipe.network == "mixed" and number == recipe.layers - 1 and len(h.shape) == 4:
            h = tf.reduce_mean(h, [1, 2])
        h = tf.nn.relu(batch_norm(built, _linear(h, 4 + 2 * number, f"fc{number}"), f"norm{number}", phase))
        if number == 0 and recipe.decoy in decoys.ON_ACTIVATIONS:
            h = decoys.ON_ACTIVATIONS[recipe.decoy](h)
    h = tf.reduce_mean(h, [1, 2]) if len(h.shape) == 4 else h
    return _linear(h, CLASSES, "logits")


def _loss(built: Built, logits: Any, labels: Any) -> tuple[Any, list[Any]]:
    """(loss, ops that keep a decoy's own averages)."""
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if built.recipe.decoy == "running_return":
        return decoys.running_return(each)
    loss = tf.reduce_mean(each, name="loss")
    if built.recipe.decoy == "loss_average":
        average = v1.train.ExponentialMovingAverage(0.9, name="smooth")
        return loss, [average.apply([loss])]
    return loss, []


def _replicas(built: Built, images: Any, labels: Any, phase: Any) -> tuple[Any, list[Any]]:
    """(loss, ops that keep a decoy's own averages); of two replicas the first one's updates are kept, as is the use."""
    if built.recipe.replicas == "one":
        return _loss(built, forward(built, images, phase), labels)
    parts = zip(tf.split(images, 2), tf.split(labels, 2), strict=True)
    losses = [_loss(built, forward(built, some, phase), theirs)[0] for some, theirs in parts]
    return tf.add_n(losses) / 2.0, []


def _in_loop(built: Built, images: Any, labels: Any, phase: Any) -> Any:
    """Two steps of training as the body of a loop; the variables are made before it."""
    forward(Built(built.recipe, averages=built.averages), images, phase)

    def body(count: Any, _: Any) -> Any:
        inner = Built(built.recipe, averages=built.averages)
        loss, _ops = _loss(inner, forward(inner, images, phase), labels)
        built.layers, built.updates = inner.layers, inner.updates
        step = train_step(inner, loss, collected_early=[])
        with tf.control_dependencies([step]):
            return count + 1, tf.identity(loss)

    _, last = tf.while_loop(lambda count, _: count < 2, body, [0, 0.0], parallel_iterations=1)
    return tf.identity(last, name="train_loop")


def train(recipe: Recipe, folder: Path, steps: int = STEPS) -> Trained:
    """Trains on noise; raises what TensorFlow raises where it does not build such a graph."""
    with tf.Graph().as_default(), _kinds(recipe):
        v1.set_random_seed(1 + recipe.seed)
        v1.train.get_or_create_global_step()
        images = v1.placeholder(tf.float32, [None, 6, 6, 3], "images")
        labels = v1.placeholder(tf.int64, [None], "labels")
        built = Built(recipe)
        phase = phase_of(built)
        besides: list[Any] = []
        if recipe.loop == "while":
            op = _in_loop(built, images, labels, phase)
        else:
            early = v1.get_collection(UPDATE_OPS)
            loss, besides = _replicas(built, images, labels, phase)
            op = train_step(built, loss, collected_early=early)
        if recipe.mode == "towers":
            tf.argmax(forward(Built(recipe, averages=built.averages), images, False), 1, name="prediction")  # noqa: FBT003
        if recipe.decoy == "weight_average":
            besides = [v1.train.ExponentialMovingAverage(0.9).apply(v1.trainable_variables())]
        if besides:
            op = tf.group(op, *besides, name="train_and_averages")
        if recipe.wiring == "separate_call":
            besides = [update for ops in built.updates.values() for update in ops]
        return _run(built, op, besides, folder=folder, steps=steps)


def _run(built: Built, op: Any, besides: list[Any], *, folder: Path, steps: int) -> Trained:
    """`besides`: what a script runs in calls of its own."""
    recipe = built.recipe
    random = np.random.default_rng(recipe.seed)
    variables = {v.op.name: v for v in v1.global_variables()}
    statistics = {scope: [variables[n] for n in names if n] for scope, names in built.layers.items()}
    saver = v1.train.Saver(_saved(recipe, built))
    config = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    config.graph_options.rewrite_options.disable_meta_optimizer = True  # rewriting costs more than it saves here
    with v1.Session(config=config) as session:
        session.run(v1.global_variables_initializer())
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        for step in range(steps):
            feeds = {
                "images:0": random.normal(0.5, 2.0, (BATCH, 6, 6, 3)),
                "labels:0": random.integers(0, CLASSES, BATCH),
                **built.feeds,
            }
            before = session.run(statistics) if step == 0 else before
            session.run(op, feeds)
            after = session.run(statistics) if step == 0 else after
            if recipe.wiring == "separate_call" and besides:
                session.run(besides, feeds)
        prefix = saver.save(session, str(folder / "model.ckpt"), global_step=steps)
    moved = {
        scope: bool(before[scope]) and all((a != b).any() for a, b in zip(before[scope], after[scope], strict=True))
        for scope in statistics
    }
    return Trained(prefix=Path(prefix), layers=built.layers, moved=moved)


def _saved(recipe: Recipe, built: Built) -> list[Any] | None:
    if recipe.saver == "trainable":
        return [*v1.trainable_variables(), v1.train.get_global_step()]
    if recipe.saver == "exclude":
        left_out = {name for names in built.layers.values() for name in names}
        return [v for v in v1.global_variables() if v.op.name not in left_out]
    return None
