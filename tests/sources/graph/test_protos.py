"""The private protobuf messages against TensorFlow's own descriptors."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from bncheck.sources.graph import protos

MODULES = [
    "tensorflow.core.framework.tensor_shape_pb2",
    "tensorflow.core.framework.tensor_pb2",
    "tensorflow.core.framework.attr_value_pb2",
    "tensorflow.core.framework.node_def_pb2",
    "tensorflow.core.framework.op_def_pb2",
    "tensorflow.core.framework.function_pb2",
    "tensorflow.core.framework.graph_pb2",
    "tensorflow.core.framework.variable_pb2",
    "tensorflow.core.protobuf.meta_graph_pb2",
    "tensorflow.core.protobuf.saver_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
    "tensorflow.core.protobuf.saved_object_graph_pb2",
    "tensorflow.core.protobuf.trackable_object_graph_pb2",
]


def _with_nested(descriptor: Any) -> list[Any]:
    return [descriptor, *(inner for nested in descriptor.nested_types for inner in _with_nested(nested))]


def _kind(field: Any) -> tuple[int, int, bool]:
    """Number, type, and whether it is repeated: what protobuf 7 has no `label` for, and 5 no `is_repeated`."""
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
    return field.number, field.type, repeated


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", protos.MESSAGES)
def test_every_field_is_tensorflows(name: str) -> None:
    """Each message has the names, numbers, types and labels of TensorFlow's message of the same name."""
    theirs = {}
    for module in MODULES:
        for descriptor in importlib.import_module(module).DESCRIPTOR.message_types_by_name.values():
            theirs |= {found.name: found for found in _with_nested(descriptor)}
    ours = protos.descriptor(name)
    assert ours.fields
    for field in ours.fields:
        their_field = theirs[name].fields_by_name[field.name]
        assert _kind(field) == _kind(their_field), field.name
        unions = [f.containing_oneof.name if f.containing_oneof is not None else "" for f in (field, their_field)]
        if name in ("AttrValue", "CollectionDef"):
            assert unions[0] == unions[1]


@pytest.mark.tensorflow
def test_data_types_are_tensorflows() -> None:
    """Every DataType number that TensorFlow defines has its name here."""
    types = importlib.import_module("tensorflow.core.framework.types_pb2")
    theirs = {v.number: v.name for v in types.DESCRIPTOR.enum_types_by_name["DataType"].values}
    for number, name in theirs.items():
        if number < 100:
            assert f"DT_{protos.data_type(number).upper()}" == name


def test_reference_types_read_as_their_base() -> None:
    """A reference dtype is its base type plus 100; an unknown number keeps its number."""
    assert protos.data_type(101) == "float"
    assert protos.data_type(77) == "type 77"


def test_a_false_attribute_survives_writing() -> None:
    """An attribute that is set to false is written, as TensorFlow's defaults may be true."""
    node = protos.GraphDef().node.add(name="n", op="FusedBatchNormV3")
    node.attr["is_training"].b = False
    assert node.attr["is_training"].SerializeToString() == b"\x28\x00"
