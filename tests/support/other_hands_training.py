"""Variants of how a script trains, restores and saves: collections, Savers, accumulation, loops, towers, batches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from other_hands import (
    Script,
    Variant,
    affine,
    conv,
    images,
    layers,
    loss_of,
    normalised,
    slim,
    statistics,
    train,
    trained,
    update_ops,
    v1,
)

_UPDATE_OPS = v1.GraphKeys.UPDATE_OPS


def training_variants() -> Iterator[Variant]:
    """All, by kind."""
    yield Variant("own collection unread", "BN201", partial(collected, "bn_updates", _UPDATE_OPS))
    yield Variant("own collection read", "", partial(collected, "bn_updates", "bn_updates"))
    yield Variant("misspelt collection", "BN201", partial(collected, "_update_ops_", _UPDATE_OPS), resource=True)
    yield Variant("Saver of trainable variables", "BN209", partial(saved, v1.trainable_variables), steps=3)
    yield Variant("Saver of model variables", "", partial(saved, _model_variables), steps=60)
    yield Variant("warm start of trainables", "BN209", partial(warm, v1.trainable_variables), steps=60)
    by_name = partial(warm, lambda scope: {v.op.name: v for v in v1.trainable_variables(scope)})
    yield Variant("warm start by names", "BN209", by_name, steps=60, resource=True)
    yield Variant("warm start of all", "", partial(warm, v1.global_variables), steps=60)
    for run, codes in ((True, ""), (False, "BN201")):
        said = "updates run" if run else "forgotten"
        for parts in (2, 4):
            split = partial(partitioned, parts, run=run)
            yield Variant(f"{parts} parts, {said}", codes, split, resource=parts == 2)
        yield Variant(f"a step under tf.cond, {said}", codes, partial(conditional, run=run))
        yield Variant(f"replicas in step, {said}", codes, partial(in_step, run=run))
        yield Variant(f"averages debiased, {said}", codes, partial(debiased, run=run))
        yield Variant(f"gradients accumulated, {said}", codes, partial(accumulated, run=run))
        yield Variant(f"ghost batches, {said}", codes, partial(ghost, run=run))
        yield Variant(f"the step is a loop's body, {said}", codes, partial(looped, run=run))
        yield Variant(f"moments over towers, {said}", codes, partial(over_towers, run=run))
        yield Variant(f"2 replicas, {said}", codes, partial(replicated, 2, run=run), resource=run)
    yield Variant("4 replicas, updates run", "", partial(replicated, 4, run=True))
    for tau in (1.0, 0.05):
        for resource in (False, True):
            kind = f"target network, tau {tau:g}{', resources' if resource else ''}"
            half, whole = (partial(followed, copied, tau=tau) for copied in (v1.trainable_variables, _of_network))
            yield Variant(f"{kind}, trainables", "BN203", half, steps=20, resource=resource)
            yield Variant(f"{kind}, statistics too", "", whole, steps=20, resource=resource)
    yield Variant("weights averaged (SWA), trainables", "BN203", partial(averaged, v1.trainable_variables), steps=20)
    yield Variant("weights averaged (SWA), statistics too", "", partial(averaged, _of_network), steps=20)
    yield Variant("GAN, both networks wired", "", partial(adversaries, ("d", "g")), steps=60)
    yield Variant("GAN, the generator alone", "BN202", partial(adversaries, ("g",)), steps=60)
    yield Variant("GAN, the discriminator alone", "BN202", partial(adversaries, ("d",)), steps=60)
    yield Variant("GAN, none wired", "BN201", partial(adversaries, ()), steps=20)
    yield Variant("batches of 1, declared", "BN117", partial(dense, 1), steps=60)
    yield Variant("batches of 1, tf.layers", "BN117", partial(dense, None, batch=1), steps=60)
    yield Variant("batches of 1, TF-slim", "BN117", partial(dense, None, batch=1, by_slim=True), steps=60)
    yield Variant("batches of 16", "", partial(dense, None), steps=60)


def collected(name: str, read: str) -> Script:
    """Updates lie in one collection, the train op waits for what lies in another."""
    h = slim.batch_norm(conv(images()), decay=0.9, is_training=True, updates_collections=name)
    return trained(h, v1.get_collection(read))


def _model_variables() -> list[Any]:
    return [*slim.get_model_variables(), v1.train.get_global_step()]


def saved(kept: Callable[[], Any]) -> Script:
    """A Saver of some variables."""
    h = slim.batch_norm(conv(images()), decay=0.9, is_training=True, scale=True)
    script = trained(h, update_ops())
    script.saver = v1.train.Saver(kept())
    return script


def _base(x: Any, *, training: bool) -> Any:
    with v1.variable_scope("base"):
        return slim.batch_norm(conv(x), decay=0.9, scale=True, is_training=training, scope="bn")


def _pretrained() -> str:
    """Prefix of a checkpoint of the base, trained in a graph of its own."""
    with tf.Graph().as_default():
        script = trained(_base(images(), training=True), update_ops())
        return train(script, Path(tempfile.mkdtemp(prefix="other-hands-")) / "pretrained", 60)


def warm(kept: Callable[[str], Any]) -> Script:
    """A head is trained on a base whose variables were restored in part; `kept` takes the base's scope."""
    prefix = _pretrained()
    loss = loss_of(conv(tf.nn.relu(_base(images(), training=False)), name="head"))
    step = v1.train.AdamOptimizer(0.01).minimize(
        loss, v1.train.get_or_create_global_step(), var_list=v1.trainable_variables("head")
    )
    pick = kept("base")
    wanted = pick if isinstance(pick, dict) else [v for v in pick if "Adam" not in v.op.name]
    restorer = v1.train.Saver(wanted, name="warm")
    return Script(step, saver=v1.train.Saver(), start=lambda session: restorer.restore(session, prefix))


