"""What to do about operators that lose precision by themselves: mend each by its cause, or keep them in float."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncheck.facts import remedies
from bncheck.rules.shared.fixes import indented
from bncheck.rules.shared.quantized import cause, ruled

if TYPE_CHECKING:
    from bncheck.facts.measurements import OperatorLoss, QuantizedComparison

KEPT = 4
"""Tensors that are named."""


def mend_or_keep_in_float(worst: list[OperatorLoss], measured: QuantizedComparison) -> str:
    """A line for each cause among these operators, worst first, and the code that leaves them out of quantization."""
    kinds = {cause(operator) for operator in worst}
    advice: list[str] = []
    if any(operator.weight_per_channel is False for operator in worst):
        advice.append("Quantize with one scale per channel, the converter's default.")
    if "clipping" in kinds:
        advice.append("Clipping: calibrate on more data like those served (--calibration-batches).")
    if "bias" in kinds:
        advice.append("Shifted channels: disable dead ones before folding (bncheck explain BN404).")
    if any(ruled(operator) for operator in worst):
        advice.append(
            "A channel dominates the range: scale its gamma and beta down to the others, and the weights that read it "
            "up "
            "by\nthe same factor, if only a ReLU lies between; or use 16-bit activations (int16x8)."
        )
    given = measured.was_given
    parts = dict.fromkeys(operator.tensor if given else _stem(operator.tensor) for operator in worst[:KEPT])
    more = f"  # and {len(worst) - KEPT} more" if len(worst) > KEPT else ""
    advice.append(f"Or keep {'them' if len(worst) > 1 else 'it'} in float, by the names of output tensors:")
    named = f"parts = ({''.join(f'{part!r}, ' for part in parts).rstrip()}){more}"
    return "\n".join((*advice, indented(f"{named}\n{remedies.KEEP_IN_FLOAT}")))


def _stem(tensor: str) -> str:
    """What another conversion will call it too: the name of the linear op, last of those that were fused."""
    return tensor.rpartition(";")[2].rstrip("0123456789") or tensor
