"""Files that ai-edge-quantizer itself writes, by recipes of its own and others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def plain_run(content: bytes, images: NDArray[Any]) -> list[NDArray[Any]]:
    """Outputs in real numbers of LiteRT's interpreter, sample by sample, without anything of bncheck's."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (entry,), exits = interpreter.get_input_details(), interpreter.get_output_details()
    found: list[list[NDArray[Any]]] = [[] for _ in exits]
    for image in images:
        interpreter.set_tensor(entry["index"], _stored(image[None], entry))
        interpreter.invoke()
        for values, exit_ in zip(found, exits, strict=True):
            values.append(_real(interpreter.get_tensor(exit_["index"]), exit_))
    return [np.concatenate(values) for values in found]


def _stored(values: NDArray[Any], detail: dict[str, Any]) -> NDArray[Any]:
    scale, zero = detail["quantization"]
    if detail["dtype"] is np.float32:
        return values.astype(np.float32)
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.round(values / scale + zero), limits.min, limits.max).astype(detail["dtype"])


def _real(values: NDArray[Any], detail: dict[str, Any]) -> NDArray[Any]:
    scale, zero = detail["quantization"]
    return values if detail["dtype"] is np.float32 else (values.astype(np.float64) - zero) * scale


def recipe_file(path: Path, **asked: Any) -> str:
    """A JSON file of one rule: `operation`, and the keywords of `RecipeManager.add_static_config` or its like."""
    from ai_edge_quantizer import qtyping, recipe_manager

    kind, granularity = asked.pop("kind"), asked.pop("granularity", "CHANNELWISE")
    name = "weight_granularity" if kind == "static" else "granularity"
    rules = recipe_manager.RecipeManager()
    getattr(rules, f"add_{kind}_config")(
        regex=asked.pop("regex", ".*"),
        operation_name=qtyping.TFLOperationName(asked.pop("operation", "*")),
        **{name: qtyping.QuantGranularity(granularity)},
        **asked,
    )
    path.write_text(json.dumps(rules.get_quantization_recipe()))
    return str(path)
