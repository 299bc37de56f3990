"""ONNX's messages, as far as bncheck reads them; numbers of fields as in onnx/onnx.proto."""

from __future__ import annotations

from bncheck.sources.descriptors import build_pool, message_class

_PACKAGE = "bncheck_onnx"
_MESSAGES = {
    "StringStringEntryProto": "key:string:1 value:string:2",
    "TensorProto": (
        "dims:*int64:1 data_type:int32:2 float_data:*float:4 int32_data:*int32:5 int64_data:*int64:7 name:string:8 "
        "raw_data:bytes:9 double_data:*double:10 uint64_data:*uint64:11 external_data:*StringStringEntryProto:13 "
        "data_location:int32:14"
    ),
    "AttributeProto": (
        "name:string:1 f:float:2 i:int64:3 s:bytes:4 t:TensorProto:5 g:GraphProto:6 floats:*float:7 ints:*int64:8 "
        "graphs:*GraphProto:11 ref_attr_name:string:21"
    ),
    "NodeProto": (
        "input:*string:1 output:*string:2 name:string:3 op_type:string:4 attribute:*AttributeProto:5 domain:string:7 "
        "overload:string:8"
    ),
    "Dimension": "dim_value:int64:1",
    "TensorShapeProto": "dim:*Dimension:1",
    "Tensor": "elem_type:int32:1 shape:TensorShapeProto:2",
    "TypeProto": "tensor_type:Tensor:1",
    "ValueInfoProto": "name:string:1 type:TypeProto:2",
    "GraphProto": (
        "node:*NodeProto:1 name:string:2 initializer:*TensorProto:5 input:*ValueInfoProto:11 output:*ValueInfoProto:12"
    ),
    "FunctionProto": (
        "name:string:1 input:*string:4 output:*string:5 node:*NodeProto:7 opset_import:*OperatorSetIdProto:9 "
        "domain:string:10 attribute_proto:*AttributeProto:11 overload:string:13"
    ),
    "OperatorSetIdProto": "domain:string:1 version:int64:2",
    "ModelProto": (
        "ir_version:int64:1 producer_name:string:2 producer_version:string:3 graph:GraphProto:7 "
        "opset_import:*OperatorSetIdProto:8 functions:*FunctionProto:25"
    ),
}
_POOL = build_pool(_PACKAGE, _MESSAGES, unions={})
ModelProto = message_class(_POOL, _PACKAGE, "ModelProto")
TensorProto = message_class(_POOL, _PACKAGE, "TensorProto")
MESSAGES = tuple(_MESSAGES)

DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
}
"""TensorProto.DataType -> name of the element type."""
