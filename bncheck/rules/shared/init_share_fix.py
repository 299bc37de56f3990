"""What to do about statistics that still hold their initial value: in the next run, and in this checkpoint."""

from __future__ import annotations

import math

from bncheck.facts.layers import Facts
from bncheck.facts.wording import percent, quoted
from bncheck.rules.shared.fixes import (
    indented,
    keeps_its_statistics,
    repair,
    this_checkpoint,
    training_code,
)
from bncheck.rules.shared.frameworks import Framework, in_framework, made_with

DECAYS = (0.9, 0.95, 0.97, 0.99, 0.995, 0.997, 0.999, 0.9995, 0.9997)
"""To recommend from: tf.layers' and Keras's 0.99, TF-slim's 0.999, in models/research ResNet's 0.997 and Inception's
0.9997; those between are a guess."""
LEFT = 1e-4
"""Init share that does no harm: a tenth of what cost a MobileNetV2 of 52 layers 6 points."""


def shorter_decay(updates: int, left: float = LEFT) -> float:
    """The largest decay in use that leaves less than `left` after so many updates; 0.9 where none does."""
    return max((decay for decay in DECAYS if decay**updates < left), default=0.9)


def forget_sooner(model: Facts, decay: float) -> str:
    """The training code with that decay."""
    framework = made_with(model)
    if framework is Framework.OWN:
        updates = [update for layer in model.layers for update in layer.updates]
        was = next((f" of {update.decay:g}" for update in updates if update.decay is not None), "")
        named = quoted(update.name for update in updates)
        code = f"decay = {decay:g}    # in place{was}, where {named} {'is' if len(updates) == 1 else 'are'} made"
        return training_code(code, note="a decay short enough for this run")
    code = in_framework(
        f"# TF-slim\nnet = slim.batch_norm(net, decay={decay:g})\n"
        f"# tf.layers\nnet = tf.layers.batch_normalization(net, momentum={decay:g})\n"
        f"# Keras\nx = tf.keras.layers.BatchNormalization(momentum={decay:g})(x)\n"
        f"# PyTorch\nlayer = torch.nn.BatchNorm2d(channels, momentum={1 - decay:g})\n"
        f"# Flax\nnet = nn.BatchNorm(use_running_average=not train, momentum={decay:g})(net)",
        framework,
    )
    return training_code(code, note="a decay short enough for this run")


def forget_and_repair(model: Facts, used: float | None = None, left: float = LEFT) -> str:
    """A decay for runs of this length or, where the one used is none, the length; and how to save this checkpoint.

    `left` is the init share that does no harm here: small variances take less. Without data where `used` and the count
    of updates are known, else with data alone.
    """
    if used is None or keeps_its_statistics(model):
        return f"{forget_sooner(model, 0.9)}\n{this_checkpoint(model)}"
    decay = shorter_decay(model.run.updates or 0, left)
    again = forget_sooner(model, decay)
    if 0 < used <= decay:
        enough = math.ceil(math.log(left) / math.log(used))
        harmless = f"less than {percent(left)} is left" if left == LEFT else "what is left does no harm"
        again = f"Train longer: with decay {used:g}, {harmless} after {enough:,} updates."
    if debias(model, used) == repair(model):
        return f"{again}\n{this_checkpoint(model)}"
    return (
        f"{again}\nThis checkpoint, without data (if decay and steps are exact), or better with images:\n"
        f"{indented(debias(model, used))}\n{indented(repair(model))}"
    )


def debias(model: Facts, decay: float | None = None) -> str:
    """The command that undoes the init share without data; it tells the decay and count that no file does."""
    told = any(layer.decay is not None for layer in model.layers)
    missing = f" --decay {'DECAY' if decay is None else f'{decay:g}'}" if not told else ""
    return repair(model, debias=f"--debias{missing}{'' if model.run.updates else ' --steps STEPS'}")
