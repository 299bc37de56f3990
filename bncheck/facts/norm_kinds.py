"""What sets a batch norm apart from the plain one."""

from __future__ import annotations

from enum import Enum


class NormKind(Enum):
    """How a batch norm takes its moments and uses them in training; the value ends a sentence about it."""

    PLAIN = "is plain batch norm"
    RENORMALISED = "is batch renormalisation (renorm=True)"
    GHOST = "takes its moments over parts of the batch (virtual_batch_size)"
    SEVERAL_AXES = "keeps several axes, such as axis=[1, 3]"


KERAS_1_MODE_2 = "a Keras 1 batch norm with mode=2 always uses the batch's own statistics"
"""Why such a layer has no moving statistics."""
