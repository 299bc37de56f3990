"""Layers by the names of their variables: one test a family, and one a trap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import Partitioned, chunk, number, write_bundle

from bncheck.facts.gaps import GapKind
from bncheck.facts.layers import DecaySource, Facts, Origin, Presence
from bncheck.recognise.named.by_name import recognise_names
from bncheck.settings.options import Options
from bncheck.sources.arrays import read_arrays
from bncheck.sources.bundle.checkpoint import read_checkpoint

OBJECT = "/.ATTRIBUTES/VARIABLE_VALUE"
ROLES = ("mean", "variance", "gamma", "beta")


def vec(*values: float) -> Any:
    """A float32 vector; of one number: four channels of it."""
    return np.float32(values if len(values) > 1 else [values[0]] * 4)


def facts(folder: Path, tensors: dict[str, Any], hints: Options | None = None, *, data: bool = True) -> Facts:
    """The facts of a checkpoint with these tensors."""
    write_bundle(folder / "m", tensors, data=data)
    return recognise_names(read_checkpoint(folder / "m"), hints or Options())


def shown(found: Facts) -> dict[str, tuple[str, ...]]:
    """Layer -> the names of its four vectors, "" for what is absent, "!" before what is missing."""
    marks = {Presence.ABSENT: "", Presence.MISSING: "!"}
    return {
        layer.name: tuple(
            (marks.get(vector.presence, "") + vector.name) if vector.presence is not Presence.ABSENT else ""
            for vector in (layer.mean, layer.variance, layer.gamma, layer.beta)
        )
        for layer in found.layers
    }


@pytest.mark.parametrize(
    ("names", "layer"),
    [
        (
            ("c/BatchNorm/moving_mean", "c/BatchNorm/moving_variance", "c/BatchNorm/gamma", "c/BatchNorm/beta"),
            "c/BatchNorm",
        ),
        (("c/BatchNorm/moving_mean", "c/BatchNorm/moving_variance", "", "c/BatchNorm/beta"), "c/BatchNorm"),
        (("bn/moving_mean", "bn/moving_variance", "", ""), "bn"),
        (("bn/moving_mean", "bn/moving_var", "bn/scale", "bn/shift"), "bn"),
        (("bn/pop_mean", "bn/pop_var", "bn/scale", "bn/offset"), "bn"),
        (("pop_mean_2", "pop_var_2", "scale_2", "beta_2"), "pop_mean_2"),
        (("bn/population_mean", "bn/population_variance", "", "bn/beta"), "bn"),
        (("l.0.bn1.running_mean", "l.0.bn1.running_var", "l.0.bn1.weight", "l.0.bn1.bias"), "l.0.bn1"),
        (("bn/running_mean", "bn/running_variance", "bn/gamma", "bn/beta"), "bn"),
        (("conv0/bn/mean/EMA", "conv0/bn/variance/EMA", "conv0/bn/gamma", "conv0/bn/beta"), "conv0/bn"),
        (("bn_conv1/mean", "bn_conv1/variance", "bn_conv1/scale", "bn_conv1/offset"), "bn_conv1"),
        (("bn/mean", "bn/var", "bn/gamma", "bn/beta"), "bn"),
        (("bn1_moving_mean", "bn1_moving_variance", "bn1_gamma", "bn1_beta"), "bn1"),
        (("moving_mean", "moving_variance", "gamma", "beta"), "moving_mean"),
    ],
)
def test_families(tmp_path: Path, names: tuple[str, ...], layer: str) -> None:
    """Each family of names is one layer, with its four vectors in their roles."""
    tensors = {name: vec(place + 2, 9, 1, 3) for place, name in enumerate(names) if name}
    found = facts(tmp_path, tensors)
    assert shown(found) == {layer: names}
    (only,) = found.layers
    assert only.origin is Origin.NAME
    assert only.channels == 4
    assert only.moved
    assert only.mean.values is not None
    assert only.mean.values[0] == 2
    assert only.variance.values is not None
    assert only.variance.values[0] == 3


@pytest.mark.parametrize(
    ("mean", "variance"),
    [
        ("bn/moments/Squeeze/ExponentialMovingAverage", "bn/moments/Squeeze_1/ExponentialMovingAverage"),
        ("bn/bn/moments/Squeeze/ExponentialMovingAverage", "bn/bn/moments/Squeeze_1/ExponentialMovingAverage"),
        ("bn/bn_1/moments/Squeeze/ExponentialMovingAverage", "bn/bn_1/moments/Squeeze_1/ExponentialMovingAverage"),
        (
            "bn/moments/normalize/mean/ExponentialMovingAverage",
            "bn/moments/normalize/variance/ExponentialMovingAverage",
        ),
        (
            "bn/moments/moments_1/mean/ExponentialMovingAverage",
            "bn/moments/moments_1/variance/ExponentialMovingAverage",
        ),
    ],
)
def test_averages_of_moments(tmp_path: Path, mean: str, variance: str) -> None:
    """tf.train.ExponentialMovingAverage over tf.nn.moments: both averages start at 0."""
    found = facts(tmp_path, {mean: vec(0), variance: vec(0), "bn/gamma": vec(2), "bn/beta": vec(1)})
    assert shown(found) == {"bn": (mean, variance, "bn/gamma", "bn/beta")}
    assert found.layers[0].moved is False
    assert found.layers[0].variance.starts_at == 0


def test_index_only(tmp_path: Path) -> None:
    """Without data never-moved is decided by checksum, and the vectors are unread."""
    tensors = {"bn/moving_mean": vec(0), "bn/moving_variance": vec(1), "bn/gamma": vec(1), "bn/beta": vec(1, 2, 3, 4)}
    found = facts(tmp_path, tensors, data=False)
    (layer,) = found.layers
    assert [v.presence for v in (layer.mean, layer.variance, layer.gamma, layer.beta)] == [Presence.UNREAD] * 4
    assert [v.moved for v in (layer.mean, layer.variance, layer.gamma, layer.beta)] == [False, False, False, True]


@pytest.mark.parametrize(("there", "gone"), [("moving_mean", "moving_variance"), ("moving_variance", "moving_mean")])
def test_one_of_the_pair(tmp_path: Path, there: str, gone: str) -> None:
    """A statistic without its pair is a layer of which the other is missing, by the name it should have."""
    found = facts(tmp_path, {f"bn/{there}": vec(3), "bn/beta": vec(1)})
    (layer,) = found.layers
    absent = layer.variance if there == "moving_mean" else layer.mean
    assert (absent.presence, absent.name, absent.shape) == (Presence.MISSING, f"bn/{gone}", (4,))
    assert absent.reason == "not in the file, where its pair is"
    assert layer.gamma.presence is Presence.ABSENT


@pytest.mark.parametrize("scope", ["Conv/BatchNorm", "batch_normalization_3", "BatchNorm_1"])
def test_statistics_missing(tmp_path: Path, scope: str) -> None:
    """Gamma and beta alone under a framework's own batch norm scope: the statistics were not saved."""
    found = facts(tmp_path, {f"{scope}/beta": vec(2), f"{scope}/beta/Adam": vec(2)})
    assert shown(found) == {scope: (f"!{scope}/moving_mean", f"!{scope}/moving_variance", "", f"{scope}/beta")}


