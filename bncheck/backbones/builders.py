"""`--builder pkg.mod:function`: a network that the user's own code builds. Loading it runs that code."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bncheck.facts.errors import BncheckError, UsageError


@dataclass(frozen=True, kw_only=True)
class Builder:
    """`function(images, is_training)` -> tensor, (tensor, end points), or {name: tensor}."""

    text: str
    function: Callable[..., Any]

    def __str__(self) -> str:
        return self.text


def load_builder(text: str) -> Builder:
    """The function of `pkg.mod:function`; modules of the current directory are found too.

    This imports, and so runs, the user's module: never do it with a name that a model file gave. Raises UsageError
    where there is no such module or function, or where it does not take `(images, is_training)`.
    """
    module_name, colon, path = text.partition(":")
    if not colon or not module_name or not path:
        raise UsageError(f"--builder takes pkg.mod:function, not {text!r}")
    found: Any = _module(module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{module_name} has no {path!r}: --builder takes pkg.mod:function")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{text} is not a function but a {type(found).__name__}")
    try:
        inspect.signature(found).bind(None, is_training=False)
    except TypeError as error:
        raise UsageError(f"{text} must take (images, is_training): {error}") from error
    return Builder(text=text, function=found)


def run_builder(builder: Builder, images: Any) -> Any:
    """What the user's function gives for inference; raises BncheckError, with what went wrong in it."""
    with _current_directory():
        try:
            return builder.function(images, is_training=False)
        except Exception as error:  # the user's own code may raise anything, and it is no bug of bncheck
            raise BncheckError(f"{builder.text} raised {_told(error)}") from error


def _module(name: str) -> Any:
    with _current_directory():
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise UsageError(f"--builder: no module {error.name!r} in this folder or installed") from error
            raise UsageError(f"--builder: importing {name} needs {error.name}, which is not installed") from error
        except Exception as error:  # as in run_builder
            raise UsageError(f"--builder: importing {name} raised {_told(error)}") from error


@contextmanager
def _current_directory() -> Iterator[None]:
    """The current directory is searched first, as `python -m` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
