"""Short names: of layers without the scopes that all share, of models with no more folders than tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath


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


def told_apart(paths: Sequence[str]) -> tuple[str, ...]:
    """The end of each path, with as many folders as it takes to tell it from the others: "wired/model.ckpt-300".

    A path alone is its last part.
    """
    parts = [PurePath(path).parts or (path,) for path in paths]
    return tuple("/".join(own[-_enough(own, parts) :]) for own in parts)


def _enough(own: Sequence[str], parts: Sequence[Sequence[str]]) -> int:
    """Parts that tell it from the others; all of a path that another ends with."""
    others = [other for other in parts if other != own]
    return next((n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)), len(own))
