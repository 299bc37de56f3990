"""TensorFlow's protobuf messages, as far as bncheck reads them, in a descriptor pool of their own.

Same message shapes and field numbers as tensorflow/core/framework and tensorflow/core/protobuf, but in package
`bncheck`, so that both live in one process and no generated code ties bncheck to one protobuf release. Fields left out
here stay in the messages as unknown bytes. `tests/sources/test_protos.py` holds every field against TensorFlow's own.
"""

from __future__ import annotations

from typing import Any

import google.protobuf

from bncheck.facts.errors import BncheckError
from bncheck.sources.descriptors import build_pool, message_class

OLDEST_PROTOBUF = "4.25"


def _check_protobuf(installed: str) -> None:
    """Raises BncheckError for protobuf 3, which lacks what the messages are made with."""
    if int(installed.split(".", maxsplit=1)[0]) < 4:
        raise BncheckError(
            f"protobuf {installed} is installed, and bncheck needs {OLDEST_PROTOBUF} or newer: "
            f"pip install 'protobuf>={OLDEST_PROTOBUF}'"
        )


_check_protobuf(google.protobuf.__version__)

_PACKAGE = "bncheck"

_DATA_TYPES = tuple(
    "INVALID FLOAT DOUBLE INT32 UINT8 INT16 INT8 STRING COMPLEX64 INT64 BOOL QINT8 QUINT8 QINT32 BFLOAT16 QINT16 "
    "QUINT16 UINT16 COMPLEX128 HALF RESOURCE VARIANT UINT32 UINT64 FLOAT8_E5M2 FLOAT8_E4M3FN FLOAT8_E4M3FNUZ "
    "FLOAT8_E4M3B11FNUZ FLOAT8_E5M2FNUZ INT4 UINT4 INT2 UINT2 FLOAT4_E2M1FN".split()
)
"""DataType, in the order of its numbers; a reference type is the number plus 100."""