def partitioned(parts: int, *, run: bool) -> Script:
    """All variables in parts, each part with its share of the moments."""
    with v1.variable_scope("net", partitioner=v1.fixed_size_partitioner(parts)):
        h = conv(images(), 8)
        averages, (gamma, beta) = statistics(8), affine(8)
    whole = [tf.convert_to_tensor(of) for of in (gamma, beta)]
    found = tf.nn.moments(h, [0, 1, 2])
    updates = [
        v1.assign_sub(part, 0.1 * (part - share))
        for average, moment in zip(averages, found, strict=True)
        for part, share in zip(average, tf.split(moment, parts), strict=True)
    ]
    normalised(h, *(tf.convert_to_tensor(average) for average in averages), *whole)
    return trained(normalised(h, *found, *whole), updates if run else ())


def accumulated(*, run: bool) -> Script:
    """Gradients are added to variables first and applied from there."""
    h = layers.batch_normalization(conv(images()), momentum=0.9, training=True)
    optimizer = v1.train.AdamOptimizer(0.01)
    pairs = optimizer.compute_gradients(loss_of(h))
    sums = [v1.Variable(tf.zeros(v.shape), trainable=False) for _, v in pairs]
    adds = [total.assign_add(gradient) for total, (gradient, _) in zip(sums, pairs, strict=True)]
    with tf.control_dependencies(adds + (update_ops() if run else [])):
        applied = [(total / 1.0, v) for total, (_, v) in zip(sums, pairs, strict=True)]
        return Script(optimizer.apply_gradients(applied, v1.train.get_or_create_global_step()))


def ghost(*, run: bool) -> Script:
    """Moments of quarters of a batch."""
    h = layers.batch_normalization(conv(images(16)), momentum=0.9, training=True, virtual_batch_size=4)
    return trained(h, update_ops() if run else ())


