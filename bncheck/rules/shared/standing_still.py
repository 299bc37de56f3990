"""Statistics that stood still: what the graph at hand rules out as the cause, and the fix that is left."""

from __future__ import annotations

from collections.abc import Sequence

from bncheck.facts import remedies
from bncheck.facts.formats import FileKind
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.training import is_conditional, is_training_graph, roles, run_by_training
from bncheck.numerics.channels import keras_made
from bncheck.rules.shared.fixes import of_pytorch, this_checkpoint, training_code_and_repair
from bncheck.rules.shared.frameworks import Framework, in_framework
from bncheck.rules.shared.wiring_fix import per_network, trained_with, wire

KERAS_LOOP = "with tf.GradientTape() as tape:\n    loss = loss_fn(labels, model(images, training=True))"


def always_updated(model: Facts, layers: Sequence[Layer]) -> bool:
    """Whether the train op of the graph at hand runs updates of all these layers, in any mode."""
    return bool(model.graph and layers) and all(
        any(not is_conditional(update) for update in run_by_training(layer)) for layer in layers
    )


def ruled_out(model: Facts, layers: Sequence[Layer]) -> str:
    """What the graph at hand tells is not the cause, as a sentence with a space before, or nothing."""
    if not always_updated(model, layers):
        return ""
    return (
        " The wiring of this graph is fine: its train op runs every update. So the checkpoint comes from another "
        "graph, or was saved or restored without the statistics."
    )


def counters_tell(layers: Sequence[Layer]) -> str:
    """What PyTorch's counters say of statistics that stand still, as a sentence with a space before, or nothing."""
    counted = [layer.counted for layer in layers if layer.counted is not None]
    if not counted:
        return ""
    if not any(counted):
        return (
            " Their `num_batches_tracked` is 0: they never ran in train mode, or the buffers of a new model were saved "
            "with trained parameters."
        )
    return f" Yet `num_batches_tracked` is up to {max(counted):,}: the statistics were reset, or not saved with it."


def let_move(model: Facts, layers: Sequence[Layer]) -> str:
    """The training code, unless the graph shows that nothing is wrong with it, and this checkpoint."""
    if model.graph is not None and layers and all(map(_updated, layers)):
        return this_checkpoint(model)
    if of_pytorch(model):
        return training_code_and_repair(model, in_framework(remedies.TRAIN_MODE, Framework.PYTORCH))
    if model.format.kind is FileKind.FLAX:
        return training_code_and_repair(model, in_framework(remedies.THREAD_STATISTICS, Framework.FLAX))
    if is_training_graph(model) or not keras_made(model):
        code = per_network(model, layers) if trained_with(model, layers) else wire(model, layers)
        return training_code_and_repair(model, code)
    return training_code_and_repair(model, KERAS_LOOP, note="Keras, in a custom loop")


def _updated(layer: Layer) -> bool:
    """Whether a train op runs updates of both statistics."""
    return len(roles(run_by_training(layer))) == len(layer.statistics)
