"""Reading `.meta`, `.pb` and text forms: what is accepted, and how damage is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bncheck.facts.errors import Malformed, NotFound, ReadError, Truncated, UnknownFormat
from bncheck.sources.graph import protos
from bncheck.sources.graph.graphs import read_graph


def graph_def(nodes: int = 2) -> Any:
    """A chain of placeholders."""
    message = protos.GraphDef()
    for number in range(nodes):
        message.node.add(name=f"n{number}", op="Placeholder")
    return message


def meta(*, tags: tuple[str, ...] = ()) -> Any:
    """A MetaGraph with an update collection and a variable."""
    message = protos.MetaGraphDef()
    message.meta_info_def.tensorflow_version = "1.15.0"
    message.meta_info_def.tags.extend(tags)
    message.graph_def.CopyFrom(graph_def())
    message.collection_def["update_ops"].node_list.value.append("n0")
    variable = protos.VariableDef(variable_name="v:0", initial_value_name="n1:0", trainable=True)
    message.collection_def["trainable_variables"].bytes_list.value.append(variable.SerializeToString())
    return message


def write(path: Path, content: bytes) -> Path:
    """Writes and gives the path."""
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("nodes", [1, 2, 40])
def test_graph_def_is_told_from_meta_graph(nodes: int, tmp_path: Path) -> None:
    """A GraphDef of one node or many is a GraphDef, whatever its suffix."""
    model = read_graph(write(tmp_path / "model.meta", graph_def(nodes).SerializeToString()))
    assert (model.format.label, len(model.graphs[0].graph_def.node)) == ("GraphDef", nodes)


def test_meta_graph_gives_its_collections(tmp_path: Path) -> None:
    """Collections of nodes and of variables are both lists of names."""
    model = read_graph(write(tmp_path / "model.pb", meta(tags=("serve",)).SerializeToString()))
    found = model.graphs[0]
    assert model.format.label == "MetaGraph"
    assert (found.tf_version, found.tags) == ("1.15.0", ("serve",))
    assert dict(found.collections) == {"update_ops": ("n0",), "trainable_variables": ("v",)}
    assert dict(found.initializers) == {"v": "n1:0"}


def test_text_forms_read_the_same(tmp_path: Path) -> None:
    """GraphDef and MetaGraph in text form, with a comment and a field that bncheck does not know."""
    text = b'# exported\nnode { name: "a" op: "Placeholder" experimental_debug_info { } }\nversions { producer: 1 }\n'
    assert read_graph(write(tmp_path / "graph.pbtxt", text)).graphs[0].graph_def.node[0].name == "a"
    text = b'meta_info_def { tensorflow_version: "1.4" }\ngraph_def { node { name: "a" op: "NoOp" } }\n'
    assert read_graph(write(tmp_path / "graph.meta", text)).graphs[0].tf_version == "1.4"


def test_damaged_text_names_the_line(tmp_path: Path) -> None:
    """A text form that stops in the middle says where."""
    with pytest.raises(Malformed, match="does not parse as text: 1:"):
        read_graph(write(tmp_path / "graph.pbtxt", b'node { name: "a" op: '))


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", Truncated, "is empty"),
        (b"Just some notes about the model.\n", UnknownFormat, "a text file"),
        (b"\x0a\xff\xff\xff\xff\x0f", Truncated, "past the end"),
        (b"\x08\x01", UnknownFormat, "neither a GraphDef nor a MetaGraphDef"),
        (b"\x00\x00\x00", Malformed, "impossible field"),
        (b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", Malformed, "more than 64 bits"),
        (b"\x12\x00", Malformed, "holds no graph"),
    ],
)
def test_what_is_no_graph_says_so(content: bytes, error: type[ReadError], words: str, tmp_path: Path) -> None:
    """Each way of being no graph has its own sentence, with the path."""
    path = write(tmp_path / "model.meta", content)
    with pytest.raises(error, match=words) as caught:
        read_graph(path)
    assert str(path) in str(caught.value)


def test_absent_file(tmp_path: Path) -> None:
    """A path that leads nowhere."""
    with pytest.raises(NotFound, match="no such file"):
        read_graph(tmp_path / "model.meta")


def test_truncation_at_every_offset_is_named_or_whole(tmp_path: Path) -> None:
    """Cut anywhere, a MetaGraph ends in a named error; cut between two fields, what is left is what was written."""
    content = meta().SerializeToString()
    whole = read_graph(write(tmp_path / "model.meta", content)).graphs[0]
    for length in range(len(content)):
        try:
            found = read_graph(write(tmp_path / "model.meta", content[:length])).graphs[0]
        except ReadError as error:
            assert error.offset is None or 0 <= error.offset <= length  # noqa: PT017 - both outcomes are right
        else:
            assert list(found.graph_def.node) == list(whole.graph_def.node)


def test_every_flipped_bit_is_named_or_parses(tmp_path: Path) -> None:
    """No flipped bit ends in anything but a named error or a graph."""
    content = meta().SerializeToString()
    for position in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            try:
                read_graph(write(tmp_path / "model.meta", bytes(damaged)))
            except ReadError:
                continue


@pytest.mark.parametrize(
    "inside",
    [
        'attr { key: "f" value { func { ' * 400 + "} } }" * 400,
        "unknown { " * 3000 + "}" * 3000,
        "unknown < " * 3000 + ">" * 3000,
    ],
)
def test_text_that_nests_without_end(tmp_path: Path, inside: str) -> None:
    """Messages nested deeper than the parser of text goes are refused, known ones and unknown ones."""
    path = write(tmp_path / "g.pbtxt", f'node {{ name: "a" op: "X" {inside} }}'.encode())
    with pytest.raises(Malformed, match=r"g\.pbtxt: nests messages deeper"):
        read_graph(path)
