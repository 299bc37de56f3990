"""What a TorchScript archive's code fixes of a batch norm: `torch.jit.trace` writes the mode that it saw as a constant.

The code is text, one module of it a class or several; it is searched, never run.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from bncheck.facts.errors import TooLarge
from bncheck.sources.zips import checked_member, opened_zip

_SCRIPTED = "__torch__."
"""What TorchScript puts before the name of every class."""
_MAX_CODE = 1 << 24
"""Bytes of one class's code that are read; batch norm's has a thousand."""
_NUMBER = r"(-?[0-9.]+(?:e[-+]?[0-9]+)?)"
_CALL = re.compile(rf"\btorch\.batch_norm\(.*, (True|False), {_NUMBER}, {_NUMBER}, (?:True|False)\)")
"""Mode, momentum and epsilon; ATen's `batch_norm(input, weight, bias, mean, var, training, momentum, eps, cudnn)`.

The momentum is not taken: of a cumulative average it is what one batch had.
"""
_CONSTANT = re.compile(rf"^  (momentum|eps) : Final\[\w+\] = (?:{_NUMBER}|None)$", re.MULTILINE)

Fixed = Mapping[str, bool | float | None]
"""What code fixes: "eps"; of a script "momentum"; of a trace "traced_in_train_mode". "scripted": that there is code."""


def fixed_by_code(path: Path, classes: Iterable[str]) -> dict[str, Fixed]:
    """Class -> what its code fixes, for those of a TorchScript archive. Raises ReadError where code is damaged."""
    scripted = sorted({name for name in classes if name.startswith(_SCRIPTED)})
    if not scripted:
        return {}
    found: dict[str, Fixed] = {}
    with opened_zip(path, "its code") as archive:
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        for name in scripted:
            module, _, own = name.rpartition(".")
            member = members.get(f"code/{module.replace('.', '/')}.py")
            if member is not None:
                found[name] = {"scripted": True, **_fixed(_class(_text(path, archive, member), own))}
    return found


def _text(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    if checked_member(path, member).file_size > _MAX_CODE:
        reason = f"{member.filename} has {member.file_size:,} bytes of code"
        raise TooLarge(path, reason, offset=member.header_offset)
    return archive.read(member).decode("utf-8", "replace")


def _class(text: str, name: str) -> str:
    """The code of one class of a module."""
    _, _, behind = f"\n{text}".partition(f"\nclass {name}(")
    return behind.partition("\nclass ")[0]


def _fixed(code: str) -> Fixed:
    fixed: dict[str, bool | float | None] = {
        name: float(value) if value else None for name, value in _CONSTANT.findall(code)
    }
    calls = {(mode, epsilon) for mode, _, epsilon in _CALL.findall(code)}
    if len(calls) == 1:
        ((mode, epsilon),) = calls
        fixed |= {"eps": float(epsilon), "traced_in_train_mode": mode == "True"}
    return fixed
