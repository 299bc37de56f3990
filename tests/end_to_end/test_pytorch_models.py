"""Real networks, trained in real PyTorch, right and broken in twelve ways, as state dicts and as ONNX."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bncheck

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("torchvision", reason="torchvision is not installed")
from torch_nets import NETS, block, pictures, trained  # noqa: E402

# the exporter without torch.compile, which leaves batch norm standing, is deprecated
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

QUICK = ("yolo", "unet")
STEPS, FEW = 150, 8
DEAD = {"BN107"}
"""On maps of a pixel some channels of torchvision's last layers get no signal: a warning that is true."""

State = dict[str, Any]


class Trained:
    """A network as it begins and as it is after training, and an average of its weights, whose buffers stayed."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.start = NETS[name]()
        self.model, self.averaged = copy.deepcopy(self.start), copy.deepcopy(self.start)
        trained(self.model, STEPS, after=self._average)

    def _average(self) -> None:
        with torch.no_grad():
            for mean, weight in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(weight, 0.1)

    def again(self, steps: int, *, momentum: float = 0.1, training: bool = True) -> State:
        """The state after another training from the same start."""
        model = copy.deepcopy(self.start)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = momentum
        trained(model, steps, training=training)
        return dict(model.state_dict())

    def state(self) -> State:
        """A copy of the trained state."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


@pytest.fixture(
    scope="module", params=[*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in NETS if n not in QUICK)]
)
def net(request: pytest.FixtureRequest) -> Trained:
    """Each of the networks."""
    return Trained(request.param)


def named(state: State, what: str) -> list[str]:
    """Names of one kind of buffer, in order."""
    return [name for name in state if name.endswith(what)]


def reset(state: State, first: int = 0) -> State:
    """Buffers from a layer on as they were made."""
    for what, value in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0)):
        for name in named(state, what)[first:]:
            state[name].fill_(value)
    return state


def with_factor(state: State, layer: int, channels: slice, factor: float) -> State:
    """Some variances of a layer times a factor."""
    state[named(state, "running_var")[layer]][channels] *= factor
    return state


def swapped(state: State) -> State:
    """Mean and variance under each other's name."""
    for mean, variance in zip(named(state, "running_mean"), named(state, "running_var"), strict=True):
        state[mean], state[variance] = state[variance], state[mean]
    return state


def halved(state: State) -> State:
    """In half precision, one variance beyond its range."""
    with_factor(state, 1, slice(None), 1e13)
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


