"""The layout of Keras 3 in HDF5: a group `vars` for each object, its variables numbered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bncheck.facts.errors import Malformed, TooLarge
from bncheck.sources.keras.h5 import (
    MAX_OBJECTS,
    H5File,
    address_of,
    descend,
    is_dataset,
    is_group,
    members,
    reading,
    tensor,
    text_attribute,
)
from bncheck.sources.raw import RawTensor

MAX_DEPTH = 64
"""Nesting of groups; Keras nests two levels for each nested model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VariableGroup:
    """The `vars` group of one object in the layout of Keras 3: unnamed variables in the order of the layer."""

    name: str
    """The object's own name where Keras recorded it (from 3.8 on), else empty."""
    variables: tuple[tuple[str, RawTensor], ...]
    """(key, tensor); keys are "0", "1", ... unless the layer stores its state itself."""


def variable_groups(file: H5File) -> dict[str, VariableGroup]:
    """Every `vars` group of a file by the path of its owner ("" for the root's own), in the layout of Keras 3.

    Also owners without variables, where the file lists them. Raises Malformed for nesting or numbers no model has.
    """
    found: dict[str, VariableGroup] = {}
    pending: list[tuple[str, Any, int]] = [("", file.root, 0)]
    addresses: set[int] = set()
    walked = 0
    while pending:
        owner, group, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise Malformed(file.path, f"groups are nested more than {MAX_DEPTH} deep at {owner[:100]!r}")
        inner: list[tuple[str, Any, int]] = []
        for member in members(file, group):
            walked += 1
            if walked > MAX_OBJECTS:
                raise TooLarge(file.path, f"more than {MAX_OBJECTS:,} groups")
            child = descend(file, group, member)
            if not is_group(child):
                continue
            with reading(file.path, f"group {member!r}"):
                address = address_of(child)
            # a hard link back up would be walked for ever
            if address in addresses:
                continue
            addresses.add(address)
            place = f"{owner}/{member}" if owner else member
            if member == "vars":
                found[owner] = _variables(file, child, owner)
            else:
                inner.append((place, child, depth + 1))
        pending.extend(reversed(inner))
    return found


def _numeric(key: str) -> tuple[bool, int, str]:
    number = key.isdecimal() and len(key) < 10
    return (not number, int(key) if number else 0, key)


def _variables(file: H5File, group: Any, owner: str) -> VariableGroup:
    variables = []
    for key in sorted(members(file, group), key=_numeric):
        dataset = descend(file, group, key)
        if is_dataset(dataset):
            variables.append((key, tensor(file, dataset, f"{owner}/vars/{key}" if owner else f"vars/{key}")))
    return VariableGroup(name=text_attribute(file, group, "name") or "", variables=tuple(variables))
