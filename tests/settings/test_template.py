"""The configuration to begin with and its JSON schema: both have every key, and agree with the reader."""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bncheck.facts.errors import ConfigError
from bncheck.settings.config_file import Config, known_keys, load_config
from bncheck.settings.options import ConfigTable, Options
from bncheck.settings.template import keys, schema, schema_text, starting_file

tomllib = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
SHIPPED = Path(__file__).parents[2] / "bncheck" / "settings" / "config.schema.json"


def _uncommented(text: str) -> str:
    """Every example as a value; sentences stay comments."""
    return re.sub(r"(?m)^# ((?:[a-z-]+ = |\[).*)$", r"\1", text)


@pytest.mark.parametrize("in_project", [True, False])
def test_every_key_is_there_and_every_example_is_valid(in_project: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """As written nothing is set; with the comment signs taken away all keys are, and reader and schema accept them."""
    path = tmp_path / ("pyproject.toml" if in_project else "bncheck.toml")
    path.write_text(starting_file(in_project=in_project), encoding="utf-8")
    assert load_config(path).gate == {}
    path.write_text(_uncommented(path.read_text(encoding="utf-8")), encoding="utf-8")
    config = load_config(path)
    assert len(config.gate) == len(known_keys(Options, ConfigTable.GATE))
    assert config.ignores[0].codes == ("BN107",)
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    table = document["tool"]["bncheck"] if in_project else document
    told = set(table) - {"gate", "ignores"}
    assert told == {*known_keys(Config, ConfigTable.TOP), *known_keys(Options, ConfigTable.TOP)}
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(table, default=str)))


def test_the_shipped_schema_is_current() -> None:
    """Renew it: `python tests/renew_readme.py`."""
    assert SHIPPED.read_text(encoding="utf-8") == schema_text()
    jsonschema.Draft202012Validator.check_schema(schema())


WRONG: list[dict[str, Any]] = [
    {"fail_on": "error"},
    {"fail-on": "sometimes"},
    {"decay": 2},
    {"quiet": "yes"},
    {"gate": {"batches": 0}},
    {"gate": {"size": [1]}},
    {"gate": {"scheme": "int4"}},
    {"ignores": [{"layer": "*", "codes": ["BN1"]}]},
    {"ignores": [{"layer": "*", "codes": ["BN1"], "reason": "x", "until": "2030-01-01"}]},
]


@pytest.mark.parametrize("table", WRONG, ids=json.dumps)
def test_what_the_reader_refuses_the_schema_refuses(table: dict[str, Any], tmp_path: Path) -> None:
    """An editor underlines what bncheck would not take."""
    assert not jsonschema.Draft202012Validator(schema()).is_valid(table)
    lines = [line for key, value in table.items() for line in _toml(key, value)]
    path = tmp_path / "bncheck.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError):
        load_config(path)


def _toml(key: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"[{key}]", *(line for k, v in value.items() for line in _toml(k, v))]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [line for one in value for line in (f"[[{key}]]", *(x for k, v in one.items() for x in _toml(k, v)))]
    return [f"{key} = {json.dumps(value)}"]


def test_keys_are_those_of_the_reader() -> None:
    """Both tables, none twice."""
    for of in (ConfigTable.TOP, ConfigTable.GATE):
        names = [key for key, _ in keys(of)]
        assert sorted(names) == sorted({*known_keys(Config, of), *known_keys(Options, of)})
