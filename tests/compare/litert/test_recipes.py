"""Files of ai-edge-quantizer: what LiteRT runs, compare runs, with the same numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_nets import images
from recipes import plain_run, recipe_file

from bncheck.compare.float_quantized import measure_quantized
from bncheck.compare.litert import recipes
from bncheck.compare.litert.convert import convert
from bncheck.compare.litert.edit import dump, load, unchain
from bncheck.compare.litert.interpreter import read_file
from bncheck.facts.errors import BncheckError, Truncated, UsageError
from bncheck.facts.measurements import DataFacts, QuantizedComparison

pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed: pip install 'bncheck[aeq]'")
pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]

OTHERS: dict[str, dict[str, Any]] = {
    "static per tensor": {
        "kind": "static", "activation_num_bits": 8, "weight_num_bits": 8, "granularity": "TENSORWISE"
    },
    "convolutions alone": {
        "kind": "static", "operation": "CONV_2D", "activation_num_bits": 8, "weight_num_bits": 8
    },
    "weight-only per tensor": {"kind": "weight_only", "num_bits": 8, "granularity": "TENSORWISE"},
}  # fmt: skip
NAMED = [
    "static_wi8_ai8",
    "static_wi8_ai16",
    "dynamic_wi8_afp32",
    "dynamic_wi4_afp32",
    "weight_only_wi8_afp32",
    "weight_only_wi4_afp32",
    "dynamic_wi4b32_afp32",
    "dynamic_wi8c_hr_afp32",
    "dynamic_wi4c_hr_afp32",
]


@pytest.fixture(scope="module")
def made(tf: Any, net: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Recipe -> a net of residuals quantized by it."""

    def quantized(name: str) -> bytes:
        path = tmp_path_factory.mktemp("recipes") / "recipe.json"
        recipe = recipe_file(path, **OTHERS[name]) if name in OTHERS else name
        return convert(tf, net("wide")[0], f"aeq:{recipe}", [images(32)])

    return quantized


def compared(reference: bytes, quantized: bytes, count: int = 24) -> QuantizedComparison:
    """Both files on samples that they were not calibrated on."""
    return measure_quantized(
        read_file(reference),
        read_file(quantized),
        layers=(),
        batches=[(images(count, seed=5), None)],
        describe=lambda samples, size, batches: DataFacts(
            description="noise", samples=samples, batch_size=size, batches=batches
        ),
    )


@pytest.mark.parametrize("name", [*NAMED, *OTHERS])
def test_outputs_are_those_of_the_interpreter(
    lite: Callable[..., bytes], made: Callable[[str], bytes], name: str
) -> None:
    """The error at the output is that of two plain interpreters; every operator of the float file is compared."""
    reference, quantized = lite("wide"), made(name)
    found = compared(reference, quantized)
    ((r,), (t,)) = (plain_run(content, images(24, seed=5)) for content in (reference, quantized))
    assert found.outputs[0].nmse > 1e-7
    assert found.outputs[0].nmse == pytest.approx(np.sum((t - r) ** 2) / np.sum(r**2), rel=0.1, abs=1e-7)
    assert found.outputs[0].agreement == pytest.approx(np.mean(t.argmax(1) == r.argmax(1)), abs=1 / 24)
    assert not found.unmatched
    kinds = [operator.kind for operator in found.operators]
    assert len([kind for kind in kinds if kind != "QUANTIZE"]) == 12
    assert all(operator.weight_nmse is None or operator.weight_nmse < 0.1 for operator in found.operators)


def test_edited_copies_hold_the_constants(made: Callable[[str], bytes]) -> None:
    """Constants lie behind the flatbuffer, by offset and size: a copy that was written anew gives the same numbers."""
    content = made("static_wi8_ai8")
    assert any(buffer.offset > 1 for buffer in _untouched(content).buffers)
    copy = dump(load(content))
    assert all(buffer.offset < 2 for buffer in _untouched(copy).buffers)
    ((one,), (other,)) = (plain_run(held, images(4)) for held in (content, copy))
    assert np.array_equal(one, other)
    last = read_file(content).graph.outputs
    read_file(unchain(content, lambda _: None, last)[0])


def _untouched(content: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def test_a_place_beyond_the_file_is_refused(made: Callable[[str], bytes]) -> None:
    """Cut short, or with an offset beyond its end: named, before LiteRT sees it."""
    content = made("weight_only_wi8_afp32")
    with pytest.raises(Truncated, match="the data of buffer"):
        read_file(content[: len(content) - 64])
    place = max(buffer.offset for buffer in _untouched(content).buffers)
    hostile = content.replace(int(place).to_bytes(8, "little"), (1 << 62).to_bytes(8, "little"))
    assert hostile != content
    with pytest.raises(Truncated, match="the data of buffer"):
        read_file(hostile)


def test_what_is_no_recipe(tmp_path: Path, tf: Any, net: Callable[..., Any]) -> None:
    """Each in one sentence: an unknown name, with those that there are; other JSON; several models; no data."""
    with pytest.raises(UsageError, match=r"no recipe 'static_wi7', .*static_wi8_ai8"):
        recipes.recipe("static_wi7")
    path = tmp_path / "r.json"
    for text, words in (("{", "no JSON"), ("[]", "list of rules"), ('{"a": []}', "list of rules")):
        path.write_text(text)
        with pytest.raises(UsageError, match=words):
            recipes.recipe(str(path))
    with pytest.raises(UsageError, match="single model"):
        recipes.recipe("gemma4_mixed48")
    with pytest.raises(UsageError, match="at least one batch to calibrate on"):
        convert(tf, net("wide")[0], "aeq:static_wi8_ai8")
    with pytest.raises(BncheckError, match=r"^ai-edge-quantizer rejects this model for aeq:dynamic_wi4b32_afp32: \S"):
        convert(tf, net("residual")[0], "aeq:dynamic_wi4b32_afp32")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the command that installs it."""
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(BncheckError, match=r"not installed.*pip install .*ai-edge-quantizer"):
        recipes.recipe("static_wi8_ai8")


def test_what_a_recipe_leaves_in_float_is_counted(
    tf: Any, net: Callable[..., Any], made: Callable[[str], bytes], tmp_path: Path
) -> None:
    """All of it, the convolutions, the kernels alone, or nothing where no name fits."""
    graph = net("wide")[0]
    reference = convert(tf, graph, "float", [])
    nothing = recipe_file(tmp_path / "none.json", kind="weight_only", num_bits=8, regex="no_such_scope")
    files = {name: made(name) for name in ("static_wi8_ai8", "convolutions alone", "weight_only_wi8_afp32")}
    files |= {"nothing": convert(tf, graph, f"aeq:{nothing}", [images(32)])}
    found = {name: compared(reference, content).rounded for name, content in files.items()}
    every = found["static_wi8_ai8"]
    assert every is not None
    assert every.kernels == every.of_kernels > 0
    assert every.operators > 0
    part = found["convolutions alone"]
    assert part is not None
    assert 0 < part.kernels < part.of_kernels or part.operators < every.operators
    weights = found["weight_only_wi8_afp32"]
    assert weights is not None
    assert (weights.kernels, weights.operators) == (every.kernels, 0)
    none = found["nothing"]
    assert none is not None
    assert none.nothing
    assert none.of_kernels == every.of_kernels
