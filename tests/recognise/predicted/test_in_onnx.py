"""What weights predict to arrive at a batch norm of an ONNX model, against means of numbers that were drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_writer import constant, statistics, written

import bncheck
from bncheck.facts.layers import Layer
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.sources.onnx.messages import ModelProto

CHANNELS, SIZE = 32, 8
VECTORS = ("weight", "bias", "running_mean", "running_var")


class Net:
    """An ONNX model as it grows: each method adds nodes behind `at`."""

    def __init__(self, *, size: int = SIZE) -> None:
        self.made = ModelProto(ir_version=8, producer_name="pytorch")
        self.made.opset_import.add(domain="", version=17)
        told = self.made.graph.input.add(name="x").type.tensor_type.shape
        for one in (0, 3, size, size):
            told.dim.add(dim_value=one)
        self.at, self.count = "x", 0
        self.rng = np.random.default_rng(1)

    def node(self, op_type: str, *more: str, outputs: int = 1, **attributes: Any) -> Net:
        """A node that reads `at`, then `more`."""
        self.count += 1
        names = [f"v{self.count}", *(f"v{self.count}_{n}" for n in range(1, outputs))]
        node = self.made.graph.node.add(op_type=op_type, input=[self.at, *more], output=names)
        for name, value in attributes.items():
            kind = "ints" if isinstance(value, tuple) else "f" if isinstance(value, float) else "i"
            node.attribute.add(**{"name": name, kind: value})
        self.at = names[0]
        return self

    def held(self, array: Any) -> str:
        """The name of a constant."""
        name = f"c{len(self.made.graph.initializer)}"
        constant(self.made.graph, name, np.asarray(array, "f4"))
        return name

    def norm(self, name: str, channels: int = CHANNELS, **arrays: np.ndarray) -> Net:
        """A batch norm."""
        for key, array in {**statistics(channels), **arrays}.items():
            constant(self.made.graph, f"{name}.{key}", array)
        return self.node("BatchNormalization", *(f"{name}.{key}" for key in VECTORS))

    def conv(self, entering: int = CHANNELS, taps: int = 1, groups: int = 1, **attributes: Any) -> Net:
        """A convolution that pads as far as it reaches."""
        kernel = self.rng.normal(0, 0.5, (CHANNELS, entering // groups, taps, taps))
        pads = (taps // 2,) * 4
        return self.node(
            "Conv", self.held(kernel), self.held(np.linspace(-1, 1, CHANNELS)), group=groups, pads=pads, **attributes
        )

    def last(self, path: Path) -> Layer:
        """The last layer, as it is recognised."""
        self.made.graph.output.add(name=self.at)
        return recognise(open_model(written(path / "m.onnx", self.made)), Options()).layers[-1]


def drawn(net: Net, layer: str, function: Any) -> np.ndarray:
    """(10^5, channels): numbers of a batch norm's output behind a function."""
    held = {tensor.name: np.frombuffer(tensor.raw_data, "f4") for tensor in net.made.graph.initializer}
    gamma, beta = held[f"{layer}.weight"], held[f"{layer}.bias"]
    return function(beta + gamma * np.random.default_rng(0).normal(size=(100_000, beta.size)))


def kernel_of(net: Net, number: int) -> np.ndarray:
    """Of a constant, by its number."""
    tensor = net.made.graph.initializer[number]
    return np.frombuffer(tensor.raw_data, "f4").reshape(tuple(tensor.dims))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """As it is."""
    return 1 / (1 + np.exp(-x))


