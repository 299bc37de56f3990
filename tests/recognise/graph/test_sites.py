"""Sites in graphs that nobody built on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.flatten import flatten
from bncheck.recognise.graph.sites import find_sites
from bncheck.sources.graph import protos


@pytest.mark.parametrize(
    "last",
    [
        ("site", "Mul", ["a", "inverse"]),
        ("inverse_too", "Rsqrt", ["a"]),
        ("site", "RealDiv", ["a", "root"]),
    ],
)
def test_copies_in_a_circle(last: tuple[str, str, list[str]]) -> None:
    """Where the input of a site is a copy of itself, by damage, the search ends and finds nothing."""
    graph = protos.GraphDef()
    nodes = [
        ("variance", "VariableV2", []),
        ("epsilon", "Const", []),
        ("sum", "Add", ["variance", "epsilon"]),
        ("inverse", "Rsqrt", ["sum"]),
        ("root", "Sqrt", ["sum"]),
        ("a", "Identity", ["b"]),
        ("b", "Identity", ["a"]),
        last,
    ]
    for name, op, inputs in nodes:
        graph.node.add(name=name, op=op, input=inputs)
    tensor = graph.node[1].attr["value"].tensor
    tensor.dtype = 1
    tensor.float_val.append(1e-3)
    flat = flatten(Path("x.pb"), graph)
    assert find_sites(flat, Contexts(flat)) == ([], [])
