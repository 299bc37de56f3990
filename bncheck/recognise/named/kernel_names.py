"""Which kernel stands right before a layer, where names and channels leave no doubt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping

from bncheck.facts.layers import Layer
from bncheck.facts.record import replace
from bncheck.numerics.kernel_layouts import output_channels
from bncheck.recognise.auxiliary import SHADOW
from bncheck.recognise.kernel_sizes import linears_before
from bncheck.sources.raw import RawTensor

_KERNELS_READ = 256 << 20
"""Bytes of kernels that are read in all: a checkpoint of 100 GB is to cost no more than a small one."""

_INNER = re.compile(r"(?:BatchNorm|BatchNormalization|batch_normalization|batch_norm|batchnorm|bn|BN|norm)(?:_?\d+)?")
"""A scope inside that of its convolution: `conv1/BatchNorm`."""
_AFFIXED = (re.compile(r"(.+?)[_-](?:bn|BN|batchnorm|BatchNorm|batch_norm)"), re.compile(r"(?:bn|BN)_(.+)"))
"""A scope beside it, called after it: `conv1_bn`, `bn_Conv1`."""
_LEAVES = (
    (("pointwise_weights", "pointwise_kernel"), "Conv2D"),
    (("depthwise_weights", "depthwise_kernel"), "DepthwiseConv2dNative"),
    (("weights", "kernel", "W", "w", "filter", "filters"), ""),
)
"""Names of kernels and their op, "" where the rank tells; of a separable convolution the pointwise one comes last."""
_BY_RANK = {2: "MatMul", 3: "Conv2D", 4: "Conv2D", 5: "Conv3D"}
_TRANSPOSED = {4: "Conv2DBackpropInput", 5: "Conv3DBackpropInputV2"}
_TRANSPOSED_SCOPE = re.compile(r"transpose|deconv|upconv", re.IGNORECASE)


def with_kernels(layers: list[Layer], tensors: Mapping[str, RawTensor], paths: Mapping[str, str]) -> list[Layer]:
    """Layers with the kernel right before them; `paths` gives the key of a path. Raises ReadError.

    Left out: a layer whose name fits no kernel or several, and a kernel that fits several layers.
    """
    scopes = _kernels_by_scope(paths)
    found = [_kernel(layer, tensors, scopes, paths) for layer in layers]
    claims = Counter(kernel[1] for kernel in found if kernel is not None)
    places = [n for n, kernel in enumerate(found) if kernel is not None and claims[kernel[1]] == 1]
    asked = [
        (path.rpartition("/")[0], op, tensors[paths[path]]) for op, path in filter(None, (found[n] for n in places))
    ]
    done = list(layers)
    for place, linear in zip(places, linears_before(asked, tensors, limit=_KERNELS_READ), strict=True):
        shadow = linear.kernel + SHADOW
        average = {"kernel": shadow} if shadow in tensors else {}
        done[place] = replace(done[place], linear=linear, averaged={**done[place].averaged, **average})
    return done


def _kernels_by_scope(paths: Iterable[str]) -> dict[str, set[str]]:
    """Scope -> the kernels in it, by their last names."""
    known = {leaf for leaves, _ in _LEAVES for leaf in leaves}
    found: dict[str, set[str]] = {}
    for path in paths:
        scope, separator, leaf = path.rpartition("/")
        if separator and leaf in known:
            found.setdefault(scope, set()).add(leaf)
    return found


def _kernel(
    layer: Layer, tensors: Mapping[str, RawTensor], scopes: Mapping[str, Container[str]], paths: Mapping[str, str]
) -> tuple[str, str] | None:
    """(op, path) of the one kernel that fits."""
    fitting = []
    for scope in filter(scopes.__contains__, _scopes(layer.name)):
        for leaves, op_of_leaf in _LEAVES:
            kernels = [f"{scope}/{leaf}" for leaf in leaves if leaf in scopes[scope]]
            for path in kernels:
                shape = tensors[paths[path]].shape
                op = op_of_leaf or _op(scope, shape, layer.channels)
                if op and output_channels(shape, op) == layer.channels:
                    fitting.append((op, path))
            if kernels and op_of_leaf == "Conv2D":
                break
    return fitting[0] if len(fitting) == 1 else None


def _scopes(name: str) -> list[str]:
    """Where the kernel of a layer of this name would stand."""
    outer, _, inner = name.rpartition("/")
    scopes = [name]
    if outer and _INNER.fullmatch(inner):
        scopes.append(outer)
    for affix in _AFFIXED:
        match = affix.fullmatch(inner)
        if match:
            scopes.append(f"{outer}/{match[1]}" if outer else match[1])
    return scopes


def _op(scope: str, shape: tuple[int, ...], channels: int | None) -> str:
    rank = len(shape)
    if rank in _TRANSPOSED and _TRANSPOSED_SCOPE.search(scope) and shape[-2] == channels:
        return _TRANSPOSED[rank]
    return _BY_RANK.get(rank, "")
