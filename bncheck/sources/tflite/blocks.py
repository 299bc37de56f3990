"""Blockwise quantization: scales that a tensor of their own holds, one for every few elements of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bncheck.sources.raw import RawLiteTensor, RawQuantization
from bncheck.sources.tflite import schema
from bncheck.sources.tflite.flatbuffer import Table


def in_blocks(table: Table, tensor: RawLiteTensor, tensors: Sequence[RawLiteTensor]) -> RawLiteTensor:
    """The tensor with its blockwise scales, which other tensors of the subgraph hold; as it is where it has none.

    Raises Malformed for scales that are none of its subgraph, or do not fit it. Blocks along another axis than the
    last, or with zero points, which no kernel of LiteRT reads, are not read.
    """
    if tensor.data is None or tensor.quantization is not None:
        return tensor
    entry = table.table(schema.Tensor.QUANTIZATION, "the quantization")
    kind = 0 if entry is None else entry.number(schema.QuantizationParameters.DETAILS_TYPE, "B")
    details = None
    if entry is not None and kind == schema.BLOCKWISE:
        details = entry.table(schema.QuantizationParameters.DETAILS, "the blockwise quantization")
    if entry is None or details is None:
        return tensor
    number = details.number(schema.BlockwiseQuantization.SCALES, "i")
    block = details.number(schema.BlockwiseQuantization.BLOCK_SIZE, "i")
    if block < 1:
        return tensor
    if not 0 <= number < len(tensors):
        raise details.malformed(f"the scales are tensor {number} of {len(tensors)}")
    scales = tensors[number].data
    plain = details.number(schema.BlockwiseQuantization.ZERO_POINTS, "i") <= 0
    if not plain or scales is None or scales.unavailable is not None or scales.dtype not in ("float16", "float32"):
        return tensor
    *rows, columns = tensor.shape or (0,)
    if columns % block or math.prod(scales.shape) != math.prod(rows) * (columns // block):
        raise details.malformed(
            f"{list(scales.shape)} scales in blocks of {block} do not fit a tensor of {list(tensor.shape)}"
        )
    values = scales.read().astype(np.float32).reshape(*rows, columns // block)
    axis = entry.number(schema.QuantizationParameters.QUANTIZED_DIMENSION, "i")
    found = RawQuantization(scales=values, zero_points=np.zeros(values.shape, np.int64), axis=axis, block=block)
    return replace(tensor, quantization=found)
