"""Functions that take options as keyword arguments: type checkers, `help` and notebooks see each of them by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from bncheck.settings.options import CommandName, Options

if TYPE_CHECKING:
    from typing import Concatenate

_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Public(Protocol[_P]):
    """A function of paths and `Options` becomes one of paths and keyword arguments."""

    @overload
    def __call__(self, function: Callable[[str | Path, Options], _R]) -> Callable[Concatenate[str | Path, _P], _R]: ...
    @overload
    def __call__(
        self, function: Callable[[str | Path, str | Path, Options], _R]
    ) -> Callable[Concatenate[str | Path, str | Path, _P], _R]: ...


def takes(table: Callable[_P, Options], command: CommandName) -> _Public[_P]:
    """Lets a function be called with those fields of `table`, which is `Options`, that its command takes.

    Any other keyword is a TypeError, as is a required one that lacks. Type checkers know names and types, not which of
    the commands takes them.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        of = {each.name: each.metadata.get("of") or each.metadata["option"].of for each in fields(Options)}
        taken = [each for each in fields(Options) if command in of[each.name]]
        required = {e.name for e in taken if "option" in e.metadata and command in e.metadata["option"].required}

        make: Any = table

        @wraps(function)
        def called(*target: str | Path, **given: Any) -> Any:
            lacking = required - given.keys()
            if lacking:
                raise TypeError(f"{function.__name__}() lacks a required keyword argument: {min(lacking)!r}")
            options = make(**{each.name: given.pop(each.name) for each in taken if each.name in given})
            return function(*target, options=options, **given)

        own = [p for p in inspect.signature(function).parameters.values() if p.name != "options"]
        shown = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if each.name in required else each.default,
                annotation=each.type,
            )
            for each in taken
        ]
        called.__signature__ = inspect.Signature([*own, *shown])  # type: ignore[attr-defined]  # typeshed has none
        return called

    return decorate