@pytest.mark.parametrize(
    "tensors",
    [
        {"LayerNorm/gamma": vec(2), "LayerNorm/beta": vec(1)},
        {"group_normalization/gamma": vec(2), "group_normalization/beta": vec(1)},
        {"bn/gamma": vec(2), "bn/beta": vec(1)},
        {"normalization/mean": vec(2), "normalization/variance": vec(1), "normalization/count": np.int64(3)},
        {"stats/mean": vec(2), "stats/variance": vec(1)},
        {"metric/mean": np.float32(2), "metric/variance": np.float32(2), "metric/scale": np.float32(2)},
        {"head/mean": vec(2), "head/variance": vec(1), "head/scale": vec(1, 2, 3)},
        {"act_quant/min": np.float32(0), "act_quant/max": np.float32(6)},
        {"act_quant/min/biased": np.float32(0), "act_quant/min/local_step": np.float32(6)},
        {"obs/running_mean": vec(1)},
        {"conv/weights": np.ones((3, 3, 4, 4), np.float32), "conv/biases": vec(1)},
        {"bn/gamma/Adam": vec(2), "bn/moving_average_of_loss": np.float32(2)},
    ],
)
def test_no_batch_norm(tmp_path: Path, tensors: dict[str, Any]) -> None:
    """Other normalisations, input statistics and quantization ranges are no layers."""
    found = facts(tmp_path, tensors)
    assert found.layers == ()
    assert found.gaps == ()


