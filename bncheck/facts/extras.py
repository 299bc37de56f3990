"""How to install what an optional part needs, by a command that works wherever bncheck itself came from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache

_REQUIREMENT = re.compile(r"(?P<what>[^;]+?)\s*(?:;.*\bextra\s*==\s*[\"'](?P<extra>[\w-]+)[\"'].*)?")
_OWN = re.compile(r"bncheck\[(?P<extras>[\w,\s-]+)\]")


@cache
def install(extra: str) -> str:
    """The command that installs an extra's packages, by their own names: bncheck is not on a package index.

    It comes from the metadata of the installed distribution. Where there is none, as in a folder of sources that was
    never installed, the command is that for a checkout.
    """
    packages = sorted(set(_packages(extra)))
    return f"pip install {shlex.join(packages)}" if packages else f"pip install '.[{extra}]' in a checkout of bncheck"


def _packages(extra: str) -> Iterator[str]:
    from importlib.metadata import PackageNotFoundError, requires  # noqa: PLC0415 - only errors pay for it

    try:
        listed = requires("bncheck") or []
    except PackageNotFoundError:
        return
    for line in listed:
        found = _REQUIREMENT.fullmatch(line)
        if found is None or found["extra"] != extra:
            continue
        own = _OWN.fullmatch(found["what"])
        if own is None:
            yield found["what"].replace(" ", "")
        else:
            for inner in own["extras"].split(","):
                yield from _packages(inner.strip())
