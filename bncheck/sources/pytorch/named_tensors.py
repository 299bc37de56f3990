"""Which tensors a saved object holds, under which names: of state dicts, of whole modules, of folders of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bncheck.sources.pytorch.values import Built, Strided

_OF_MODULES = frozenset({"_parameters", "_buffers", "_modules"})
"""Where `torch.nn.Module` keeps what its names name."""
_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before every name."""
_LEAF = "running_mean"


class SavedContents(NamedTuple):
    """What a saved object holds."""

    tensors: dict[str, Strided]
    modules: dict[str, Built]
    """Modules with running statistics by their paths."""


def held_by(saved: Any) -> SavedContents:
    """Tensors and modules by name: keys of mappings joined by "/", names of modules by ".".

    Where one mapping alone has running statistics, its place goes without saying ("state_dict/"), as do wrappers
    around the whole model ("module.").
    """
    found = dict(_each(saved))
    tensors = {name: value for name, value in found.items() if isinstance(value, Strided)}
    modules = {name: value for name, value in found.items() if isinstance(value, Built)}
    before = _place(list(tensors))
    shorter = {name: name.removeprefix(before) for name in tensors}
    if len(set(shorter.values())) < len(shorter):
        return SavedContents(tensors, modules)
    return SavedContents(
        {shorter[name]: tensor for name, tensor in tensors.items()},
        {name.removeprefix(before): module for name, module in modules.items()},
    )


def _place(names: list[str]) -> str:
    """Where the one model of these names lies, with its wrappers; "" where there are several, or none."""
    places = {name.rpartition("/")[0] for name in names if name.endswith(_LEAF)}
    if len(places) != 1:
        return ""
    place = f"{places.pop()}/".removeprefix("/")
    inside = [name.removeprefix(place) for name in names if name.startswith(place)]
    return place + _wrapper([name for name in inside if "/" not in name])


def plain_attributes(module: Built) -> dict[str, Any]:
    """Those that are numbers, flags or None."""
    state = module.state if isinstance(module.state, Mapping) else {}
    return {key: value for key, value in state.items() if isinstance(value, bool | int | float | None)}


def _wrapper(names: list[str]) -> str:
    """What stands before all of these names and is no part of the model."""
    before = ""
    while wrapper := next((w for w in _WRAPPERS if names and all(n.startswith(before + w) for n in names)), ""):
        before += wrapper
    return before


def _each(saved: Any) -> Iterator[tuple[str, Strided | Built]]:
    """(name, tensor or module with running statistics), in the order of the file.

    What stands in several places is gone into once.
    """
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", saved)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Strided):
            yield name, value
        elif isinstance(value, dict | list | tuple | Built) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, Built) and any(key == _LEAF for key, _ in _inside(value)):
                yield name, value
            waiting += reversed([(_joined(name, key, value), inner) for key, inner in _inside(value)])


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Built):
        state = value.state
        if isinstance(state, Mapping):
            for key, inner in state.items():
                if key in _OF_MODULES and isinstance(inner, Mapping):
                    yield from ((str(name), of) for name, of in inner.items())
                else:
                    yield str(key), inner
        elif state is not None:
            yield "state", state
        yield from ((str(key), inner) for key, inner in value.items.items())
    else:
        yield from (
            (str(key), inner) for key, inner in (value.items() if isinstance(value, dict) else enumerate(value))
        )


def _joined(name: str, key: str, within: Any) -> str:
    if not name:
        return key
    return f"{name}.{key}" if isinstance(within, Built) else f"{name}/{key}"