def test_auxiliaries_are_no_vectors(tmp_path: Path) -> None:
    """Slots, averages, zero-debias and renorm variables beside a layer do not change its vectors."""
    own = {"bn/moving_mean": vec(2), "bn/moving_variance": vec(3), "bn/gamma": vec(4), "bn/beta": vec(5)}
    beside = {
        "bn/gamma/Adam": vec(6),
        "bn/gamma/Adam_1": vec(6),
        "bn/beta/Momentum": vec(6),
        "bn/beta/RMSProp": vec(6),
        "optim/bn/gamma/Adam": vec(6),
        "training/Adam/bn/gamma/m": vec(6),
        "bn/renorm_mean": vec(6),
        "bn/renorm_stddev": vec(6),
        "bn/renorm_mean_weight": np.float32(1),
    }
    found = facts(tmp_path, own | beside)
    assert shown(found) == {"bn": tuple(own)}
    assert found.layers[0].debias is None
    assert dict(found.layers[0].averaged) == {}


@pytest.mark.parametrize("scope", ["bn", "bn/bn", "net/bn/bn", "tower_0/bn"])
def test_zero_debias(tmp_path: Path, scope: str) -> None:
    """Zero-debias auxiliaries are found under the scope, doubled or prefixed, and told apart by statistic."""
    tensors = {
        "bn/moving_mean": vec(2),
        "bn/moving_variance": vec(3),
        f"{scope}/moving_mean/biased": vec(1),
        f"{scope}/moving_mean/local_step": np.float32(7),
    }
    (layer,) = facts(tmp_path, tensors).layers
    assert layer.debias is not None
    assert (layer.debias.mean, layer.debias.variance) == (True, False)


def test_weight_averages(tmp_path: Path) -> None:
    """Averages of gamma, beta, kernel and of the statistics themselves are known by their keys."""
    average = "/ExponentialMovingAverage"
    own = {
        "c/bn/moving_mean": vec(2),
        "c/bn/moving_variance": vec(3),
        "c/bn/gamma": vec(4),
        "c/weights": np.ones((1, 1, 2, 4), np.float32),
    }
    shadows = {key + average: value + 1 for key, value in own.items()}
    (layer,) = facts(tmp_path, own | shadows).layers
    assert layer.averaged == {"gamma": f"c/bn/gamma{average}", "kernel": f"c/weights{average}"}
    assert {role: vector.constant for role, vector in layer.shadow_statistics.items()} == {"mean": 3, "variance": 4}


def test_partitioned(tmp_path: Path) -> None:
    """Statistics of a partitioned variable are put together."""
    tensors = {"bn/moving_mean": Partitioned(vec(1, 2, 3, 4), 0, (2,)), "bn/moving_variance": vec(3)}
    (layer,) = facts(tmp_path, tensors).layers
    assert layer.mean.values is not None
    assert layer.mean.values.tolist() == [1, 2, 3, 4]


