"""Signatures of a TFLite file: by which names its inputs and outputs are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bncheck.sources.raw import RawLiteSignature, RawLiteSubgraph
from bncheck.sources.tflite import schema
from bncheck.sources.tflite.flatbuffer import Table

MAX_SIGNATURES = 1 << 10
MAX_NAMES = 1 << 16


def signatures(model: Table, subgraphs: Sequence[RawLiteSubgraph]) -> tuple[RawLiteSignature, ...]:
    """Of the root table. Raises ReadError for one that names a subgraph or a tensor that there is not."""
    return tuple(
        _signature(table, subgraphs) for table in model.tables(schema.Model.SIGNATURE_DEFS, MAX_SIGNATURES, "signature")
    )


def _signature(table: Table, subgraphs: Sequence[RawLiteSubgraph]) -> RawLiteSignature:
    graph = table.number(schema.SignatureDef.SUBGRAPH_INDEX, "I")
    if graph >= len(subgraphs):
        raise table.malformed(f"subgraph {graph} of {len(subgraphs)}")
    tensors = len(subgraphs[graph].tensors)
    return RawLiteSignature(
        key=table.string(schema.SignatureDef.SIGNATURE_KEY, "the key"),
        graph=graph,
        inputs=_names(table, schema.SignatureDef.INPUTS, "input", tensors),
        outputs=_names(table, schema.SignatureDef.OUTPUTS, "output", tensors),
    )


def _names(table: Table, field_id: int, what: str, tensors: int) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for entry in table.tables(field_id, MAX_NAMES, f"{what} of {table.what},"):
        number = entry.number(schema.TensorMap.TENSOR_INDEX, "I")
        if number >= tensors:
            raise entry.malformed(f"tensor {number} of {tensors}")
        found[entry.string(schema.TensorMap.NAME, "the name")] = number
    return found
