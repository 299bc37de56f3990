"""The configuration as a file to begin with, as a table for people, and as a JSON schema for editors.

All three come from the table of options, so that none of them lacks a key or has one too many.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bncheck.settings import kinds
from bncheck.settings.config_file import Config
from bncheck.settings.kinds import ValueKind
from bncheck.settings.options import ConfigTable, Option, Options, listed
from bncheck.settings.schemes import RECIPE, SCHEMES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1}
_TEXTS: Mapping[str, Any] = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_COUNT: Mapping[str, Any] = {"type": "integer", "minimum": 1}
_AMOUNT: Mapping[str, Any] = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _TEXT]}
_IGNORE: Mapping[str, Any] = {
    "type": "object",
    "description": "Findings to accept.",
    "additionalProperties": False,
    "required": ["layer", "codes", "reason"],
    "properties": {
        "layer": {**_TEXT, "description": "Glob over layer names; * also takes findings about the whole model."},
        "codes": {**_TEXTS, "description": "Codes or prefixes."},
        "reason": {**_TEXT, "description": "Why they are accepted."},
        "expires": {"type": "string", "format": "date", "description": "Last day on which it holds."},
    },
}
_SCHEMAS: Mapping[ValueKind, Mapping[str, Any]] = {
    kinds.TEXTS: _TEXTS,
    kinds.CODES: _TEXTS,
    kinds.FLAG: {"type": "boolean"},
    kinds.COUNT: _COUNT,
    kinds.SHARE: {"type": "number", "minimum": 0, "maximum": 1},
    kinds.SIZE: {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2},
    kinds.TIME: _AMOUNT,
    kinds.MEMORY: _AMOUNT,
    kinds.SCHEME: {"anyOf": [{"enum": list(SCHEMES)}, {"type": "string", "pattern": f"^{RECIPE}"}]},
}
"""Of a value; others are texts."""

_EXAMPLES: Mapping[str, str] = {
    "fail-on": '"warning"',
    "select": "['BN1', 'BN2']",
    "ignore": "['BN218']",
    "format": '"text"',
    "output": '["bncheck.json"]',
    "baseline": '"known.json"',
    "decay": "0.999",
    "train-op": '["train_step"]',
    "reference": '"pretrained/model.ckpt"',
    "data": '"data/test.npz"',
    "labels": '"labels"',
    "labels-output": '"logits"',
    "preprocess": '"-1..1"',
    "channel-order": '"rgb"',
    "size": "[224, 224]",
    "batch-size": "32",
    "batches": "20",
    "model": '"mobilenet_v2"',
    "inputs": '"images"',
    "outputs": '["logits"]',
    "quantized": '"models/int8.tflite"',
    "scheme": '"int8"',
    "calibration-batches": "16",
    "against": '"models/released.json"',
    "max-time": '"10m"',
    "max-memory": '"4GB"',
}
"""Key -> a value that means something to a reader; a key that lacks here shows one of its kind."""
_IGNORES = (
    "# Findings that you accept:\n# [[tool.bncheck.ignores]]\n"
    "# layer = 'head/*'              # glob over layer names\n# codes = ['BN107']\n"
    "# reason = 'pruned on purpose'  # required\n# expires = 2030-01-31          # optional; then it counts again\n"
)


def keys(of: ConfigTable) -> Iterator[tuple[str, Option]]:
    """(key, how it is given) of a table of the configuration file, in the order of the options."""
    for table in (Config, Options):
        for _, how, flag in listed(table):
            if how.table is of:
                yield flag.removeprefix("--"), how


def example(key: str, how: Option) -> str:
    """A value of a key, in TOML."""
    if key in _EXAMPLES:
        return _EXAMPLES[key]
    of_kind = {kinds.FLAG: "true", kinds.COUNT: "8", kinds.TEXTS: '["..."]', kinds.SHARE: "0.5"}
    return f'"{how.kind.choices[0]}"' if how.kind.choices else of_kind.get(how.kind, '"..."')


def starting_file(*, in_project: bool) -> str:
    """All keys, commented out, each with what it does; `in_project`: for pyproject.toml, else for bncheck.toml."""
    text = "".join(f"{head}\n{body}\n" for head, body in _tables()) + _IGNORES
    if in_project:
        return text
    text = text.replace("[tool.bncheck]\n", "").replace("[tool.bncheck.", "[")
    return text.lstrip("\n")


def _tables() -> Iterator[tuple[str, str]]:
    for table in (ConfigTable.TOP, ConfigTable.GATE):
        body = "".join(f"# {_said(how)}\n# {key} = {example(key, how)}\n" for key, how in keys(table))
        yield table.value, body


def _said(how: Option) -> str:
    return " ".join(how.help.split())


def markdown_table(of: ConfigTable) -> str:
    """The keys of a table, each with an example and what it does."""
    rows = (
        f"| `{key}` | `{example(key, how)}` | {_said(how).replace('|', chr(92) + '|')} |\n" for key, how in keys(of)
    )
    return "| key | example | what it does |\n|---|---|---|\n" + "".join(rows)


def schema() -> dict[str, Any]:
    """The JSON schema of `bncheck.toml`, and of `[tool.bncheck]` in pyproject.toml."""
    gate = {
        "type": "object",
        "description": "Options of `bncheck gate`.",
        "additionalProperties": False,
        "properties": dict(_properties(ConfigTable.GATE)),
    }
    return {
        "$schema": DIALECT,
        "title": "bncheck",
        "description": "Configuration of bncheck: bncheck.toml, or [tool.bncheck] in pyproject.toml.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **dict(_properties(ConfigTable.TOP)),
            "gate": gate,
            "ignores": {"type": "array", "items": dict(_IGNORE)},
        },
    }


def schema_text() -> str:
    """As the file in the package holds it."""
    return json.dumps(schema(), indent=2) + "\n"


def _properties(of: ConfigTable) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, how in keys(of):
        value = {"enum": list(how.kind.choices)} if how.kind.choices else dict(_SCHEMAS.get(how.kind, _TEXT))
        yield key, {"description": _said(how), **value}
