"""Training scripts with one fault each, the finding that tells its cause, and where its printed fix is pasted."""

from __future__ import annotations

import textwrap

from training_scripts import (
    CONV,
    KERAS,
    LOSS,
    OWN,
    RUN,
    SLIM,
    TF_LAYERS,
    WIRED,
    Case,
    Script,
    at_call,
    at_call_and_train,
    at_decay,
    at_mode,
    at_start,
    at_step,
    at_train,
    own,
    switched,
)

VARIABLE = 'phase = tf.get_variable("is_training", [], tf.bool, tf.constant_initializer(False), trainable=False)'
KEEP = 'keep = tf.placeholder(tf.float32, [], name="keep_prob")\nphase = tf.less(keep, 1.0)'
PHASE = 'phase = tf.placeholder_with_default(False, [], name="phase")'
READ = "update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS)\n"
UNDER = f"with tf.control_dependencies(update_ops):\n    {WIRED}"
CALL = 'net = slim.batch_norm(net, is_training=True, scope="second", reuse=True)'


def within_slim(*lines: str) -> str:
    """A model whose layers share decay and gamma, as an arg_scope has it."""
    body = textwrap.indent("\n".join(lines), "    ")
    return f"with slim.arg_scope([slim.batch_norm], decay=0.9, scale=True):\n{body}"


TWO = within_slim(
    CONV,
    'net = slim.batch_norm(net, is_training=True, scope="second")',
    LOSS,
    'val_images = tf.placeholder(tf.float32, [None, 4, 4, 3], name="val_images")',
    'net = tf.nn.conv2d(val_images, w, 1, "SAME")',
    CALL,
    "val_loss = tf.reduce_mean(net)",
)
BOTH_FED = "session.run(train_op, {images: batch, val_images: batch + 1.0})"
MIXED = within_slim(
    'phase = tf.placeholder(tf.bool, [], name="phase")',
    CONV,
    'net = tf.nn.relu(slim.batch_norm(net, is_training=phase, scope="first"))',
    'net = tf.nn.conv2d(net, tf.get_variable("v", [1, 1, 4, 4]), 1, "SAME")',
    "net = slim.batch_norm(net, is_training=True)",
    LOSS,
)
DEPTHS = within_slim(
    CONV,
    'v = tf.get_variable("v", [1, 1, 4, 4])',
    "for i in range(3):",
    "    net = tf.nn.relu(net)",
    '    net = slim.batch_norm(net, is_training=True, scope="bn", reuse=i > 0)',
    '    net = tf.nn.conv2d(net, v, 1, "SAME")',
    LOSS,
)
COUNTED = f"""
{CONV}
gamma = tf.get_variable("gamma", [4], initializer=tf.ones_initializer())
beta = tf.get_variable("beta", [4], initializer=tf.zeros_initializer())
before = net
m, v = tf.nn.moments(net, [0, 1, 2])
average = tf.train.ExponentialMovingAverage(0.9, num_updates=global_step)
with tf.control_dependencies([average.apply([m, v])]):
    net = tf.nn.batch_normalization(net, tf.identity(m), tf.identity(v), beta, gamma, 1e-3)
test_net = tf.nn.batch_normalization(before, average.average(m), average.average(v), beta, gamma, 1e-3)
{LOSS}"""
UPDATES = OWN[OWN.index("updates = [") : OWN.index("{then}")]
EVAL = "test = tf.nn.batch_normalization(net, mean, variance, beta, gamma, 1e-3)"
NO_UPDATE = CONV + OWN.replace(UPDATES, "").format(then=EVAL) + LOSS
ONE = "updates = [tf.assign(mean, 0.9 * mean + 0.1 * m)]\n"
ONE_UPDATE = CONV + OWN.replace(UPDATES, ONE).format(then=EVAL) + LOSS


