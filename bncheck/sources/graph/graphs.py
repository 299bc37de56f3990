"""`.meta` (MetaGraphDef), `.pb` (GraphDef) and their text forms -> RawGraph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from bncheck.facts.errors import Malformed, TooLarge, Truncated, UnknownFormat
from bncheck.facts.formats import FileKind, Format
from bncheck.sources import files
from bncheck.sources.graph import protos
from bncheck.sources.raw import RawGraph, RawModel, RawSignature

GRAPH_DEF, META_GRAPH = Format(FileKind.GRAPH_DEF), Format(FileKind.META_GRAPH)

MAX_BYTES = (1 << 31) - 1
"""protobuf's own limit for one message."""

_TEXT_START = re.compile(
    rb"\A(\xef\xbb\xbf)?(\s|#[^\n]*\n)*(node|library|versions|version|meta_info_def|graph_def|saver_def|collection_def|"
    rb"signature_def|object_graph_def|saved_model_schema_version|meta_graphs)\s*[:{]"
)
_TEXT_META = re.compile(rb"^(graph_def|meta_info_def|saver_def|collection_def)\s*[:{]", re.MULTILINE)
_OP_NAME = re.compile(r"\A[A-Za-z_>][A-Za-z0-9_>.]*\Z")
_VARIABLE_COLLECTION = re.compile(r"variables\Z")


def matches(path: Path, head: bytes) -> bool:
    """Whether the content starts as a GraphDef or MetaGraphDef, binary or text."""
    del path
    return _TEXT_START.match(head) is not None or (head[:1] in (b"\x0a", b"\x12", b"\x22") and head[:4] != b"\n\n\n\n")


def read_graph(path: Path) -> RawModel:
    """Reads one `.meta`, `.pb` or text form; raises ReadError."""
    content = read_bytes(path)
    if _TEXT_START.match(content[:4096]):
        return _from_text(path, content)
    if looks_like_text(content):
        raise UnknownFormat(path, "a text file, not a TensorFlow graph", hint="expected a .meta, .pb or .pbtxt")
    kind = graph_kind(path, content)
    message = kind()
    parse(path, message, content)
    if kind is protos.GraphDef:
        return RawModel(path=path, format=GRAPH_DEF, graphs=(graph_def(path, message),))
    return RawModel(path=path, format=META_GRAPH, graphs=(meta_graph(path, message),))


def read_bytes(path: Path) -> bytes:
    """The whole file, after its size was checked against protobuf's limit. Raises TooLarge, NotFound, Unreadable."""
    with files.opened(path) as (file, size):
        if size > MAX_BYTES:
            raise TooLarge(path, f"is {size:,} bytes, but protobuf messages end at {MAX_BYTES:,}")
        return file.read(min(size, MAX_BYTES) + 1)  # as many bytes are taken of memory


def looks_like_text(content: bytes) -> bool:
    """Whether the start of the file is printable ASCII, as no binary message's is."""
    head = content[:256]
    return bool(head) and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)


def fields(path: Path, content: bytes) -> Iterator[tuple[int, int, int]]:
    """(field number, wire type, offset) of the top-level fields; raises Truncated or Malformed at the first bad one."""
    position, end = 0, len(content)
    while position < end:
        start = position
        tag, position = _varint(path, content, position)
        number, wire = tag >> 3, tag & 7
        if number == 0 or wire in (3, 4, 6, 7):
            raise Malformed(path, "not a protobuf message: impossible field", offset=start)
        if wire == 0:
            _, position = _varint(path, content, position)
        elif wire == 2:
            length, position = _varint(path, content, position)
            position += length
        else:
            position += 8 if wire == 1 else 4
        if position > end:
            raise Truncated(path, f"field {number} runs {position - end:,} bytes past the end", offset=start)
        yield number, wire, start


