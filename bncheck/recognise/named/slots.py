"""Which checkpoint keys are an optimizer's own: slots are never taken for a layer's vectors, and tell of training."""

from __future__ import annotations

import re
from collections.abc import Container

ATTRIBUTE = "/.ATTRIBUTES/VARIABLE_VALUE"
"""What ends every key of an object-based checkpoint that holds a variable."""

_OBJECT_SLOT = "/.OPTIMIZER_SLOT/"
_KERAS_SLOT = re.compile(r"(^|/)\w*optimizer\w*/(?!_trainable_variables/)[a-z_]+/\d+(/|$)", re.IGNORECASE)
_NUMBERED = re.compile(r"(.*)/(?!_trainable_variables/)[a-z_]+/\d+", re.IGNORECASE)
_COUNTERS = ("_iterations", "iterations", "iter")
"""What only an optimizer has beside its variables, whatever the attribute that holds it is called."""
_OPTIMIZER = re.compile(
    r"(Adam|AdamW|AdamWeightDecay\w*|AMSGrad|AdaMax|Adamax|NadamOptimizer|Nadam|LazyAdam|LAMB\w*|LARS\w*|Momentum|"
    r"MomentumOptimizer|RMSProp|Adagrad|AdagradDA|Adadelta|Ftrl|ProximalAdagrad|PowerSign|AddSign|adam_[mv]|"
    r"rmsprop|momentum|Adafactor\w*|vr|vc)(_\d+)?"
)
_NO_SLOT = re.compile(
    r"(ExponentialMovingAverage|EMA|biased|local_step|average|hidden|moving_mean|moving_variance|gamma|beta|offset|"
    r"scale|weights|kernel|biases|bias)(_\d+)?"
)


def is_slot(key: str, keys: Container[str]) -> bool:
    """Whether a key is an optimizer's slot variable: by its name, or because it extends the key of a variable."""
    if _OBJECT_SLOT in key:
        return True
    if key.endswith(ATTRIBUTE):
        path = key[: -len(ATTRIBUTE)]
        numbered = _NUMBERED.fullmatch(path)
        counted = numbered is not None and any(f"{numbered[1]}/{name}{ATTRIBUTE}" in keys for name in _COUNTERS)
        return counted or _KERAS_SLOT.search(path) is not None
    parent, _, leaf = key.rpartition("/")
    if _NO_SLOT.fullmatch(leaf):
        return False
    return parent in keys or _OPTIMIZER.fullmatch(leaf) is not None or _KERAS_SLOT.search(key) is not None
