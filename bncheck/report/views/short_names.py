"""Layers' names in tables: without the scopes that they all share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def shortened(names: Sequence[str]) -> tuple[str, Mapping[str, str]]:
    """(title of a column of names, name -> what stands there): without the scopes that all begin and end with.

    The title shows those scopes, "MobilenetV2/…/BatchNorm"; it is "layer" where there are none. Different names stay
    different.
    """
    paths = [name.split("/") for name in dict.fromkeys(names)]
    if not paths:
        return "layer", {}
    longest = min(len(path) for path in paths) - 1 if len(paths) > 1 else 0
    first = paths[0]
    head = next((n for n in range(longest) if any(path[n] != first[n] for path in paths)), longest)
    rest = longest - head
    tail = next((n for n in range(rest) if any(path[-1 - n] != first[-1 - n] for path in paths)), rest)
    if not head and not tail:
        return "layer", {name: name for name in names}
    short = {"/".join(path): "/".join(path[head : len(path) - tail]) for path in paths}
    return "/".join((*first[:head], "…", *first[len(first) - tail :])), short