def test_rank_four_statistics(tmp_path: Path) -> None:
    """Sonnet keeps statistics as [1, 1, 1, channels]."""
    shape = (1, 1, 1, 4)
    names = ("moving_mean", "moving_variance", "gamma", "beta")
    (layer,) = facts(tmp_path, {f"bn/{n}": np.full(shape, 2, np.float32) for n in names}).layers
    assert (layer.channels, layer.gamma.presence) == (4, Presence.PRESENT)


def test_statistics_that_do_not_go_together(tmp_path: Path) -> None:
    """A mean of 4 channels with a variance of 2 is a gap, not a layer."""
    found = facts(tmp_path, {"bn/moving_mean": vec(1), "bn/moving_variance": vec(1, 2)})
    assert found.layers == ()
    assert (found.gaps[0].kind, found.gaps[0].where) == (GapKind.LAYER, "bn")


def test_affine_of_another_size(tmp_path: Path) -> None:
    """A `scale` of another size beside the statistics is not the layer's gamma."""
    (layer,) = facts(tmp_path, {"bn/pop_mean": vec(1), "bn/pop_var": vec(2), "bn/scale": np.float32(3)}).layers
    assert layer.gamma.presence is Presence.ABSENT


def test_decay_given(tmp_path: Path) -> None:
    """--decay is the layers' decay, and says so."""
    tensors = {"bn/moving_mean": vec(1), "bn/moving_variance": vec(2)}
    (layer,) = facts(tmp_path, tensors, Options(decay=0.99)).layers
    assert (layer.decay, layer.decay_from) == (0.99, DecaySource.OPTION)


KERNEL = np.arange(2 * 4, dtype=np.float32).reshape(1, 1, 2, 4)


@pytest.mark.parametrize(
    ("layer", "kernel", "values", "op"),
    [
        ("Conv/BatchNorm", "Conv/weights", KERNEL, "Conv2D"),
        ("dw/BatchNorm", "dw/depthwise_weights", KERNEL.reshape(1, 1, 4, 2)[:, :, :, :1], "DepthwiseConv2dNative"),
        ("dw/BatchNorm", "dw/depthwise_weights", KERNEL.reshape(1, 2, 2, 2), "DepthwiseConv2dNative"),
        ("conv0/bn", "conv0/W", KERNEL, "Conv2D"),
        ("fc/bn", "fc/weights", KERNEL[0, 0], "MatMul"),
        ("a/conv1_bn", "a/conv1/weights", KERNEL, "Conv2D"),
        ("bn_Conv1", "Conv1/kernel", KERNEL, "Conv2D"),
        ("block_depthwise_BN", "block_depthwise/depthwise_kernel", KERNEL.reshape(1, 2, 2, 2), "DepthwiseConv2dNative"),
        ("conv1", "conv1/weights", KERNEL, "Conv2D"),
        (
            "up/Conv2d_transpose/BatchNorm",
            "up/Conv2d_transpose/weights",
            KERNEL.transpose(0, 1, 3, 2),
            "Conv2DBackpropInput",
        ),
    ],
)
def test_kernel_before(tmp_path: Path, layer: str, kernel: str, values: Any, op: str) -> None:
    """The kernel right before a layer is found by name and channels, with its largest weights."""
    tensors = {f"{layer}/moving_mean": vec(1), f"{layer}/moving_variance": vec(2), kernel: values}
    linear = facts(tmp_path, tensors).layers[0].linear
    assert linear is not None
    assert (linear.name, linear.op, linear.kernel) == (kernel.rpartition("/")[0], op, kernel)
    assert linear.channel_max is not None
    assert linear.channel_max.shape == (4,)


