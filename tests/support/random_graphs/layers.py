"""One batch norm by its recipe: moments, formula, average, what decides the mode, and where the update stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from bncheck.backbones import slim_compat

from .averages import DECAY, Average
from .moments import EPSILON, FORMULAS, MOMENTS
from .recipe import WHOLE, Recipe

v1 = tf.compat.v1
slim: Any = slim_compat.load_slim()


@dataclass
class Built:
    """What was made so far: the truth about each layer, its update ops, and what a step feeds."""

    recipe: Recipe
    layers: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Scope -> names of the variables of mean and variance."""
    updates: dict[str, list[Any]] = field(default_factory=dict)
    """Scope -> ops that somebody else has to run."""
    averages: dict[str, Average] = field(default_factory=dict)
    feeds: dict[Any, Any] = field(default_factory=dict)
    """Of a training step, images and labels left out."""


def phase_of(built: Built) -> Any:
    """A Python bool, or the tensor that decides; what a training step feeds goes to `built.feeds`."""
    fixed = {"train": True, "towers": True, "eval": False}
    mode = built.recipe.mode
    return fixed[mode] if mode in fixed else _PHASES[mode](built.feeds)


def _fed(feeds: dict[Any, Any], placeholder: Any, value: Any) -> Any:
    feeds[placeholder] = value
    return placeholder


def _variable(_: dict[Any, Any]) -> Any:
    initial = v1.constant_initializer(value=True)
    return tf.identity(v1.get_variable("training_now", [], tf.bool, initial, trainable=False))


def _unless_frozen(feeds: dict[Any, Any]) -> Any:
    training, frozen = (v1.placeholder(tf.bool, [], name) for name in ("is_training", "frozen"))
    return tf.logical_and(_fed(feeds, training, True), tf.logical_not(_fed(feeds, frozen, False)))  # noqa: FBT003


def _defaulting(feeds: dict[Any, Any], name: str, *, default: bool) -> Any:
    return _fed(feeds, v1.placeholder_with_default(default, [], name), True)  # noqa: FBT003


_PHASES: dict[str, Callable[[dict[Any, Any]], Any]] = {
    "placeholder": lambda feeds: _fed(feeds, v1.placeholder(tf.bool, [], "is_training"), True),  # noqa: FBT003
    "default_true": lambda feeds: _defaulting(feeds, "is_training", default=True),
    "default_false": lambda feeds: _defaulting(feeds, "is_training", default=False),
    "learning_phase": lambda feeds: _defaulting(feeds, "keras_learning_phase", default=False),
    "variable": _variable,
    "keep_prob": lambda feeds: tf.less(_fed(feeds, v1.placeholder(tf.float32, [], "keep_prob"), 0.5), 1.0),
    "string": lambda feeds: tf.equal(_fed(feeds, v1.placeholder(tf.string, [], "mode"), "train"), "train"),
    "integer": lambda feeds: tf.equal(_fed(feeds, v1.placeholder(tf.int32, [], "mode"), 0), 0),
    "negated": lambda feeds: tf.logical_not(
        _fed(feeds, v1.placeholder(tf.bool, [], "is_serving"), False)  # noqa: FBT003
    ),
    "unless_frozen": _unless_frozen,
    "step": lambda _: tf.less(tf.cast(v1.train.get_or_create_global_step(), tf.int32), 100_000),
    "constant": lambda _: tf.constant(True, name="is_training"),  # noqa: FBT003
}


def batch_norm(built: Built, x: Any, scope: str, phase: Any) -> Any:
    """Normalises [N, H, W, C] or [N, C]; `phase` is True, False or a tensor."""
    recipe = built.recipe
    if recipe.average in WHOLE:
        return _whole(built, x, scope, phase)
    if recipe.network == "nchw" and len(x.shape) == 4:
        y = _by_parts(built, tf.transpose(x, [0, 3, 1, 2]), scope, phase, axis=1)
        return tf.transpose(y, [0, 2, 3, 1])
    return _by_parts(built, x, scope, phase, axis=len(x.shape) - 1)


def _by_parts(built: Built, x: Any, scope: str, phase: Any, *, axis: int) -> Any:
    recipe = built.recipe
    axes = [a for a in range(len(x.shape)) if a != axis]
    channels = int(x.shape[axis])
    kept = recipe.moments == "keep_dims"
    shape = [1] * axis + [channels] if kept else [channels]
    with v1.variable_scope(scope, reuse=v1.AUTO_REUSE):
        gamma = v1.get_variable("gamma", [channels], initializer=v1.ones_initializer())
        beta = v1.get_variable("beta", [channels], initializer=v1.zeros_initializer())
        average = built.averages.get(scope) or Average(recipe, shape, phase)
        built.averages[scope] = average

        def place(vector: Any) -> Any:
            return tf.reshape(vector, [1, channels, 1, 1]) if axis == 1 and len(x.shape) == 4 else vector

        def normalise(mean: Any, variance: Any) -> Any:
            return FORMULAS[recipe.formula](x, *(place(v) for v in (mean, variance, gamma, beta)))

        def of_batch() -> tuple[Any, Callable[[Any, Any], Any]]:
            """Moments, and what normalises with them."""
            if recipe.moments == "fused":
                y, mean, variance = v1.nn.fused_batch_norm(x, gamma, beta, epsilon=EPSILON)[:3]
                return (mean, variance), lambda *_: y
            return MOMENTS[recipe.moments](x, axes), normalise

        if phase is False:
            y = normalise(*average.stored())
        elif phase is True:
            batch, apply = of_batch()
            updates = average.update(batch)
            y = _with_updates(built, scope, updates, lambda: apply(*_after(batch, updates, built)))
        else:
            y = _switched(built, scope, phase, average, of_batch=of_batch, normalise=normalise)
        built.layers.setdefault(scope, average.names)
        return y


