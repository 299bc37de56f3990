"""Ways to quantize, by the names that `--scheme` and `[tool.bncheck.gate]` take."""

from __future__ import annotations

from collections.abc import Mapping

SCHEMES: Mapping[str, str] = {
    "int8": "full integer, a scale for each channel of a kernel",
    "int8-per-tensor": "full integer, one scale a kernel",
    "dynamic": "kernels in 8 bits, activations rounded as they come",
    "float16": "kernels in half precision",
    "int16x8": "activations in 16 bits, kernels in 8",
}
"""Of TensorFlow's own converter: name -> what it does."""
RECIPE = "aeq:"
"""Before the name of a recipe of ai-edge-quantizer, or of a JSON file with one: "aeq:static_wi8_ai8"."""
PLACEHOLDER = f"{RECIPE}RECIPE"


def recipe_of(scheme: str) -> str | None:
    """The recipe that a scheme names, None where it is one of TensorFlow's converter."""
    return scheme.removeprefix(RECIPE) if scheme.startswith(RECIPE) else None


def unknown(scheme: str) -> str | None:
    """A sentence that says which schemes there are, None where this may be one; recipes are looked up when they run."""
    if scheme in SCHEMES or recipe_of(scheme) is not None:
        return None
    return f"no quantization scheme is called {scheme!r}: {', '.join((*SCHEMES, PLACEHOLDER))}"
