"""Protobuf messages from one line each, in a descriptor pool of their own: no generated code ties them to a release.

A message is "name:type:number" of its fields: "*" repeats, "A>B" maps, a capital is a message, "DT" the enum DataType.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_SCALARS = descriptor_pb2.FieldDescriptorProto


def build_pool(
    package: str, messages: Mapping[str, str], *, unions: Mapping[str, str], data_types: Sequence[str] = ()
) -> descriptor_pool.DescriptorPool:
    """A pool with these messages; `unions` names the ones whose fields exclude each other, and the union's name.

    `data_types`: names of DataType in the order of their numbers; each has a reference type, 100 above it.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    if data_types:
        enum = file.enum_type.add(name="DataType")
        for number, name in enumerate(data_types):
            enum.value.add(name=f"DT_{name}", number=number)
            if number:
                enum.value.add(name=f"DT_{name}_REF", number=number + 100)
        enum.value.sort(key=lambda value: value.number)
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for spec in fields.split():
            _field(message, spec, package)
        if message_name in unions:
            message.oneof_decl.add(name=unions[message_name])
            for field in message.field:
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def message_class(pool: descriptor_pool.DescriptorPool, package: str, name: str) -> Any:
    """The class of one message of a pool."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))


def _field(message: descriptor_pb2.DescriptorProto, spec: str, package: str) -> None:
    name, kind, number = spec.split(":")
    field = message.field.add(name=name, number=int(number), label=_SCALARS.LABEL_OPTIONAL)
    if kind.startswith("*"):
        field.label = _SCALARS.LABEL_REPEATED
        kind = kind[1:]
    if ">" in kind:
        key, value = kind.split(">")
        entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _field(entry, f"key:{key}:1", package)
        _field(entry, f"value:{value}:2", package)
        field.label = _SCALARS.LABEL_REPEATED
        field.type = _SCALARS.TYPE_MESSAGE
        field.type_name = f".{package}.{message.name}.{entry.name}"
    elif kind == "DT":
        field.type = _SCALARS.TYPE_ENUM
        field.type_name = f".{package}.DataType"
    elif kind[0].isupper():
        field.type = _SCALARS.TYPE_MESSAGE
        field.type_name = f".{package}.{kind}"
    else:
        field.type = getattr(_SCALARS, f"TYPE_{kind.upper()}")
