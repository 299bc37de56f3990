"""Unnamed weights of a Keras 3 file without configuration -> batch norm by what their owner is called."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator

from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Layer, Origin, Role, Vector
from bncheck.recognise.stored_vectors import absent, per_channel, unread, vector
from bncheck.sources.raw import RawKerasLayer, RawTensor

_CLASS = re.compile(r"batch_?norm", re.IGNORECASE)
_SHORT = re.compile(r"(^|[_\d])bn([_\d]|$)|bn\d*$|^bn", re.IGNORECASE)
_OTHER = re.compile(
    r"layer_?norm|group_?norm|instance_?norm|rms_?norm|auc|precision|recall|metric|positives|negatives", re.IGNORECASE
)
"""Owners that are known to be none; AUC is a metric of four vectors of one length."""

_ORDER = (Role.GAMMA, Role.BETA, Role.MEAN, Role.VARIANCE)
_WHY = "the file names no weights, their order was taken for gamma, beta, moving mean, moving variance"


def recognise_positional(stored: RawKerasLayer, channels: Container[int]) -> Iterator[Layer | Gap]:
    """The batch norm that an owner's unnamed vectors make, or a gap where that cannot be told.

    Keras stores trainable weights first, so the statistics are the last two of gamma, beta, mean, variance. Four
    vectors of one length whose owner is not called a batch norm, as attributes of one's own layers are, count where
    the length is one of `channels`, the file's kernels have it, and the last could be a variance; else they are left to
    the reader. Raises ReadError where the file is damaged.
    """
    weights = stored.weights
    called = f"{stored.class_name} {stored.path.rpartition('/')[2]}"
    if _OTHER.search(called) or len({tensor.shape for tensor in weights}) != 1 or len(weights[0].shape) != 1:
        return
    of_class, of_name = bool(_CLASS.search(called)), any(_SHORT.search(part) for part in called.split())
    before_keras_1 = all("/param_" in tensor.name for tensor in weights)
    count = len(weights)
    if count == 4 and (of_class or of_name or before_keras_1 or _is_one(stored, channels)):
        yield _layer(stored, weights, {})
    elif count == 3 and (of_class or of_name):
        reason = "the file does not tell whether the layer's first vector is gamma or beta"
        unknown = {role: unread(role, weights[0].name, reason, shape=weights[0].shape) for role in _ORDER[:2]}
        yield _layer(stored, weights[1:], unknown)
    elif count == 2 and of_class:
        yield _layer(
            stored, weights, {role: absent(role, "the file holds the statistics alone") for role in _ORDER[:2]}
        )
    elif count == 7 and of_class:  # batch renormalisation keeps three more
        yield _layer(stored, weights[:4], {})
    elif count == 4:
        yield Gap(
            kind=GapKind.LAYER,
            where=stored.path,
            why="four unnamed vectors of one length, as a batch norm has; nothing else says that it is one",
            how="check the .keras file or the model itself, which name the layer's class",
        )


def kernel_channels(layers: Iterable[RawKerasLayer]) -> frozenset[int]:
    """Numbers of channels that kernels read or give: batch norm lies before or after one."""
    shapes = {tensor.shape for layer in layers for tensor in layer.weights if len(tensor.shape) > 1}
    return frozenset(size for shape in shapes for size in (shape[-1], shape[-2], shape[-2] * shape[-1]))


def _is_one(stored: RawKerasLayer, channels: Container[int]) -> bool:
    """Whether four vectors of a kernel's channels end in what could be a variance: not negative, and not all 0."""
    last = stored.weights[-1]
    if last.shape[0] not in channels or last.unavailable is not None or stored.path.startswith("metrics/"):
        return False
    values = per_channel(last)
    return bool(values.any()) and not bool((values < 0).any())


def _layer(stored: RawKerasLayer, weights: tuple[RawTensor, ...], known: dict[Role, Vector]) -> Layer:
    roles = [role for role in _ORDER if role not in known]
    vectors = known | {role: vector(role, tensor) for role, tensor in zip(roles, weights, strict=True)}
    return Layer(
        name=stored.path,
        origin=Origin.NAME,
        mean=vectors[Role.MEAN],
        variance=vectors[Role.VARIANCE],
        gamma=vectors[Role.GAMMA],
        beta=vectors[Role.BETA],
        channels=weights[0].shape[0],
        config={"bncheck_positional": _WHY},
    )