NOT_RUN: dict[str, Case] = {
    "TF-slim, minimize alone": Case(Script(SLIM), "BN201", "UPDATE_OPS holds 2", at_train),
    "tf.layers, minimize alone": Case(Script(TF_LAYERS), "BN201", "UPDATE_OPS holds 2", at_train),
    "Keras in a graph of TensorFlow 1": Case(Script(KERAS), "BN201", "in a TF1 graph, Keras layers", at_train),
    "own collection": Case(
        Script(own('[tf.add_to_collection("my_updates", op) for op in updates]')), "BN201", "`my_updates`", at_train
    ),
    "one of two in a collection of its own": Case(
        Script(
            TF_LAYERS.replace('name="bn")', 'name="first")').replace(LOSS, "")
            + own('[tf.add_to_collection("mine", op) for op in updates]').replace(CONV, ""),
            "ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS)\nwith tf.control_dependencies(ops):\n    " + WIRED,
        ),
        "BN202",
        "in the collection `mine`",
        at_train,
    ),
    "in no collection": Case(Script(own("")), "BN201", "No collection holds them", at_train),
    "a group nobody runs": Case(
        Script(own('tf.group(*updates, name="keep_averages")')), "BN201", "`keep_averages` waits", at_train
    ),
    "TF-slim in eval mode": Case(
        Script(SLIM.replace("is_training=True", "is_training=False")), "BN204", "in eval mode", at_mode
    ),
    "tf.layers in eval mode": Case(
        Script(TF_LAYERS.replace("training=True", "training=False")), "BN204", "in eval mode", at_mode
    ),
    "a variable that stayed False": Case(Script(switched(VARIABLE)), "BN206", "`is_training`, a variable", at_start),
    "keep_prob < 1": Case(
        Script(switched(KEEP), step='session.run(train_op, {images: batch, "keep_prob:0": 1.0})'),
        "BN206",
        "`keep_prob < 1`",
        at_step,
    ),
    "a placeholder never fed": Case(Script(switched(PHASE)), "BN206", "`phase` defaults to False", at_step),
}

MISAPPLIED: dict[str, Case] = {
    "no update was written": Case(Script(NO_UPDATE), "BN203", "No op in the graph", at_train),
    "the mean's update alone was written": Case(
        Script(ONE_UPDATE, f"with tf.control_dependencies(updates):\n    {WIRED}"), "BN203", "moving variance", at_train
    ),
    "a validation tower updates too": Case(
        Script(TWO, READ + UNDER, step=BOTH_FED), "BN213", "`val_images`", at_call(CALL)
    ),
    "a validation tower in train mode": Case(
        Script(TWO, READ + 'update_ops = [op for op in update_ops if not op.name.startswith("second_1/")]\n' + UNDER),
        "BN221",
        "applied again",
        at_call(CALL),
    ),
    "a layer that ignores the switch": Case(
        Script(MIXED, READ + UNDER, step="session.run(train_op, {images: batch, phase: True})"),
        "BN222",
        "in train mode",
        at_call("net = slim.batch_norm(net, is_training=True)"),
    ),
    "one layer at three depths": Case(
        Script(DEPTHS, READ + UNDER),
        "BN223",
        "",
        at_call('net = slim.batch_norm(net, is_training=True, scope="bn", reuse=i > 0)'),
    ),
    "a counter that no one counts": Case(
        Script(COUNTED, "train_op = optimizer.minimize(loss)"), "BN224", "`global_step`", at_train
    ),
}

