"""BN104 one-of-pair-moved."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts import remedies
from bncheck.facts.findings import Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.wording import listing, many, quoted
from bncheck.numerics.channels import names
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.fixes import of_pytorch, training_code_and_repair
from bncheck.rules.shared.frameworks import Framework, made_with
from bncheck.rules.shared.standing_still import let_move, ruled_out
from bncheck.testing import batch_norm, facts

_LIBRARIES = {
    Framework.PYTORCH: "PyTorch's own layers update",
    Framework.FLAX: "Flax's own layers update",
}
_OF_TENSORFLOW = "TF-slim, tf.layers and Keras update"
BOTH_BUFFERS = """\
# mean and variance are those of the batch
with torch.no_grad():
    self.running_mean.lerp_(mean, 0.1)
    self.running_var.lerp_(variance, 0.1)"""
BOTH = """\
# mean and variance are those of the batch; decay 0.99
update_mean = tf.assign_sub(moving_mean, 0.01 * (moving_mean - mean))
update_variance = tf.assign_sub(moving_variance, 0.01 * (moving_variance - variance))
with tf.control_dependencies([update_mean, update_variance]):
    train_op = optimizer.minimize(loss, global_step)"""


@rule(
    "BN104",
    "one-of-pair-moved",
    severity=Severity.ERROR,
    needs=Needs.VALUES,
    explained_by=("BN201", "BN202", "BN203", "BN207", "BN209", "BN211"),
    meaning=Meaning.VALUES_FAULT,
)
def check(model: Facts) -> Iterator[Evidence]:
    """Only one of a layer's moving mean and variance ever moved.

    What it detects
    ---------------
    A moving mean that is bit-exactly initial beside a moving variance that moved, or the other way round.

    Why it matters
    --------------
    The same step should write both. If one never moved, its update was lost, and the layer normalises with a mean and
    variance that do not belong together.

    How it decides
    --------------
    Exact equality with the initial value, in all channels of one vector, against at least one other value in the
    other. The cause is looked for in the graph: which of the two no op writes, no train op runs, or a Saver leaves
    out; where the train op runs both, it is the file. A layer that is fed only zeros is left out: its batch mean is
    exactly 0, and its variance falls from 1 the same way in every channel.

    Not detected
    ------------
    Pairs that both moved, one of them for a while only.

    Fix
    ---
    Run both updates with the train op. In TF-slim and tf.layers both stand in `UPDATE_OPS`; hand-written code has two
    assigns:

        {BOTH}

    This checkpoint: `bncheck repair PATH -o OUT --data images/`.

    References
    ----------
    tensorflow#11965, pkmital/tensorflow_tutorials#8. Failure modes A01, A16, D03.
    """
    for what, layers in (
        ("mean", [layer for layer in model.layers if _only_variance_moved(layer)]),
        ("variance", [layer for layer in model.layers if layer.mean.moved and layer.variance.moved is False]),
    ):
        if layers:
            other = "variance" if what == "mean" else "mean"
            start = getattr(layers[0], what).starts_at
            yield Evidence(
                layers=names(layers),
                message=(
                    f"The moving {what} is exactly {start:g} in every channel of {many(len(layers), 'layer')}, while "
                    f"the moving {other} has moved: {listing(names(layers))}.{_cause(model, layers, what)}"
                ),
                fix=_fix(model, layers),
                location=getattr(layers[0], what).name,
                measurements=(
                    Measurement(name=f"layers whose {what} never moved", value=len(layers), limit=0, unit="layers"),
                ),
            )


def _cause(model: Facts, layers: list[Layer], what: str) -> str:
    """What the graph tells of the statistic that stood still, as a sentence with a space before."""
    if model.graph is None:
        library = _LIBRARIES.get(made_with(model), _OF_TENSORFLOW)
        return f" {library} both: a hand-written update misses one, or the file they came from held only one."
    found = [u for layer in layers for u in layer.updates if u.role.value == what]
    under = dict.fromkeys(u.branch.predicate for u in found if u.branch is not None and u.train_ops)
    if under:
        return f" Its update runs only under {quoted(under)}."
    return ruled_out(model, layers) if found and all(u.train_ops for u in found) else ""


def _fix(model: Facts, layers: list[Layer]) -> str:
    if of_pytorch(model):
        return training_code_and_repair(model, BOTH_BUFFERS, note="in a layer of your own")
    if made_with(model, layers) is Framework.FLAX:
        return training_code_and_repair(model, remedies.THREAD_STATISTICS)
    if model.graph is None and made_with(model, layers) is not Framework.KERAS:
        return training_code_and_repair(model, BOTH)
    return let_move(model, layers)


def _only_variance_moved(layer: Layer) -> bool:
    """Whether only the variance moved, and not as it does on an input of zeros: alike in every channel."""
    fed_zeros = layer.mean.starts_at == 0 and layer.variance.constant is not None
    return bool(layer.mean.moved is False and layer.variance.moved and not fed_zeros)


def clean() -> tuple[Facts, ...]:
    """Both moved; neither moved; an input of zeros; statistics that could not be read."""
    return (
        facts(batch_norm("bn")),
        facts(batch_norm("bn", mean=0.0, variance=1.0)),
        facts(batch_norm("zeros", mean=0.0, variance=0.5)),
        facts(batch_norm("batch_only", mean=None, variance=None)),
    )


def broken() -> tuple[Facts, ...]:
    """The mean stood still; the variance stood still."""
    return (
        facts(batch_norm("bn", mean=0.0, variance=[2.0, 3.0, 1.5, 0.8])),
        facts(batch_norm("bn", mean=[0.2, 0.1, -0.3, 0.4], variance=1.0)),
    )