def looped(*, run: bool) -> Script:
    """A loop whose body is the whole step, by gradient descent."""
    x, kernel = images(), v1.get_variable("c/w", [3, 3, 3, 4])
    (mean, variance), (gamma, beta) = statistics(4), affine()
    counter, optimizer = v1.train.get_or_create_global_step(), v1.train.GradientDescentOptimizer(0.01)

    def body(number: Any) -> Any:
        h = tf.nn.conv2d(x, kernel, 1, "SAME")
        of_batch, spread = tf.nn.moments(h, [0, 1, 2])
        updates = [v1.assign(mean, 0.9 * mean + 0.1 * of_batch), v1.assign(variance, 0.9 * variance + 0.1 * spread)]
        with tf.control_dependencies(updates if run else []):
            step = optimizer.minimize(loss_of(normalised(h, of_batch, spread, gamma, beta)), counter)
        with tf.control_dependencies([step]):
            return number + 1

    step = v1.while_loop(lambda number: number < 2, body, [tf.constant(0)], parallel_iterations=1)
    normalised(tf.nn.conv2d(x, kernel, 1, "SAME"), mean, variance, gamma, beta)
    return Script(step)


def over_towers(*, run: bool) -> Script:
    """Two towers that share the mean of their moments."""
    with v1.variable_scope("", reuse=v1.AUTO_REUSE):
        towers = [conv(x) for x in tf.split(images(16), 2)]
    (mean, variance), (gamma, beta) = statistics(4), affine()
    of_batch = tf.add_n([tf.reduce_mean(h, [0, 1, 2]) for h in towers]) / 2.0
    spread = tf.add_n([tf.reduce_mean(h * h, [0, 1, 2]) for h in towers]) / 2.0 - of_batch * of_batch
    updates = [v1.assign_sub(mean, 0.1 * (mean - of_batch)), v1.assign_sub(variance, 0.1 * (variance - spread))]
    normalised(towers[0], mean, variance, gamma, beta)
    joined = tf.concat([normalised(h, of_batch, spread, gamma, beta) for h in towers], 0)
    return trained(joined, updates if run else ())


def replicated(copies: int, *, run: bool) -> Script:
    """A copy of all variables a tower, of which the Saver keeps the first."""
    optimizer = v1.train.GradientDescentOptimizer(0.01)
    gradients, variables = [], []
    for number, x in enumerate(tf.split(images(16), copies)):
        with v1.variable_scope(f"v{number}"):
            h = layers.batch_normalization(conv(x), momentum=0.9, training=True, name="bn")
        variables.append(v1.trainable_variables(f"v{number}/"))
        gradients.append(tf.gradients(loss_of(h), variables[-1]))
    means = [tf.add_n(list(of)) / copies for of in zip(*gradients, strict=True)]
    with tf.control_dependencies(update_ops() if run else []):
        applied = [optimizer.apply_gradients(zip(means, of, strict=True)) for of in variables]
        step = tf.group(*applied, v1.assign_add(v1.train.get_or_create_global_step(), 1))
    kept = [v for v in v1.global_variables() if v.name.startswith("v0/") or "global" in v.name]
    return Script(step, saver=v1.train.Saver(kept))


def dense(declared: int | None, *, batch: int | None = None, by_slim: bool = False) -> Script:
    """A layer behind a dense one, which averages over the batch alone."""
    h = tf.matmul(tf.reshape(images(declared), [-1, 108]), v1.get_variable("fc/w", [108, 8]))
    if by_slim:
        h = slim.batch_norm(h, decay=0.9, is_training=True, fused=False)
    else:
        h = layers.batch_normalization(h, momentum=0.9, training=True)
    return trained(h, update_ops(), batch=batch or declared or 16)


def _of_network(scope: str) -> list[Any]:
    return [v for v in v1.global_variables(scope) if "Adam" not in v.op.name]


def _network(x: Any, scope: str, *, training: bool, reuse: bool | None = None, channels: int = 2) -> Any:
    with v1.variable_scope(scope, reuse=reuse):
        h = layers.batch_normalization(conv(x), momentum=0.9, training=training, name="bn")
        return conv(tf.nn.relu(h), channels, "out")


