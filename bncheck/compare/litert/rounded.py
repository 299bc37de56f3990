"""How much of a quantized file is quantized: schemes leave out what they do not know, or what is too small."""

from __future__ import annotations

from bncheck.compare.litert.net import CARRIERS, Net
from bncheck.facts.measurements import Rounded
from bncheck.recognise.lite.values import INTEGERS


def rounded(net: Net) -> Rounded:
    """Counts kernels by the type that they are stored in, operators by that of what they give."""
    kernels = [tensor.dtype for operator in net.graph.operators if (tensor := net.kernel_tensor(operator)) is not None]
    computed = [
        [net.tensor(number) for number in net.data_outputs(operator)]
        for operator in net.graph.operators
        if operator.kind not in CARRIERS
    ]
    outputs = [tensors for tensors in computed if tensors]
    return Rounded(
        kernels=sum(dtype != "float32" for dtype in kernels),
        of_kernels=len(kernels),
        operators=sum(
            any(tensor.dtype in INTEGERS and tensor.quantization is not None for tensor in tensors)
            for tensors in outputs
        ),
        of_operators=len(outputs),
    )