EARLY = (
    CONV
    + """
net = layers.batch_normalization(net, momentum=0.9, training=True, name="first")
early = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
net = tf.nn.conv2d(tf.nn.relu(net), tf.get_variable("v", [1, 1, 4, 4]), 1, "SAME")
net = layers.batch_normalization(net, momentum=0.9, training=True, name="second")
"""
    + LOSS
)
EARLY_SCRIPT = Script(EARLY, f"with tf.control_dependencies(early):\n    {WIRED}")
GAN = """
def block(x, scope):
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
        x = tf.nn.conv2d(x, tf.get_variable("w", [1, 1, x.shape[-1], 4]), 1, "SAME")
        return tf.nn.relu(layers.batch_normalization(x, momentum=0.9, training=True, name="bn"))
fake = block(tf.random.normal(tf.shape(images)), "generator")[..., :3]
score = tf.reduce_mean(block(fake, "discriminator"))
g_loss, d_loss = -score, score - tf.reduce_mean(block(images, "discriminator"))
"""
D_STEP = """
with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS, scope="discriminator")):
    d_train = optimizer.minimize(d_loss, global_step, var_list=tf.trainable_variables("discriminator"))
optimizer, loss = tf.train.AdamOptimizer(0.01), g_loss
"""
G_STEP = 'train_op = optimizer.minimize(loss, var_list=tf.trainable_variables("generator"))'
BOTH_STEPS = "session.run(d_train, {images: batch})\nsession.run(train_op, {images: batch})"
ON_STORED = "net = tf.nn.batch_normalization(net, mean, variance, beta, gamma, 1e-3)"
NEVER_BATCH = CONV + OWN.replace(OWN[OWN.index("m, v =") : OWN.index("{then}")], "").format(then="").replace(
    "net, m, v,", "net, mean, variance,"
)
FED_BY_NAME = 'phase = tf.placeholder(tf.bool, [], name="phase")'
BY_TEXT = 'mode = tf.placeholder(tf.string, [], name="mode")\nphase = tf.equal(mode, "train")'
SLIM_SWITCHED = SLIM.replace("is_training=True", "is_training=phase").replace(CONV, f"{CONV}{FED_BY_NAME}\n")
KERAS_CALL = "net = model(images, training=True)"
KERAS_UPDATES = "updates = model.get_updates_for(images) + model.get_updates_for(None)\n"
UNDER_OWN = f"with tf.control_dependencies(updates):\n    {WIRED}"
KERAS_TOWER = f"""{KERAS}
val_images = tf.placeholder(tf.float32, [None, 4, 4, 3], name="val_images")
val_logits = model(val_images, training=True)
"""
LAYERS_TOWER = f"""{TF_LAYERS}
val_images = tf.placeholder(tf.float32, [None, 4, 4, 3], name="val_images")
net = tf.nn.conv2d(val_images, w, 1, "SAME")
net = layers.batch_normalization(net, momentum=0.9, training=True, name="bn", reuse=True)
"""
TARGET = """
def q(x, scope, training):
    with tf.variable_scope(scope):
        net = tf.nn.conv2d(x, tf.get_variable("w", [1, 1, 3, 4]), 1, "SAME")
        return tf.nn.relu(layers.batch_normalization(net, momentum=0.9, training=training, name="bn"))
net, target = q(images, "online", True), q(images, "target", False)
loss = tf.reduce_mean((net - 1.0 - 0.01 * tf.stop_gradient(target)) ** 2)
pairs = zip(tf.trainable_variables("target"), tf.trainable_variables("online"))
copy_weights = tf.group(*(tf.assign(ours, theirs) for ours, theirs in pairs))
"""
COPIED = f"{RUN}\nsession.run(copy_weights)"
IN_BRANCH = """
phase = tf.placeholder(tf.bool, [], name="phase")
waits = tf.group(*updates)
with tf.control_dependencies([waits]):
    m, v = tf.cond(phase, lambda: (tf.identity(m), tf.identity(v)), lambda: (tf.identity(mean), tf.identity(variance)))
"""
FED = "session.run(train_op, {images: batch, phase: True})"
NOT_FED = "session.run(train_op, {images: batch, phase: False})"


def with_copied_statistics(broken: Script, fix: str) -> Script:
    """The last line of the fix runs with every copy of the weights; the others make what it runs."""
    *made, run = fix.rstrip().splitlines()
    return Script(broken.model, "\n".join([broken.train, *made]), broken.start, f"{broken.step}\n{run}")


def in_branch(broken: Script, fix: str) -> Script:
    """The fix takes the place of the updates and the condition."""
    start, end = broken.model.index("updates = ["), broken.model.index("net = tf.nn.batch_normalization")
    condition = broken.model[start:end]
    assert "tf.cond" in condition
    model = broken.model.replace(condition, f"{FED_BY_NAME}\n{fix}\nm, v = mean, variance\n")
    return Script(model, broken.train, broken.start, broken.step)


def of_the_generator(broken: Script, fix: str) -> Script:
    """The fix is the second of two steps."""
    return Script(broken.model, D_STEP + fix.replace(", global_step", ""), broken.start, broken.step)


