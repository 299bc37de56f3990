"""Which statistics an ONNX file has folded in: files by the formulas of folding, and those of real exporters."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fold_models import Conv, checkpoint, conv, fold, operator
from onnx_fold import FORMS, Graph, channels_first, converted
from pytorch_writer import state_of, write_archive

import bncheck
from bncheck.facts.errors import UsageError
from bncheck.foldproof.onnx_kernels import onnx_places
from bncheck.foldproof.prove import prove
from bncheck.sources import open_model

NET = (
    conv("a", seed=1, inputs=3),
    conv("b", seed=2, inputs=8, depthwise=True, bias=np.linspace(-1, 1, 8)),
    conv("c", seed=3, inputs=8, size=1),
    conv("d", seed=4, inputs=8, size=1, bias=np.linspace(-1, 1, 8)),
)


def states(source: Any, file: Any) -> list[str]:
    """What each layer holds."""
    return [layer.folded for layer in prove(source, file).layers]


@pytest.mark.parametrize("form", FORMS)
def test_a_faithful_conversion_is_confirmed(tmp_path: Path, form: str) -> None:
    """All layers hold what is stored, within what rounding to the type explains."""
    proof = prove(checkpoint(*NET), converted(tmp_path, form, *map(operator, NET)))
    assert [layer.folded for layer in proof.layers] == ["stored"] * 4
    assert all(layer.error <= layer.tolerance for layer in proof.layers)
    assert max(layer.error for layer in proof.layers) < (1e-6 if form == "float32" else 1e-2)


@pytest.mark.parametrize("form", FORMS)
def test_one_changed_layer_is_named(tmp_path: Path, form: str) -> None:
    """Another variance, the initial statistics, another kernel: of that layer and of no other."""
    initial = replace(NET[2], mean=np.zeros(8, "f4"), variance=np.ones(8, "f4"))
    for changed, told in ((replace(NET[2], variance=NET[2].variance * 1.5), "other"), (initial, "initial")):
        file = converted(tmp_path, form, *map(operator, (NET[0], NET[1], changed, NET[3])))
        assert states(checkpoint(*NET), file) == ["stored", "stored", told, "stored"]
    other = replace(NET[0], kernel=conv("e", seed=9).kernel)
    file = converted(tmp_path, form, *map(operator, (other, *NET[1:])))
    (first, *rest) = prove(checkpoint(*NET), file).layers
    assert (first.weights, {layer.folded for layer in rest}) == ("other", {"stored"})


@pytest.mark.parametrize("standing", ["BatchNormalization", "Mul and Add"])
def test_arithmetic_behind_is_taken_in(tmp_path: Path, standing: str) -> None:
    """A batch norm that stands behind its convolution, as a node or as a product and a sum."""
    layer, graph = NET[0], Graph()
    graph.step("Conv", ["", graph.constant("w", channels_first(np.moveaxis(layer.kernel, -1, 0)))])
    if standing == "BatchNormalization":
        vectors = [graph.constant(key, getattr(layer, key)) for key in ("gamma", "beta", "mean", "variance")]
        graph.step("BatchNormalization", ["", *vectors])
        graph.made.graph.node[-1].attribute.add(name="epsilon", f=1e-3)
    else:
        scale = layer.gamma / np.sqrt(layer.variance + np.float32(1e-3))
        graph.step("Mul", ["", graph.constant("s", scale.reshape(1, -1, 1, 1))])
        graph.step("Add", ["", graph.constant("o", (layer.beta - layer.mean * scale).reshape(-1, 1, 1))])
    assert states(checkpoint(layer), graph.read(tmp_path)) == ["stored"]


def test_one_channel_that_stands_alone(tmp_path: Path) -> None:
    """As a product and a sum of one number each, with no linear layer before them."""
    one = {key: np.array([value], "f4") for key, value in (("gamma", 1.3), ("beta", 0.2), ("mean", 0.4))}
    layer = conv("a", outputs=1, variance=np.array([0.7], "f4"), **one)
    scale = layer.gamma / np.sqrt(layer.variance + np.float32(1e-3))
    for off, told in ((0.0, "stored"), (0.1, "unmatched")):
        graph = Graph()
        graph.step("Mul", ["", graph.constant("s", scale * (1 + np.float32(off)))])
        graph.step("Add", ["", graph.constant("o", layer.beta - layer.mean * scale)])
        assert states(checkpoint(layer), graph.read(tmp_path)) == [told]


def _dense(graph: Graph, kernel: np.ndarray, bias: np.ndarray) -> None:
    graph.step("MatMul", ["", graph.constant("w", kernel)])
    graph.step("Add", [graph.constant("b", bias), ""])


def _gemm(graph: Graph, kernel: np.ndarray, bias: np.ndarray) -> None:
    inputs = [graph.constant("w", np.ascontiguousarray(kernel.T)), graph.constant("b", bias)]
    graph.step("Gemm", ["", *inputs], transB=1)


def _turned(graph: Graph, kernel: np.ndarray, bias: np.ndarray) -> None:
    turned = graph.node("Transpose", [graph.constant("w", np.ascontiguousarray(kernel.T))])
    graph.step("Gemm", ["", turned, graph.constant("b", bias)])


@pytest.mark.parametrize("write", [_dense, _gemm, _turned])
def test_dense_layers(tmp_path: Path, write: Callable[[Graph, np.ndarray, np.ndarray], None]) -> None:
    """MatMul with its sum, Gemm with and without a turned kernel."""
    layer = conv("fc", seed=5, inputs=20, size=1)
    layer = replace(layer, kernel=layer.kernel[0, 0], bias=np.linspace(-1, 1, 8, dtype="f4"))
    scale = layer.gamma / np.sqrt(layer.variance + np.float32(1e-3))
    graph = Graph()
    write(graph, layer.kernel * scale, layer.beta + (np.linspace(-1, 1, 8, dtype="f4") - layer.mean) * scale)
    assert states(checkpoint(layer), graph.read(tmp_path)) == ["stored"]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_transposed_convolutions(tmp_path: Path, groups: int) -> None:
    """(in, out / groups, ...): output channels come group by group."""
    kernel = np.random.default_rng(0).normal(size=(8, 4 // groups * 2, 3, 3)).astype("f4")
    graph = Graph()
    graph.step("ConvTranspose", ["", graph.constant("w", kernel)], group=groups)
    ((place,), chains) = onnx_places(graph.read(tmp_path))
    assert not chains
    assert (place.channels, place.fan_in) == (kernel.shape[1] * groups, 8 // groups * 9)
    (held,) = place.read()
    last = kernel.shape[1] * groups - 1
    np.testing.assert_array_equal(held.kernel[last], np.moveaxis(kernel[8 - 8 // groups :, -1], 0, -1).reshape(-1))


def _state_dict(path: Path, *layers: Conv) -> Path:
    arrays: dict[str, np.ndarray] = {}
    for layer in layers:
        kernel = layer.kernel
        joined = kernel.reshape(*kernel.shape[:2], 1, -1) if layer.depthwise else kernel
        arrays[f"{layer.name}.conv.weight"] = np.ascontiguousarray(np.transpose(joined, (3, 2, 0, 1)))
        if layer.bias is not None:
            arrays[f"{layer.name}.conv.bias"] = layer.bias
        arrays[f"{layer.name}.bn.weight"], arrays[f"{layer.name}.bn.bias"] = layer.gamma, layer.beta
        arrays[f"{layer.name}.bn.running_mean"] = layer.mean
        arrays[f"{layer.name}.bn.running_var"] = layer.variance
        arrays[f"{layer.name}.bn.num_batches_tracked"] = np.array(1000, "i8")
    storages = {str(place): array.tobytes() for place, array in enumerate(arrays.values())}
    return write_archive(path, state_of(arrays), storages)


def test_a_state_dict_and_the_file_that_it_became(tmp_path: Path) -> None:
    """Every layer confirmed, in a report that passes; one that was changed since is named."""
    source = _state_dict(tmp_path / "model.pt", *NET)
    file = Path(converted(tmp_path, "float32", *(operator(layer, 1e-5) for layer in NET)).path)
    report = bncheck.inspect_model(file, reference=source)
    assert report.fold is not None
    assert ([layer.folded for layer in report.fold.layers], report.exit_code) == (["stored"] * 4, 0)
    changed = _state_dict(tmp_path / "later.pt", *NET[:3], replace(NET[3], mean=NET[3].mean + 1))
    report = bncheck.inspect_model(file, reference=changed)
    (finding,) = report.findings
    assert (finding.code, finding.layers, report.exit_code) == ("BN407", ("d.bn",), 1)
    assert "torch.onnx.export" in finding.fix


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    """The kernels of dynamic quantization; a source without batch norm; a source that is no source."""
    graph, kernel = Graph(), channels_first(fold(NET[0])[0])
    inputs = [graph.constant("w", (kernel * 20).astype(np.int8)), graph.constant("z", np.uint8(0))]
    graph.step("ConvInteger", ["", inputs[0], inputs[1]])
    file = graph.read(tmp_path)
    (layer,) = prove(checkpoint(NET[0]), file).layers
    assert layer.folded == "unmatched"
    assert "dynamic" in layer.why
    report = bncheck.inspect_model(file.path, reference=file.path)
    assert report.exit_code == 3
    with pytest.raises(UsageError, match="neither"):
        prove(checkpoint(NET[0]), checkpoint(NET[0]))


def test_a_kernel_that_claims_to_be_huge(tmp_path: Path) -> None:
    """Costs nothing before it is read, and is then named as too large or damaged."""
    graph = Graph()
    graph.step("Conv", ["", graph.constant("w", np.zeros((8, 3, 1, 1), "f4"))])
    del graph.made.graph.initializer[0].dims[:]
    graph.made.graph.initializer[0].dims.extend([1 << 14, 1 << 14, 1, 1])
    ((place,), _) = onnx_places(graph.read(tmp_path))
    assert "too large" in place.unreadable


EXPORTED = """
import sys, torch, torchvision
torch.manual_seed(0)
torch.set_num_threads(1)
for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_small"):
    net = getattr(torchvision.models, name)(num_classes=10).train()
    for _ in range(4):
        net(torch.rand(4, 3, 48, 48))
    net.eval()
    torch.save(net.state_dict(), f"{name}.pt")
    options = {"dynamo": False, "opset_version": 17}
    torch.onnx.export(net, (torch.rand(1, 3, 48, 48),), f"{name}.onnx", **options)
"""


@pytest.mark.torch
@pytest.mark.slow
def test_what_pytorch_exports(tmp_path: Path) -> None:
    """Every layer of three of torchvision's nets, which its exporter folds."""
    pytest.importorskip("torchvision")
    pytest.importorskip("onnx")
    subprocess.run([sys.executable, "-c", EXPORTED], check=True, cwd=tmp_path)
    for name, layers in (("resnet18", 20), ("mobilenet_v2", 52), ("mobilenet_v3_small", 34)):
        proof = prove(open_model(tmp_path / f"{name}.pt"), open_model(tmp_path / f"{name}.onnx"))
        assert [layer.folded for layer in proof.layers] == ["stored"] * layers
    shutil.rmtree(tmp_path)