_MESSAGES = {
    "Dim": "size:int64:1 name:string:2",
    "TensorShapeProto": "dim:*Dim:2 unknown_rank:bool:3",
    "TensorProto": (
        "dtype:DT:1 tensor_shape:TensorShapeProto:2 version_number:int32:3 tensor_content:bytes:4 float_val:*float:5 "
        "double_val:*double:6 int_val:*int32:7 string_val:*bytes:8 int64_val:*int64:10 bool_val:*bool:11 "
        "half_val:*int32:13"
    ),
    "ListValue": (
        "s:*bytes:2 i:*int64:3 f:*float:4 b:*bool:5 type:*DT:6 shape:*TensorShapeProto:7 tensor:*TensorProto:8 "
        "func:*NameAttrList:9"
    ),
    "AttrValue": (
        "list:ListValue:1 s:bytes:2 i:int64:3 f:float:4 b:bool:5 type:DT:6 shape:TensorShapeProto:7 "
        "tensor:TensorProto:8 placeholder:string:9 func:NameAttrList:10"
    ),
    "NameAttrList": "name:string:1 attr:string>AttrValue:2",
    "NodeDef": "name:string:1 op:string:2 input:*string:3 device:string:4 attr:string>AttrValue:5",
    "ArgDef": "name:string:1 type:DT:3 type_attr:string:4 number_attr:string:5 type_list_attr:string:6",
    "OpDef": "name:string:1 input_arg:*ArgDef:2 output_arg:*ArgDef:3 control_output:*string:20",
    "ArgAttrs": "attr:string>AttrValue:1",
    "FunctionDef": (
        "signature:OpDef:1 node_def:*NodeDef:3 ret:string>string:4 attr:string>AttrValue:5 "
        "control_ret:string>string:6 arg_attr:uint32>ArgAttrs:7"
    ),
    "FunctionDefLibrary": "function:*FunctionDef:1",
    "GraphDef": "node:*NodeDef:1 library:FunctionDefLibrary:2 version:int32:3",
    "NodeList": "value:*string:1",
    "BytesList": "value:*bytes:1",
    "CollectionDef": "node_list:NodeList:1 bytes_list:BytesList:2",
    "TensorInfo": "name:string:1 dtype:DT:2 tensor_shape:TensorShapeProto:3",
    "SignatureDef": "inputs:string>TensorInfo:1 outputs:string>TensorInfo:2 method_name:string:3",
    "MetaInfoDef": "meta_graph_version:string:1 tags:*string:4 tensorflow_version:string:5",
    "SaverDef": "filename_tensor_name:string:1 save_tensor_name:string:2 restore_op_name:string:3 sharded:bool:5",
    "VariableDef": (
        "variable_name:string:1 initializer_name:string:2 snapshot_name:string:3 "
        "save_slice_info_def:SaveSliceInfoDef:4 is_resource:bool:5 initial_value_name:string:6 trainable:bool:7"
    ),
    "SaveSliceInfoDef": "full_name:string:1 full_shape:*int64:2 var_offset:*int64:3 var_shape:*int64:4",
    "ObjectReference": "node_id:int32:1 local_name:string:2",
    "SavedVariable": "dtype:DT:1 shape:TensorShapeProto:2 trainable:bool:3 name:string:6",
    "SavedUserObject": "identifier:string:1 metadata:string:3",
    "SavedFunction": "concrete_functions:*string:1",
    "SavedBareConcreteFunction": "concrete_function_name:string:1",
    "SavedObject": (
        "children:*ObjectReference:1 user_object:SavedUserObject:4 function:SavedFunction:6 variable:SavedVariable:7 "
        "bare_concrete_function:SavedBareConcreteFunction:8"
    ),
    "SavedConcreteFunction": "bound_inputs:*int32:2",
    "SavedObjectGraph": "nodes:*SavedObject:1 concrete_functions:string>SavedConcreteFunction:2",
    "MetaGraphDef": (
        "meta_info_def:MetaInfoDef:1 graph_def:GraphDef:2 saver_def:SaverDef:3 collection_def:string>CollectionDef:4 "
        "signature_def:string>SignatureDef:5 object_graph_def:SavedObjectGraph:7"
    ),
    "SavedModel": "saved_model_schema_version:int64:1 meta_graphs:*MetaGraphDef:2",
    "SerializedTensor": "name:string:1 full_name:string:2 checkpoint_key:string:3",
    "SlotVariableReference": "original_variable_node_id:int32:1 slot_name:string:2 slot_variable_node_id:int32:3",
    "TrackableObject": (
        "children:*ObjectReference:1 attributes:*SerializedTensor:2 slot_variables:*SlotVariableReference:3"
    ),
    "TrackableObjectGraph": "nodes:*TrackableObject:1",
}

_UNIONS = {"AttrValue": "value", "CollectionDef": "kind"}
"""Messages whose fields exclude each other; it makes a false or a zero that is set survive writing."""

_POOL = build_pool(_PACKAGE, _MESSAGES, unions=_UNIONS, data_types=_DATA_TYPES)


def descriptor(name: str) -> Any:
    """Descriptor of one of MESSAGES."""
    return _POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}")


def _message(name: str) -> Any:
    return message_class(_POOL, _PACKAGE, name)


GraphDef = _message("GraphDef")
MetaGraphDef = _message("MetaGraphDef")
SavedModel = _message("SavedModel")
VariableDef = _message("VariableDef")
TrackableObjectGraph = _message("TrackableObjectGraph")
TensorProto = _message("TensorProto")
MESSAGES = tuple(_MESSAGES)


def data_type(number: int) -> str:
    """Name of a DataType number, without "DT_" and in lower case ("float", "half"); reference types as their base."""
    base = number - 100 if number > 100 else number
    return _DATA_TYPES[base].lower() if 0 <= base < len(_DATA_TYPES) else f"type {number}"