BROKEN: dict[str, tuple[Callable[[Trained], Any], set[str]]] = {
    "buffers not loaded": (lambda net: reset(net.state()), {"BN101"}),
    "half of it in eval mode": (lambda net: reset(net.state(), len(named(net.state(), "running_var")) // 2), {"BN102"}),
    "trained in eval mode": (lambda net: net.again(40, training=False), {"BN101"}),
    "average without buffers": (lambda net: net.averaged.state_dict(), {"BN101"}),
    "average beside it": (lambda net: {"model": net.state(), "ema": net.averaged.state_dict()}, {"BN102"}),
    "momentum the wrong way round": (lambda net: net.again(40, momentum=0.001), {"BN103"}),
    "few batches": (lambda net: net.again(FEW), {"BN103"}),
    "NaN": (lambda net: with_factor(net.state(), 3, slice(None), float("nan")), {"BN105"}),
    "negative": (lambda net: with_factor(net.state(), 2, slice(3), -1.0), {"BN106"}),
    "swapped": (lambda net: swapped(net.state()), {"BN109"}),
    "exploded": (lambda net: with_factor(net.state(), 1, slice(None), 1e20), {"BN110"}),
    "half precision": (lambda net: halved(net.state()), {"BN111", "BN105"}),
}
"""What happened -> (how to make it, codes of which one at least must be found)."""


def found(path: Path) -> set[str]:
    """Codes that are found, a pass without any."""
    report = bncheck.check(path)
    assert report.layers
    codes = {finding.code for finding in report.findings}
    assert (report.verdict.value == "pass") == all(f.severity.value != "error" for f in report.findings)
    return codes


@pytest.mark.parametrize("how", BROKEN)
def test_broken(net: Trained, how: str, tmp_path: Path) -> None:
    """Each way is named by its rule."""
    make, codes = BROKEN[how]
    torch.save(make(net), tmp_path / "m.pt")
    assert found(tmp_path / "m.pt") & codes


def test_right(net: Trained, tmp_path: Path) -> None:
    """Nothing is found, as a state dict, in a checkpoint, and in ONNX with its batch norm left standing."""
    torch.save(net.state(), tmp_path / "m.pt")
    torch.save({"epoch": 3, "model": net.state()}, tmp_path / "m.ckpt")
    exported(net, tmp_path / "m.onnx", training=False)
    assert [found(tmp_path / name) - DEAD for name in ("m.pt", "m.ckpt", "m.onnx")] == [set()] * 3


def test_exported_in_train_mode(net: Trained, tmp_path: Path) -> None:
    """An error, in every layer."""
    exported(net, tmp_path / "m.onnx", training=True)
    report = bncheck.check(tmp_path / "m.onnx")
    (finding,) = [finding for finding in report.findings if finding.code == "BN205"]
    assert len(finding.layers) == len(report.layers) > 0


def exported(net: Trained, path: Path, *, training: bool, folded: bool = False) -> None:
    """ONNX in one mode, batch norm folded or not."""
    mode = torch.onnx.TrainingMode
    model = copy.deepcopy(net.model).train(training)
    torch.onnx.export(
        model,
        pictures(2, 0)[0],
        path,
        input_names=["x"],
        training=mode.TRAINING if training else mode.EVAL if folded else mode.PRESERVE,
        do_constant_folding=folded,
        dynamo=False,
        opset_version=17,
    )


@pytest.mark.parametrize("training", [False, True])
def test_traced(net: Trained, tmp_path: Path, *, training: bool) -> None:
    """TorchScript keeps the mode in which it was traced, and calls it an error where that is train mode."""
    model = copy.deepcopy(net.model).train(training)
    torch.jit.trace(model, pictures(2, 0)[:1], check_trace=False).save(tmp_path / "m.pt")
    report = bncheck.check(tmp_path / "m.pt")
    seen = [(finding.code, len(finding.layers)) for finding in report.findings if finding.code not in DEAD]
    assert seen == ([("BN205", len(report.layers))] if training else [])


@pytest.mark.parametrize("training", [False, True])
def test_scripted(tmp_path: Path, *, training: bool) -> None:
    """A script is loaded in the mode in which it was saved."""
    model = torch.nn.Sequential(block(3, 8), block(8, 8))
    for seed in range(150):
        model(2 * torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) + 1)
    torch.jit.script(model.train(training)).save(tmp_path / "m.pt")
    assert torch.jit.load(tmp_path / "m.pt").training is training
    found = [(f.code, f.severity.value, len(f.layers)) for f in bncheck.check(tmp_path / "m.pt").findings]
    assert found == ([("BN205", "warning", 2)] if training else [])


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_quantized_by_onnxruntime(net: Trained, form: str, tmp_path: Path) -> None:
    """Batch norm folded, then weights of 8 bits: layers are confirmed, a changed one is named."""
    quantization = pytest.importorskip("onnxruntime.quantization", reason="onnxruntime is not installed")
    exported(net, tmp_path / "float.onnx", training=False, folded=True)
    images = iter([{"x": pair.numpy()} for pair in pictures(8, 1)[0].split(2)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def get_next(self) -> Any:
            return next(images, None)

    quantization.quantize_static(
        tmp_path / "float.onnx", tmp_path / "m.onnx", Reader(), quant_format=quantization.QuantFormat[form]
    )
    torch.save(net.state(), tmp_path / "m.pt")
    proof = bncheck.inspect_model(tmp_path / "m.onnx", reference=tmp_path / "m.pt")
    assert proof.fold is not None
    assert {layer.folded for layer in proof.fold.layers} == {"stored"}
    assert proof.verdict.value == "pass"
    changed = named(net.state(), "running_var")[2].removesuffix(".running_var")
    torch.save(with_factor(net.state(), 2, slice(0, None, 2), 9.0), tmp_path / "m.pt")
    other = bncheck.inspect_model(tmp_path / "m.onnx", reference=tmp_path / "m.pt")
    assert [(f.code, f.layers) for f in other.findings if f.severity.value == "error"] == [("BN407", (changed,))]


class Branching(torch.nn.Module):
    """A block, then one of two by the data, the first of them again in a loop over the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(3, 8), block(8, 8), block(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (samples, 3, height, width) -> (samples, 8)."""
        y = self.a(x)
        y = self.b(y) if bool(y.mean() > 0.1) else self.c(y)
        for _ in range(int(x.shape[0])):
            y = self.b(y)
        return y.mean((2, 3))


@pytest.mark.parametrize("training", [False, True])
def test_branches_and_loops_of_scripted_models(tmp_path: Path, *, training: bool) -> None:
    """Batch norm in an If and a Loop as torch.onnx writes them, judged as anywhere."""
    model = Branching()
    for one in (model.a, model.b, model.c):
        for seed in range(60):
            one(2 * torch.randn(8, one[0].in_channels, 8, 8, generator=torch.Generator().manual_seed(seed)) + 1)
    torch.onnx.export(
        torch.jit.script(model.train(training)),
        (torch.randn(2, 3, 16, 16),),
        tmp_path / "m.onnx",
        input_names=["x"],
        dynamic_axes={"x": [0]},
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        dynamo=False,
        opset_version=17,
    )
    report = bncheck.check(tmp_path / "m.onnx")
    assert [(layer.name, len(layer.sites)) for layer in report.layers] == [("a.1", 1), ("b.1", 2), ("c.1", 1)]
    assert [(f.code, len(f.layers)) for f in report.findings] == ([("BN205", 3)] if training else [])
