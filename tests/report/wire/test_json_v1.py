"""JSON, version 1: the golden document, its schema, and numbers that JSON cannot hold."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest
from report_example import HOSTILE, assert_golden, example, hostile

from bncheck.facts.findings import Measurement, Report
from bncheck.facts.layers import Role
from bncheck.report.wire import json_v1
from bncheck.testing import vector


def _parsed(report: Report) -> dict[str, Any]:
    stream = io.StringIO()
    json_v1.write(report, stream)

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    document: dict[str, Any] = json.loads(stream.getvalue(), parse_constant=refuse)
    return document


def _validate(document: object) -> None:
    jsonschema.Draft202012Validator(json_v1.schema()).validate(document)


def test_golden() -> None:
    """The whole document of the shared report."""
    assert_golden("example.json", example().to_json() + "\n")


def test_schema_is_a_schema() -> None:
    """The shipped schema is valid, and each of its objects names all its keys and allows no other."""
    schema = json_v1.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    open_objects = [
        path
        for path, node in _objects(schema, "")
        if node.get("additionalProperties") is not False or sorted(node["required"]) != sorted(node["properties"])
    ]
    assert open_objects == ["/$defs/report/properties/timing"]


def _objects(node: object, path: str) -> list[tuple[str, dict[str, Any]]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = [pair for key, child in children for pair in _objects(child, f"{path}/{key}")]
    return [(path, node), *found] if isinstance(node, dict) and node.get("type") == "object" else found


@pytest.mark.parametrize("report", [example(), hostile()], ids=["example", "hostile"])
def test_document_matches_the_schema(report: Report) -> None:
    """What is written is what the schema describes."""
    _validate(_parsed(report))


def test_run_matches_the_schema() -> None:
    """The document of a run, too, and it carries each report whole."""
    stream = io.StringIO()
    json_v1.write_run([example(), hostile()], stream)
    document = json.loads(stream.getvalue())
    _validate(document)
    assert document["reports"][0] == _parsed(example())


@pytest.mark.parametrize("key", ["verdict", "findings", "schema", "layers"])
def test_schema_refuses_what_lacks_a_key(key: str) -> None:
    """The schema can fail: a document without one of its keys is refused."""
    document = _parsed(example())
    del document[key]
    with pytest.raises(jsonschema.ValidationError):
        _validate(document)


def test_keys_of_the_contract() -> None:
    """Version 1 promises these keys; more may be added, none removed."""
    document = _parsed(example())
    promised = "schema tool target verdict exit_code counts layers findings not_checked comparison timing"
    assert set(promised.split()) <= set(document)
    assert document["schema"] == 1
    assert document["comparison"] is None
    of_layer = "name channels epsilon decay init_share sites updates statistics"
    assert set(of_layer.split()) <= set(document["layers"][0])
    of_finding = (
        "code slug severity confidence layer layers location message why fix evidence fingerprint caused_by".split()
    )
    assert set(of_finding) == set(document["findings"][0])
    assert set(document["findings"][0]["evidence"][0] if document["findings"][0]["evidence"] else {}) <= {
        "name",
        "value",
        "limit",
        "unit",
    }


def test_init_share_is_decay_to_the_updates() -> None:
    """0.99 ** 300 = 4.9 %; null where the decay is not known."""
    layers = _parsed(example())["layers"]
    assert math.isclose(layers[0]["init_share"], 0.99**300)
    unknown = replace(example(), layers=(replace(example().layers[0], decay=None),))
    assert _parsed(unknown)["layers"][0]["init_share"] is None


def test_counts_add_up() -> None:
    """Root causes by severity, what they explain, and what was suppressed."""
    document = _parsed(example())
    counts = document["counts"]
    assert (counts["error"], counts["warning"], counts["info"], counts["explained"]) == (1, 1, 1, 1)
    assert counts["error"] + counts["warning"] + counts["info"] + counts["explained"] == len(document["findings"])
    assert counts["suppressed"] == len(document["suppressed"]) == 1


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (True, True),
        ("text", "text"),
    ],
)
def test_numbers_that_json_lacks(value: Any, written: object) -> None:
    """They are named, never null or dropped; numpy's numbers become plain ones."""
    finding = replace(example().findings[0], evidence=(Measurement(name="m", value=value, limit=math.inf),))
    document = _parsed(replace(example(), findings=(finding,)))
    _validate(document)
    evidence = document["findings"][0]["evidence"][0]
    assert (evidence["value"], type(evidence["value"])) == (written, type(written))
    assert evidence["limit"] == "Infinity"


def test_ranges_of_broken_statistics() -> None:
    """Non-finite channels are counted, not mixed into the range; a vector without any finite one has no range."""
    layer = example().layers[0]
    broken = replace(
        layer,
        mean=vector(Role.MEAN, [math.nan, 1.0, 3.0, math.inf]),
        variance=vector(Role.VARIANCE, [math.nan] * 4),
    )
    document = _parsed(replace(example(), layers=(broken,)))
    _validate(document)
    statistics = document["layers"][0]["statistics"]
    assert [statistics["mean"][k] for k in ("min", "median", "max", "non_finite")] == [1.0, 2.0, 3.0, 2]
    assert [statistics["variance"][k] for k in ("min", "max", "non_finite")] == [None, None, 4]


def test_hostile_names_survive() -> None:
    """Names come back exactly as the model has them, and the text itself is ASCII."""
    assert _parsed(hostile())["layers"][0]["name"] == HOSTILE
    assert hostile().to_json().isascii()