def test_separable(tmp_path: Path) -> None:
    """After a separable convolution it is the pointwise kernel that the layer folds into."""
    tensors = {
        "s/BatchNorm/moving_mean": vec(1),
        "s/BatchNorm/moving_variance": vec(2),
        "s/depthwise_weights": np.ones((3, 3, 4, 1), np.float32),
        "s/pointwise_weights": np.ones((1, 1, 4, 4), np.float32),
    }
    linear = facts(tmp_path, tensors).layers[0].linear
    assert linear is not None
    assert linear.kernel == "s/pointwise_weights"


@pytest.mark.parametrize(
    "tensors",
    [
        {"c/bn/moving_mean": vec(1), "c/bn/moving_variance": vec(1), "c/weights": np.ones((1, 1, 4, 3), np.float32)},
        {
            "c/bn1/moving_mean": vec(1),
            "c/bn1/moving_variance": vec(1),
            "c/bn2/moving_mean": vec(1),
            "c/bn2/moving_variance": vec(1),
            "c/weights": np.ones((1, 1, 3, 4), np.float32),
        },
        {"bn1/moving_mean": vec(1), "bn1/moving_variance": vec(1), "conv1/weights": np.ones((1, 1, 3, 4), np.float32)},
        {
            "block/preact/moving_mean": vec(1),
            "block/preact/moving_variance": vec(1),
            "block/conv1/weights": np.ones((1, 1, 3, 4), np.float32),
        },
    ],
)
def test_kernel_in_doubt(tmp_path: Path, tensors: dict[str, Any]) -> None:
    """Other channels, two layers for one kernel, or names that do not tell what comes first: no kernel is named."""
    assert all(layer.linear is None for layer in facts(tmp_path, tensors).layers)


def object_graph(nodes: list[tuple[dict[str, int], tuple[str, str] | None]]) -> bytes:
    """A TrackableObjectGraph of (children, (key, full name))."""
    message = b""
    for children, variable in nodes:
        node = b"".join(chunk(1, number(1, to) + chunk(2, name.encode())) for name, to in children.items())
        if variable is not None:
            key, full = variable
            node += chunk(2, chunk(1, b"VARIABLE_VALUE") + chunk(2, full.encode()) + chunk(3, key.encode()))
        message += chunk(1, node)
    return message


def test_object_graph(tmp_path: Path) -> None:
    """Variables of one object are one layer, wherever their keys stand, and it has the variables' own name."""
    keys = {
        "moving_mean": f"model/_operations/2/moving_mean{OBJECT}",
        "moving_variance": f"model/_operations/2/moving_variance{OBJECT}",
        "gamma": f"optimizer/_trainable_variables/0{OBJECT}",
        "beta": f"optimizer/_trainable_variables/1{OBJECT}",
    }
    nodes: list[Any] = [({"layer": 1}, None), ({role: 2 + place for place, role in enumerate(keys)}, None)]
    nodes += [({}, (key, f"net/bn/{role}")) for role, key in keys.items()]
    tensors = {key: vec(place + 2) for place, key in enumerate(keys.values())}
    found = facts(tmp_path, tensors | {"_CHECKPOINTABLE_OBJECT_GRAPH": object_graph(nodes)})
    assert shown(found) == {"net/bn": tuple(keys.values())}
    assert found.layers[0].origin is Origin.OBJECT_GRAPH


def test_own_names_only(tmp_path: Path) -> None:
    """Keras 3 `export()` numbers its keys: the layer survives in the variables' own names, once."""
    tensors: dict[str, Any] = {}
    nodes: list[Any] = [({}, None)]
    for folder in ("_all_variables", "variables"):
        for place, role in enumerate(("gamma", "beta", "moving_mean", "moving_variance")):
            key = f"{folder}/{place}{OBJECT}"
            tensors[key] = vec(place + 2)
            nodes.append(({}, (key, f"sequential/bn/{role}")))
    found = facts(tmp_path, tensors | {"_CHECKPOINTABLE_OBJECT_GRAPH": object_graph(nodes)})
    first = [f"_all_variables/{place}{OBJECT}" for place in (2, 3, 0, 1)]
    assert shown(found) == {"sequential/bn": tuple(first)}