FORMS: dict[str, tuple[Any, Any]] = {
    "ReLU": (lambda net: net.node("Relu"), lambda x: np.maximum(x, 0)),
    "ReLU6": (lambda net: net.node("Clip", net.held(0.0), net.held(6.0)), lambda x: np.clip(x, 0, 6)),
    "hard swish of parts": (
        lambda net: _times(net, lambda n: n.node("Add", n.held(3.0)).node("Clip", n.held(0.0), n.held(6.0))).node(
            "Div", net.held(6.0)
        ),
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
    ),
    "SiLU": (lambda net: _times(net, lambda n: n.node("Sigmoid")), lambda x: x * sigmoid(x)),
    "a factor a channel": (
        lambda net: net.node("Mul", net.held(np.arange(CHANNELS).reshape(1, -1, 1, 1) / 8 - 2.0)).node("Relu"),
        lambda x: np.maximum(x * (np.arange(CHANNELS) / 8 - 2.0), 0),
    ),
    "a slope a channel": (
        lambda net: net.node("PRelu", net.held(np.linspace(-1, 1, CHANNELS).reshape(-1, 1, 1))),
        lambda x: np.where(x > 0, x, np.linspace(-1, 1, CHANNELS) * x),
    ),
    "halves in turn": (
        lambda net: _halves(net.node("Relu").node("Split", outputs=2, axis=1)),
        lambda x: np.roll(np.maximum(x, 0), CHANNELS // 2, axis=1),
    ),
    "channels last": (
        lambda net: (
            net.node("Transpose", perm=(0, 2, 3, 1))
            .node("Add", net.held(np.linspace(-2, 2, CHANNELS)))
            .node("Transpose", perm=(0, 3, 1, 2))
        ),
        lambda x: x + np.linspace(-2, 2, CHANNELS),
    ),
}


def _times(net: Net, gate: Any) -> Net:
    value = net.at
    return gate(net).node("Mul", value)


def _halves(net: Net) -> Net:
    first = net.at
    net.at = f"{first}_1"
    return net.node("Concat", first, axis=1)


@pytest.mark.parametrize("form", FORMS)
def test_means_behind_each_form(tmp_path: Path, form: str) -> None:
    """Through the function and a kernel of one tap, bias included."""
    add, function = FORMS[form]
    net = Net().conv(3).norm("a")
    add(net)
    constants = len(net.made.graph.initializer)
    predicted = net.conv().norm("b").last(tmp_path).predicted
    assert predicted is not None
    expected = drawn(net, "a", function).mean(axis=0) @ kernel_of(net, constants)[:, :, 0, 0].T
    np.testing.assert_allclose(predicted.mean, expected + np.linspace(-1, 1, CHANNELS), atol=0.1)
    assert not predicted.rough


@pytest.mark.parametrize("groups", [2, CHANNELS])
def test_convolutions_in_groups(tmp_path: Path, groups: int) -> None:
    """Each group sees its own channels."""
    net = Net().conv(3).norm("a").node("Relu").conv(groups=groups).norm("b")
    predicted = net.last(tmp_path).predicted
    assert predicted is not None
    each = drawn(net, "a", lambda x: np.maximum(x, 0)).mean(axis=0).reshape(groups, -1)
    kernel = kernel_of(net, 6)[:, :, 0, 0].reshape(groups, CHANNELS // groups, -1)
    expected = np.einsum("gi,goi->go", each, kernel).reshape(-1) + np.linspace(-1, 1, CHANNELS)
    np.testing.assert_allclose(predicted.mean, expected, atol=0.05)


def test_borders_count_and_unknown_sizes_say_nothing(tmp_path: Path) -> None:
    """Of a kernel of nine taps: at a border it sees zeros."""
    known = Net().conv(3).norm("a").conv(taps=3).norm("b").last(tmp_path).predicted
    net = Net(size=0).conv(3).norm("a").conv(taps=3).norm("b")
    assert net.last(tmp_path).predicted is None
    met = np.array([7, 8, 7]) / 8
    seen = np.einsum("oihw,h,w->oi", kernel_of(net, 6), met, met)
    assert known is not None
    np.testing.assert_allclose(
        known.mean, seen @ kernel_of(net, 3) + np.linspace(-1, 1, CHANNELS), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "add",
    [
        lambda net: net.node("Reshape", net.held([0, 2, -1, 8, 8])).node("Relu"),
        lambda net: net.node("Transpose", perm=(0, 1, 3, 2)),
        lambda net: net.node("Softmax", axis=1),
        lambda net: net.node("Add", net.held(np.ones(8))),
    ],
)
def test_what_is_not_understood_predicts_nothing(tmp_path: Path, add: Any) -> None:
    """Channels may be in another order then."""
    assert add(Net().conv(3).norm("a")).conv().norm("b").last(tmp_path).predicted is None


def test_levels_behind_a_sum_say_nothing(tmp_path: Path) -> None:
    """Its channels may vary together; a kernel that skips places of a small map sees no mean of all."""
    net = Net().conv(3).norm("a")
    one = net.at
    net.conv().norm("b").node("Add", one).conv().norm("c")
    predicted = net.last(tmp_path).predicted
    assert predicted is not None
    assert (predicted.spread_known, predicted.rough) == (False, False)
    skipping = Net(size=4).conv(3).norm("a").conv(strides=(2, 2)).norm("b").last(tmp_path).predicted
    assert skipping is not None
    assert skipping.rough


def test_statistics_of_other_channels_are_found(tmp_path: Path) -> None:
    """Those that the weights predict are healthy, the same in another order an error."""
    net = Net().conv(3).norm("a").node("Relu").conv().norm("b")
    predicted = net.last(tmp_path).predicted
    assert predicted is not None
    found = {}
    for name, order in (("right", np.arange(CHANNELS)), ("turned", np.roll(np.arange(CHANNELS), 5))):
        one = Net().conv(3).norm("a").node("Relu").conv()
        one.norm("b", running_mean=predicted.mean[order], running_var=predicted.variance[order])
        one.made.graph.output.add(name=one.at)
        report = bncheck.inspect_model(written(tmp_path / f"{name}.onnx", one.made))
        found[name] = [finding.layers for finding in report.findings if finding.code == "BN119"]
    assert found == {"right": [], "turned": [("b",)]}