def followed(copied: Callable[[str], list[Any]], *, tau: float) -> Script:
    """A target network, in eval mode, into which variables of the trained one are assigned at every step."""
    values = _network(images(), "online", training=True)
    later = v1.placeholder_with_default(tf.ones([16, 6, 6, 3]), [16, 6, 6, 3])
    target = tf.stop_gradient(_network(later, "target", training=False))
    loss = tf.reduce_mean(tf.square(values - tf.reduce_mean(target) * 0.1 - 1.0))
    with tf.control_dependencies(update_ops()):
        step = v1.train.AdamOptimizer(0.01).minimize(
            loss, v1.train.get_or_create_global_step(), var_list=v1.trainable_variables("online")
        )
    pairs = zip(copied("target"), copied("online"), strict=True)
    return Script(tf.group(step, *[to.assign(of if tau == 1 else tau * of + (1 - tau) * to) for to, of in pairs]))


def averaged(copied: Callable[[str], list[Any]]) -> Script:
    """A second network that holds the mean of the weights of all steps."""
    step = trained(_network(images(), "net", training=True), update_ops()).train
    _network(v1.placeholder(tf.float32, [None, 6, 6, 3]), "swa", training=False)
    count = v1.get_variable("models", [], initializer=v1.zeros_initializer(), trainable=False)
    with tf.control_dependencies([step]):
        pairs = zip(copied("swa"), copied("net"), strict=True)
        means = tf.group(*[mean.assign((mean * count + v) / (count + 1)) for mean, v in pairs])
    with tf.control_dependencies([means]):
        return Script(count.assign_add(1.0))


def adversaries(run: tuple[str, ...]) -> Script:
    """A generator and a discriminator, each with a step of its own; the updates of those of `run` hang on theirs."""
    noise = v1.placeholder_with_default(v1.random_normal([16, 6, 6, 3]), [16, 6, 6, 3], "z")
    fake = _network(noise, "g", training=True, channels=3)
    real, faked = (
        _network(x, "d", training=True, reuse=reuse, channels=1) for x, reuse in ((images(), None), (fake, True))
    )
    losses = {"d": loss_of(real) + tf.reduce_mean(tf.square(faked)), "g": loss_of(faked)}
    steps = []
    for name, loss in losses.items():
        with tf.control_dependencies(v1.get_collection(_UPDATE_OPS, name) if name in run else []):
            optimizer = v1.train.AdamOptimizer(0.01, name=f"{name}_step")
            steps.append(optimizer.minimize(loss, var_list=v1.trainable_variables(f"{name}/")))
    return Script([*steps, v1.assign_add(v1.train.get_or_create_global_step(), 1)])


def conditional(*, run: bool) -> Script:
    """Gradients are applied in a branch, as where losses that are no numbers are skipped."""
    h = layers.batch_normalization(conv(images()), momentum=0.9, training=True)
    loss = loss_of(h)
    optimizer = v1.train.AdamOptimizer(0.01)
    pairs = optimizer.compute_gradients(loss)

    def apply() -> Any:
        with tf.control_dependencies([optimizer.apply_gradients(pairs, v1.train.get_or_create_global_step())]):
            return tf.constant(1)

    with tf.control_dependencies(update_ops() if run else []):
        fine = tf.identity(tf.math.is_finite(loss))
    return Script(v1.cond(fine, apply, lambda: tf.constant(0)))


def in_step(*, run: bool) -> Script:
    """Gradients of several workers are gathered before they are applied."""
    h = layers.batch_normalization(conv(images()), momentum=0.9, training=True)
    optimizer = v1.train.SyncReplicasOptimizer(v1.train.AdamOptimizer(0.01), replicas_to_aggregate=2)
    with tf.control_dependencies(update_ops() if run else []):
        return Script(optimizer.minimize(loss_of(h), global_step=v1.train.get_or_create_global_step()))


def debiased(*, run: bool) -> Script:
    """Averages that make up for their start."""
    from tensorflow.python.training.moving_averages import assign_moving_average

    h = conv(images())
    (mean, variance), (gamma, beta) = statistics(4), affine()
    found = tf.nn.moments(h, [0, 1, 2])
    updates = [
        assign_moving_average(v, of, 0.9, zero_debias=True) for v, of in zip((mean, variance), found, strict=True)
    ]
    normalised(h, mean, variance, gamma, beta)
    return trained(normalised(h, *found, gamma, beta), updates if run else ())