def test_own_names_within_an_object(tmp_path: Path) -> None:
    """Modules whose attributes have names of their own are told by those of their variables, one layer each."""
    roles = {"m": "pop_mean", "v": "pop_var", "g": "scale", "b": "offset"}
    tensors: dict[str, Any] = {}
    nodes: list[Any] = [({"0": 1, "1": 6}, None)]
    for block in ("0", "1"):
        nodes.append(({attribute: len(nodes) + 1 + place for place, attribute in enumerate(roles)}, None))
        for attribute, name in roles.items():
            key = f"{block}/{attribute}{OBJECT}"
            tensors[key] = vec(len(nodes))
            nodes.append(({}, (key, name)))
    found = facts(tmp_path, tensors | {"_CHECKPOINTABLE_OBJECT_GRAPH": object_graph(nodes)})
    order = ("m", "v", "g", "b")
    assert shown(found) == {block: tuple(f"{block}/{a}{OBJECT}" for a in order) for block in ("0", "1")}


def test_repeated_own_names(tmp_path: Path) -> None:
    """Two objects whose variables have the same names are two layers, called by their paths."""
    tensors: dict[str, Any] = {}
    nodes: list[Any] = [({"a": 1, "b": 2}, None)]
    children: list[dict[str, int]] = [{}, {}]
    variables: list[Any] = []
    for which, block in enumerate(("a", "b")):
        for role in ("moving_mean", "moving_variance"):
            children[which][role] = 3 + len(variables)
            tensors[f"{block}/{role}{OBJECT}"] = vec(2)
            variables.append(({}, (f"{block}/{role}{OBJECT}", f"bn/{role}")))
    nodes += [(of, None) for of in children] + variables
    found = facts(tmp_path, tensors | {"_CHECKPOINTABLE_OBJECT_GRAPH": object_graph(nodes)})
    assert [layer.name for layer in found.layers] == ["a", "b"]


def test_object_keys_without_graph(tmp_path: Path) -> None:
    """Index only, an object-based checkpoint is read by its keys."""
    tensors = {f"model/layer-1/{role}{OBJECT}": vec(2) for role in ("moving_mean", "moving_variance", "gamma", "beta")}
    slot = f"model/layer-1/gamma/.OPTIMIZER_SLOT/optimizer/m{OBJECT}"
    found = facts(tmp_path, tensors | {slot: vec(3), "_CHECKPOINTABLE_OBJECT_GRAPH": b""}, data=False)
    assert shown(found) == {"model/layer-1": tuple(tensors)}
    assert found.run.optimizer_slots == (1, 1)


def test_many_layers(tmp_path: Path) -> None:
    """Layers come in the order of the file, numbered so."""
    tensors = {f"bn_{n}/{role}": vec(2) for n in range(30) for role in ("moving_mean", "moving_variance", "beta")}
    found = facts(tmp_path, tensors)
    assert [layer.name for layer in found.layers] == sorted(f"bn_{n}" for n in range(30))
    assert [layer.order for layer in found.layers] == list(range(30))


REAL = Path(__file__).parents[3].parent / "shared" / "real"
here = pytest.mark.skipif(not REAL.is_dir(), reason="the real models are not beside this checkout")


@here
@pytest.mark.parametrize(
    ("path", "layers", "never_moved", "kernels"),
    [
        ("chiron_dna", 10, 0, 10),
        ("basic_pitch/nmp/variables", 3, 0, 0),
        ("mlperf_tiny_kws/kws_ref_model/variables", 9, 0, 0),
        ("handtracking_meta/model.ckpt", 60, 0, 60),
        ("unetcoreograph_meta", 4, 0, 0),
        ("spleeter_meta/2stems", 24, 24, 0),
        ("spleeter_meta/4stems", 48, 48, 0),
        ("spleeter_meta/5stems", 60, 60, 0),
    ],
)
def test_real_checkpoints(path: str, layers: int, never_moved: int, kernels: int) -> None:
    """Strangers' checkpoints give the known number of layers; Spleeter's never moved, by checksum."""
    found = recognise_names(read_checkpoint(REAL / path), Options())
    assert len(found.layers) == layers
    assert sum(layer.moved is False for layer in found.layers) == never_moved
    assert sum(layer.linear is not None for layer in found.layers) == kernels
    assert found.gaps == ()
    assert all(layer.affine_moved is not None for layer in found.layers)


