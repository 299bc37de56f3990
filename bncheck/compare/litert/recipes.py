"""Quantization by the recipes of ai-edge-quantizer, which takes finished float TFLite files.

Source: its package, version 0.10 (https://github.com/google-ai-edge/ai-edge-quantizer): `recipe.py`, `quantizer.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bncheck.backbones import quiet_tensorflow
from bncheck.compare.litert.edit import SERVING, signed
from bncheck.compare.litert.native_output import silence
from bncheck.facts.errors import BncheckError, UsageError
from bncheck.facts.extras import install
from bncheck.settings.schemes import RECIPE
from bncheck.sources.files import require_file

_PACKAGE = "ai_edge_quantizer"
_REFUSALS = (ValueError, RuntimeError, KeyError, TypeError, IndexError, AttributeError, NotImplementedError)
"""What it raises for a model that a recipe does not suit; most come out of numpy, in the middle of its arithmetic."""

Feeds = Mapping[int, NDArray[Any]]
"""Input tensor -> values (samples, ...)."""


def installed() -> bool:
    """Whether the package is there; imports nothing."""
    return importlib.util.find_spec(_PACKAGE) is not None


def recipe_names() -> tuple[str, ...]:
    """The recipes for single models that go by a name, sorted. Raises BncheckError where it is not installed."""
    recipes = _module("recipe")
    functions = (name for name, _ in inspect.getmembers(recipes, inspect.isfunction) if not name.startswith("_"))
    folder = Path(recipes.__file__).parent / "recipes"
    files = (path.name.removesuffix(".json").removesuffix("_recipe") for path in folder.glob("*.json"))
    return tuple(name for name in sorted({*functions, *files}) if isinstance(_resolved(name), list))


def recipe(name: str) -> list[dict[str, Any]]:
    """A recipe by its name, or from a JSON file. Raises UsageError for what is none, ReadError for a pipe or device,
    BncheckError without the package.

    Recipes of LiteRT-LM files, which say it for several models, are none here.
    """
    file = Path(name)
    if file.exists() and not file.is_dir():
        require_file(file)
    try:
        found = _resolved(name)
    except (ValueError, OSError) as error:
        if Path(name).is_file():
            raise UsageError(f"{name}: not a recipe of ai-edge-quantizer: {error}") from None
        raise UsageError(
            f"ai-edge-quantizer has no recipe {name!r}, nor is there such a file; recipes: {', '.join(recipe_names())}"
        ) from None
    if not isinstance(found, list) or not found or not all(isinstance(entry, dict) for entry in found):
        raise UsageError(f"{RECIPE}{name}: not a recipe for a single model, which is a list of rules")
    return found


def quantize(content: bytes, name: str, batches: Iterable[Feeds]) -> bytes:
    """A float TFLite file quantized by a recipe; `batches` give the ranges of activations where it asks for them.

    Its calibrator takes a moving average over the batches, so their size and order have a say. Raises UsageError for
    what is no recipe or lacks its data, BncheckError where the package is not installed or refuses the model.
    """
    rules = recipe(name)
    served, names = signed(content)
    with quiet_tensorflow.without_warnings(), silence():
        try:
            quantizer = _module("quantizer").Quantizer(bytearray(served), rules)
            found = None
            if quantizer.need_calibration:
                samples = [{names[number]: values for number, values in feeds.items()} for feeds in batches]
                if not samples:
                    raise UsageError(
                        f"{RECIPE}{name} takes its ranges from data: give at least one batch to calibrate on"
                    )
                found = quantizer.calibrate({SERVING: samples}, num_threads=os.cpu_count() or 1)
            return bytes(quantizer.quantize(found, enable_progress_report=False).quantized_model)
        except _REFUSALS as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise BncheckError(f"ai-edge-quantizer rejects this model for {RECIPE}{name}: {reason[:300]}") from error


def _resolved(name: str) -> Any:
    with quiet_tensorflow.without_warnings():
        try:
            return _module("utils.recipe_utils").resolve_recipe(name)
        except json.JSONDecodeError as error:
            raise ValueError(f"no JSON: {error}") from None


def _module(name: str) -> Any:
    if not installed():
        raise BncheckError(f"ai-edge-quantizer, which has the {RECIPE} recipes, is not installed: {install('aeq')}")
    with quiet_tensorflow.without_warnings():
        return importlib.import_module(f"{_PACKAGE}.{name}")