def _after(batch: tuple[Any, Any], updates: list[Any], built: Built) -> tuple[Any, Any]:
    """The moments, read after the updates where these stand inside."""
    if built.recipe.updating != "inside":
        return batch
    with tf.control_dependencies(updates):
        return tf.identity(batch[0]), tf.identity(batch[1])


def _with_updates(built: Built, scope: str, updates: list[Any], output: Callable[[], Any]) -> Any:
    """The output, and the updates noted for others unless it waits for them itself."""
    if built.recipe.updating != "inside":
        built.updates.setdefault(scope, updates)
        return output()
    with tf.control_dependencies(updates):
        return tf.identity(output())


def _switched(
    built: Built,
    scope: str,
    phase: Any,
    average: Average,
    *,
    of_batch: Callable[[], Any],
    normalise: Callable[[Any, Any], Any],
) -> Any:
    """`phase` picks outputs, or statistics in one of the ways of `choice`."""
    recipe = built.recipe
    inside = recipe.updating == "inside"
    if recipe.choice == "branch":

        def in_branch() -> Any:
            batch = of_batch()[0]
            return _after(batch, average.update(batch), built)

        return normalise(*v1.cond(phase, in_branch, lambda: tuple(map(tf.identity, average.stored()))))
    batch, apply = of_batch()
    if not inside and scope not in built.updates:
        built.updates[scope] = _updates(recipe, phase, average, batch)
    if recipe.choice != "outputs":
        return normalise(*_picked(built, phase, average, batch))

    def train_output() -> Any:
        if not inside:
            return apply(*batch)
        with tf.control_dependencies(average.update(batch)):
            return tf.identity(apply(*batch))

    return v1.cond(phase, train_output, lambda: normalise(*average.stored()))


def _updates(recipe: Recipe, phase: Any, average: Average, batch: tuple[Any, Any]) -> list[Any]:
    if recipe.updating != "cond":
        return average.update(batch)
    done = v1.cond(phase, lambda: tf.group(*average.update(batch)), tf.no_op)
    return [done.op if hasattr(done, "op") else done]


def _picked(built: Built, phase: Any, average: Average, batch: tuple[Any, Any]) -> tuple[Any, Any]:
    """Mean and variance: those of the batch where `phase` is true, else the stored ones."""
    choice, inside = built.recipe.choice, built.recipe.updating == "inside"

    def now() -> tuple[Any, Any]:
        return _after(batch, average.update(batch), built) if inside else (tf.identity(batch[0]), tf.identity(batch[1]))

    def stored() -> tuple[Any, Any]:
        mean, variance = average.stored()
        return tf.identity(mean), tf.identity(variance)

    if choice == "case":
        return v1.case([(phase, now)], default=stored)
    if choice == "statistics" or inside:
        return v1.cond(phase, now, stored)
    on = tf.cast(phase, tf.float32)
    one: dict[str, Callable[[Any, Any], Any]] = {
        "where": lambda b, s: tf.where(phase, b, s),
        "arithmetic": lambda b, s: on * b + (1.0 - on) * s,
        "each": lambda b, s: v1.cond(phase, lambda: tf.identity(b), lambda: tf.identity(s)),
    }
    mean, variance = (one[choice](b, s) for b, s in zip(batch, average.stored(), strict=True))
    return mean, variance


def _whole(built: Built, x: Any, scope: str, phase: Any) -> Any:
    """A layer of TF-slim, tf.layers or Keras."""
    kind, inside = built.recipe.average, built.recipe.updating == "inside"
    if kind.startswith("slim"):
        before = len(v1.get_collection(v1.GraphKeys.UPDATE_OPS))
        y = slim.batch_norm(
            x,
            decay=DECAY,
            scale=True,
            is_training=phase,
            fused=kind == "slim",
            zero_debias_moving_mean=kind == "slim_debias",
            updates_collections=None if inside else v1.GraphKeys.UPDATE_OPS,
            scope=scope,
            reuse=v1.AUTO_REUSE,
        )
        updates = v1.get_collection_ref(v1.GraphKeys.UPDATE_OPS)
        fresh = updates[before:]
        del updates[before:]
        names = (f"{scope}/moving_mean", f"{scope}/moving_variance")
    else:
        y, fresh, names = _keras(built, x, scope, phase)
    if phase is not False:
        built.updates[scope] = fresh
    built.layers[scope] = names
    return y


def _keras(built: Built, x: Any, scope: str, phase: Any) -> tuple[Any, list[Any], tuple[str, str]]:
    from tf_keras import layers as keras
    from tf_keras.src.legacy_tf_layers import normalization

    kind = built.recipe.average
    fused = not kind.endswith("unfused") and len(x.shape) == 4
    collection = v1.get_collection_ref(v1.GraphKeys.UPDATE_OPS)
    before = len(collection)
    if kind.startswith("tf_layers"):
        y = normalization.batch_normalization(
            x, momentum=DECAY, training=phase, name=scope, fused=fused, reuse=v1.AUTO_REUSE
        )
        fresh = collection[before:]
        del collection[before:]
        return y, fresh, (f"{scope}/moving_mean", f"{scope}/moving_variance")
    layer = built.averages.get(scope) or keras.BatchNormalization(momentum=DECAY, name=scope, fused=fused)
    known = len(layer.updates)
    y = layer(x, training=phase)
    built.averages[scope] = layer
    fresh = [] if phase is False else list(layer.updates)[known:]
    return y, fresh, (layer.moving_mean.op.name, layer.moving_variance.op.name)