@here
def test_real_archive() -> None:
    """MobileNetV2's weights as a .npz: 52 layers, each with the kernel before it."""
    found = recognise_names(read_arrays(REAL / "nsfwjs_mobilenetv2.npz"), Options())
    assert len(found.layers) == 52
    assert sum(layer.channels or 0 for layer in found.layers) == 17_056
    assert all(layer.linear is not None and layer.linear.channel_max is not None for layer in found.layers)


def test_variable_called_as_a_scope(tmp_path: Path) -> None:
    """A variable whose name is also the scope of a layer does not hide the layer."""
    found = facts(tmp_path, {"bn": vec(1), "bn/moving_mean": vec(2), "bn/moving_variance": vec(3), "bn/gamma": vec(1)})
    assert shown(found) == {"bn": ("bn/moving_mean", "bn/moving_variance", "bn/gamma", "")}
    assert found.run.optimizer_slots is None


def test_layers_that_only_the_optimizer_knows(tmp_path: Path) -> None:
    """Keras 3 layers in a Python list: gamma and beta are saved with the optimizer, the statistics are missing."""
    keys = [f"optimizer/_trainable_variables/{n}{OBJECT}" for n in (0, 1)]
    keys += [f"optimizer/_variables/{n}{OBJECT}" for n in (2, 4)]
    own = ["net/gamma", "net/beta"] + [
        f"adam/net_block_batch_normalization_7_{role}_momentum" for role in ("gamma", "beta")
    ]
    nodes: list[Any] = [({"optimizer": 1}, None), ({"_trainable_variables": 2, "_momentums": 3}, None)]
    nodes += [({"0": 4, "1": 5}, None), ({"0": 6, "1": 7}, None)]
    nodes += [({}, pair) for pair in zip(keys, own, strict=True)]
    tensors = {key: vec(2) for key in keys} | {"_CHECKPOINTABLE_OBJECT_GRAPH": object_graph(nodes)}
    (layer,) = facts(tmp_path, tensors).layers
    assert (layer.name, layer.gamma.name, layer.beta.name) == ("net_block/batch_normalization_7", *keys[:2])
    assert {vector.presence for vector in layer.statistics} == {Presence.MISSING}


@pytest.mark.parametrize("optimizer", ["optimizer", "opt"])
def test_optimizers_copy_of_gamma(tmp_path: Path, optimizer: str) -> None:
    """An optimizer's variables with a layer's own names (`Adam/m/batch_normalization/gamma`) are no second layer."""
    roles = ("moving_mean", "moving_variance", "gamma", "beta")
    keys = [f"model/l/{role}{OBJECT}" for role in roles] + [f"{optimizer}/_variables/{n}{OBJECT}" for n in (1, 2)]
    own = [f"batch_normalization/{role}" for role in roles]
    own += ["Adam/m/batch_normalization/gamma", "Adam/v/batch_normalization/gamma"]
    nodes: list[Any] = [({}, None)] + [({}, pair) for pair in zip(keys, own, strict=True)]
    tensors = {key: vec(2) for key in keys} | {"_CHECKPOINTABLE_OBJECT_GRAPH": object_graph(nodes)}
    found = facts(tmp_path, tensors | {f"{optimizer}/_iterations{OBJECT}": np.asarray(3, np.int64)})
    assert list(shown(found)) == ["model/l"]
    assert found.run.optimizer_slots == (2, 2)
