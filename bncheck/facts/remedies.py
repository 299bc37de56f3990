"""Remedies that several rules give, as code for the training script; each knows the framework that it speaks to.

Findings recommend them, and a line `{NAME}` in a rule's page stands for the remedy of that name.
"""

from __future__ import annotations

UPDATES = "tf.get_collection(tf.GraphKeys.UPDATE_OPS)"
"""TF1, where layers queue their updates: TF-slim, tf.layers, tf.contrib."""
COLLECT = f"update_ops = {UPDATES}"
COLLECT_OF_TOWER = f'{COLLECT[:-1]}, scope="tower_0")'

UNDER_UPDATES = """\
with tf.control_dependencies(update_ops):
    train_op = optimizer.minimize(loss, global_step)"""
"""TF1, `update_ops` being at hand."""

WIRE_UPDATES = f"""\
# after the whole model is built
{COLLECT}
{UNDER_UPDATES}"""
"""TF1: tf.layers, TF-slim with a raw optimizer, tf.contrib."""


def wire_collection(name: str, *, beside_others: bool = False) -> str:
    """TF1, where the updates lie in a collection of one's own, or some of them do."""
    own = f'tf.get_collection("{name}")'
    return WIRE_UPDATES.replace(UPDATES, f"{UPDATES} + {own}" if beside_others else own)


WIRE_KERAS = """\
# `images` is the tensor the model was called on
updates = model.get_updates_for(images) + model.get_updates_for(None)
with tf.control_dependencies(updates):
    train_op = optimizer.minimize(loss, global_step)"""
"""tf.keras layers in a TF1 graph, which by design stay out of UPDATE_OPS."""

WIRE_PER_NETWORK = f"""\
d_updates = {UPDATES[:-1]}, scope="discriminator")
with tf.control_dependencies(d_updates):
    # the same for the generator, with its scope
    d_train = d_optimizer.minimize(d_loss, var_list=d_variables)"""
"""Several train ops, each with its own networks."""

UPDATE_ONCE = f"""\
# TF-slim, tf.layers: the updates of one tower only
{COLLECT_OF_TOWER}
# Keras: one call, on the joined batch
a, b = tf.split(model(tf.concat([a, b], axis=0), training=True), 2)"""
"""Several updates of one layer in a step."""

LOAD_ALL = """\
# TF-slim: all variables, not only the trainable ones
tf.train.Saver(slim.get_model_variables()).restore(session, path)
# Keras: without by_name, or with every layer named as in the file
model.load_weights(path)
# PyTorch
model.load_state_dict(torch.load(path, weights_only=True), strict=True)
# Flax, with its collection `batch_stats`
variables = flax.serialization.from_bytes(variables, open(path, "rb").read())"""
"""Gamma, beta and the statistics, with the weights that they belong to."""

CHOSEN_MODE = """\
# TF-slim
net = slim.batch_norm(net, is_training=is_training)
# tf.layers
net = tf.layers.batch_normalization(net, training=is_training)
# Keras
x = tf.keras.layers.BatchNormalization()(x, training=training)"""
"""A layer of the framework's own, which keeps statistics and brings its updates along."""

CALL_KERAS = "logits = model(images, training=True)"

TRAIN_MODE = f"""\
# TF-slim
net = slim.batch_norm(net, is_training=True)
# tf.layers: the default is False
net = tf.layers.batch_normalization(net, training=True)
# Keras, in a custom loop
{CALL_KERAS}
# PyTorch, before every epoch; eval() is for validation alone
model.train()"""
"""The training graph, or training step, with batch statistics."""

EVAL_MODE = """\
# TF-slim: build a new graph, restore into it, then freeze it
with slim.arg_scope([slim.batch_norm], is_training=False):
    logits = model(images)
# tf.layers
net = tf.layers.batch_normalization(net, training=False)
# Keras: without training=True in any call
model.export("saved_model")
# PyTorch
model.eval()
torch.onnx.export(model, (images,), "model.onnx")"""
"""A graph for serving, built for it."""

TRACED_IN_EVAL_MODE = """\
model.eval()
torch.jit.trace(model, (images,)).save("model.pt")"""
SCRIPTED_IN_EVAL_MODE = """\
model.eval()
torch.jit.script(model).save("model.pt")"""
"""TorchScript files for serving."""

EVAL_MODE_FROZEN = """\
# TF-slim
net = slim.batch_norm(net, is_training=False)
# tf.layers
net = tf.layers.batch_normalization(net, training=False)
# Keras
x = base(x, training=False)
# PyTorch, after every model.train()
layer.eval()
# Flax
net = nn.BatchNorm(use_running_average=True)(net)"""
"""A frozen part of a network that is trained."""

EVAL_MODE_COPY = """\
# TF-slim
net = slim.batch_norm(net, is_training=False, scope="bn", reuse=True)
# tf.layers
net = tf.layers.batch_normalization(net, training=False, name="bn", reuse=True)
# Keras
val_logits = model(val_images, training=False)"""
"""A second application, for validation, of the layer `bn`."""

CONSTANT_MODE = """\
# TF-slim, tf.layers: is_training is a Python bool, not a placeholder
with tf.Graph().as_default():
    logits = model(images, is_training=False)
    tf.train.Saver().restore(session, checkpoint)
# Keras in TF1: before the model is built or loaded
tf.keras.backend.set_learning_phase(0)"""
"""A graph whose mode no one can feed."""

QUANTIZE = """\
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = calibration"""
QUANTIZE_16X8 = f"""\
{QUANTIZE}
converter.target_spec.supported_ops = [
    tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
]"""
"""TFLite: weights of 8 bits and one scale a channel; in the second, activations of 16 bits and a bias of 64."""
KEEP_IN_FLOAT = """\
# Interpreter: from ai_edge_litert.interpreter
names = [t["name"] for t in Interpreter("model.tflite").get_tensor_details()]
kept = [name for name in names if any(part in name for part in parts)]
debugger = tf.lite.experimental.QuantizationDebugger(
    converter=converter,
    debug_dataset=calibration,
    debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=kept),
)
open("model.tflite", "wb").write(debugger.get_nondebug_quantized_model())"""
"""TFLite: converts once more and leaves out of quantization the operators whose output tensors have one of `parts` in
their names, which are those of the file converted before."""

UPDATE_BN = "torch.optim.swa_utils.update_bn(training_loader, model)"
"""PyTorch's own re-estimation: one pass over training data in train mode, without gradients."""

AVERAGE_BUFFERS = "averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)"
"""PyTorch: an average of weights that takes the statistics along."""

THREAD_STATISTICS = """\
logits, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
variables = {**variables, **updates}"""
"""Flax: what the layers return of their statistics has to be kept; `use_running_average=not train` in the module."""
ESTIMATE_IN_FLAX = """\
for images in training_images:
    _, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
    variables = {**variables, **updates}"""
"""The same over training data, without a step of the optimizer."""

NOTHING = "None needed if this is intended."
CAUSE_TOLD = "# see the findings on values and graph for the cause"
"""In place of code, where a measurement shows what other findings explain."""