NOT_RUN |= {
    "read before the second layer": Case(EARLY_SCRIPT, "BN202", "none from `second` on", at_train),
    "read before the second layer, a checkpoint alone": Case(
        EARLY_SCRIPT, "BN102", "second", at_train, use_graph=False, again=True
    ),
    "TF-slim, a checkpoint alone": Case(
        Script(SLIM), "BN101", "its beta has moved", at_train, use_graph=False, again=True
    ),
    "tf.contrib": Case(
        Script(SLIM.replace("slim.", "contrib.layers.")), "BN201", "UPDATE_OPS holds 2", at_train, again=True
    ),
    "read with a scope that nothing lies in": Case(
        Script(TF_LAYERS, READ.replace("OPS)", 'OPS, scope="towr")') + UNDER),
        "BN201",
        "UPDATE_OPS holds 2",
        at_train,
        again=True,
    ),
    "hung on the loss": Case(
        Script(
            TF_LAYERS, f'{READ}with tf.control_dependencies(update_ops):\n    loss = tf.identity(loss, "kept")\n{WIRED}'
        ),
        "BN201",
        "`kept` waits",
        at_train,
    ),
    "one network of a GAN": Case(
        Script(GAN, D_STEP + G_STEP, step=BOTH_STEPS), "BN202", "as in a GAN", of_the_generator
    ),
    "the mean's update alone is run": Case(
        Script(own(""), UNDER_OWN.replace("updates", "updates[:1]")), "BN202", "moving variance", at_train
    ),
    "Keras in eval mode": Case(
        Script(KERAS.replace("True", "False")),
        "BN204",
        "in eval mode",
        at_call_and_train(KERAS_CALL.replace("True", "False"), "updates = ", "net = logits"),
    ),
    "by hand in eval mode": Case(
        Script(NEVER_BATCH + LOSS), "BN204", "in eval mode", at_call_and_train(ON_STORED, "update_ops = [")
    ),
    "Keras's learning phase": Case(
        Script(KERAS.replace(", training=True", ""), KERAS_UPDATES + UNDER_OWN),
        "BN206",
        "`keras_learning_phase` defaults to False",
        at_step,
    ),
    "a placeholder fed False": Case(
        Script(SLIM_SWITCHED, READ + UNDER, step=NOT_FED), "BN206", "never fed True", at_step, again=True
    ),
    "a mode by its name": Case(
        Script(switched(BY_TEXT), step='session.run(train_op, {images: batch, mode: "test"})'),
        "BN206",
        '`mode == "train"`',
        at_step,
    ),
}
MISAPPLIED |= {
    "TF-slim, a decay too long": Case(
        Script(SLIM.replace("0.9", "0.9997"), READ + UNDER),
        "BN103",
        "with decay 0.9997",
        at_decay(SLIM.splitlines()[3].replace("0.9", "0.9997"), "decay"),
        again=True,
    ),
    "tf.layers, a decay too long": Case(
        Script(TF_LAYERS.replace("0.9", "0.9997"), READ + UNDER),
        "BN103",
        "with decay 0.9997",
        at_decay(TF_LAYERS.splitlines()[3].replace("0.9", "0.9997"), "momentum"),
    ),
    "Keras, a decay too long": Case(
        Script(KERAS.replace("0.9", "0.9997"), KERAS_UPDATES + UNDER_OWN),
        "BN103",
        "with decay 0.9997",
        at_decay("BatchNormalization(momentum=0.9997)", "momentum"),
        again=True,
    ),
    "by hand, a decay too long": Case(
        Script("decay = 0.9997\n" + own("").replace("0.9 ", "decay ").replace("0.1 ", "(1 - decay) "), UNDER_OWN),
        "BN103",
        "with decay 0.9997",
        at_decay("decay = 0.9997", "decay"),
    ),
    "tf.layers, a validation tower updates too": Case(
        Script(LAYERS_TOWER, READ + UNDER, step=BOTH_FED),
        "BN213",
        "`val_images`",
        at_call('net = layers.batch_normalization(net, momentum=0.9, training=True, name="bn", reuse=True)'),
        again=True,
    ),
    "Keras, a validation tower updates too": Case(
        Script(KERAS_TOWER, UNDER_OWN.replace("updates", "model.updates"), step=BOTH_FED),
        "BN213",
        "`val_images`",
        at_call("val_logits = model(val_images, training=True)"),
    ),
    "a target network without statistics": Case(
        Script(TARGET, READ + UNDER, step=COPIED), "BN203", "copied from `online/bn`", with_copied_statistics
    ),
    "updates outside their branch": Case(
        Script(CONV + OWN.format(then=IN_BRANCH) + LOSS, step=FED), "BN207", "`phase` switches", in_branch
    ),
}