def _varint(path: Path, content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    start = position
    while shift < 64:
        if position >= len(content):
            raise Truncated(path, "ends inside a number", offset=start)
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise Malformed(path, "not a protobuf message: a number of more than 64 bits", offset=start)


def graph_kind(path: Path, content: bytes) -> Any:
    """`protos.GraphDef` or `protos.MetaGraphDef`, told by the top-level fields. Raises Truncated, UnknownFormat."""
    nodes = 0
    others: set[int] = set()
    for number, wire, offset in fields(path, content):
        if wire != 2 and not (number == 3 and wire == 0):
            raise UnknownFormat(path, "is neither a GraphDef nor a MetaGraphDef", offset=offset)
        if number == 1:
            nodes += 1
            if nodes > 1:
                return protos.GraphDef
        else:
            others.add(number)
    if not nodes and not others:
        raise Truncated(path, "is empty", offset=0)
    if nodes == 1 and not others & {3, 5, 7}:
        single = protos.GraphDef()
        try:
            single.ParseFromString(content)
        except DecodeError:
            return protos.MetaGraphDef
        if single.node[0].name and _OP_NAME.match(single.node[0].op):
            return protos.GraphDef
    return protos.MetaGraphDef


def parse(path: Path, message: Any, content: bytes) -> None:
    """Parses `content` into `message`; raises Malformed with the offset of the top-level field that does not parse."""
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise Malformed(
            path, "is damaged: a message inside does not parse", offset=_broken_field(path, content)
        ) from error


def _broken_field(path: Path, content: bytes) -> int:
    start = 0
    for _, _, offset in fields(path, content):
        start = offset
    return start


def graph_def(path: Path, message: Any) -> RawGraph:
    """One GraphDef, frozen or bare."""
    return RawGraph(path=path, format=GRAPH_DEF, graph_def=message)


def meta_graph(path: Path, message: Any, form: Format = META_GRAPH) -> RawGraph:
    """One MetaGraphDef, of a file of its own or of a SavedModel; raises Malformed where it holds no graph."""
    if not message.graph_def.node and not message.graph_def.library.function:
        raise Malformed(path, "holds no graph: not a MetaGraph, or truncated", offset=0)
    collections: dict[str, tuple[str, ...]] = {}
    initializers: dict[str, str] = {}
    for key in sorted(message.collection_def):
        value = message.collection_def[key]
        if value.node_list.value:
            collections[key] = tuple(value.node_list.value)
        elif _VARIABLE_COLLECTION.search(key) and value.bytes_list.value:
            collections[key], found = _variables(path, value.bytes_list.value)
            initializers |= found
    return RawGraph(
        path=path,
        format=form,
        graph_def=message.graph_def,
        tags=tuple(message.meta_info_def.tags),
        tf_version=message.meta_info_def.tensorflow_version,
        collections=collections,
        initializers=initializers,
        signatures=tuple(_signature(name, message.signature_def[name]) for name in sorted(message.signature_def)),
        object_graph=message.object_graph_def if message.object_graph_def.nodes else None,
    )


def _variables(path: Path, values: Any) -> tuple[tuple[str, ...], dict[str, str]]:
    names: list[str] = []
    initializers: dict[str, str] = {}
    for value in values:
        variable = protos.VariableDef()
        try:
            variable.ParseFromString(value)
        except DecodeError as error:
            raise Malformed(path, "is damaged: a variable of a collection does not parse") from error
        name = variable.variable_name.split(":")[0]
        names.append(name)
        if variable.initial_value_name:
            initializers[name] = variable.initial_value_name
    return tuple(names), initializers


def _signature(name: str, message: Any) -> RawSignature:
    return RawSignature(
        name=name,
        inputs={key: message.inputs[key].name for key in sorted(message.inputs)},
        outputs={key: message.outputs[key].name for key in sorted(message.outputs)},
    )


def _from_text(path: Path, content: bytes) -> RawModel:
    is_meta = _TEXT_META.search(content) is not None
    message = protos.MetaGraphDef() if is_meta else protos.GraphDef()
    parse_text(path, message, content)
    graph = meta_graph(path, message) if is_meta else graph_def(path, message)
    text = replace(graph.format, named=f"{graph.format} (text)")
    return RawModel(path=path, format=text, graphs=(graph,))


def parse_text(path: Path, message: Any, content: bytes) -> None:
    """Parses the text form; fields that bncheck does not know are left out. Raises Malformed with the line."""
    from google.protobuf import text_format  # noqa: PLC0415 - only text forms pay for it

    try:
        text_format.Parse(content.decode("utf-8-sig"), message, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise Malformed(path, f"does not parse as text: {error}") from error
    except RecursionError:
        raise Malformed(path, "nests messages deeper than a graph does") from None
    except UnicodeDecodeError as error:
        raise Malformed(path, "not UTF-8 text", offset=error.start) from error
