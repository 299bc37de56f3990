"""`recognise/by_config.py`: batch norm in Keras files by configuration, by name, by position, and how it is applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_writer import (
    ROLES,
    archive,
    batch_norm,
    bn_values,
    conv,
    functional,
    h5_file,
    inputs,
    layer,
    scoped,
    sequential,
    vars_bytes,
)
from numpy.typing import NDArray

from bncheck.facts.gaps import GapKind
from bncheck.facts.layers import DecaySource, Facts, Layer, Mode, Origin, Presence, Site, Vector
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources.keras.keras import read_keras

REAL = Path(__file__).parents[3].parent / "shared" / "real"
KERNEL = np.arange(-54, 54, dtype=np.float32).reshape(3, 3, 3, 4)


def facts(path: Path, hints: Options | None = None) -> Facts:
    """What is recognised in a Keras file."""
    return recognise(read_keras(path), hints or Options())


def keras_2(tmp_path: Path, *layers: dict[str, Any], **weights: Mapping[str, NDArray[Any]]) -> Facts:
    """A Sequential in HDF5; batch norms get weights unless given."""
    stored: dict[str, Mapping[str, NDArray[Any]]] = {}
    for one in layers:
        name = one["config"]["name"]
        default = scoped(name, bn_values()) if one["class_name"] == "BatchNormalization" else {}
        stored[name] = weights.get(name, default)
    return facts(h5_file(tmp_path / "m.h5", sequential(*layers), stored))


def only(found: Facts) -> Layer:
    """Its one layer."""
    assert len(found.layers) == 1
    return found.layers[0]


def site(found: Facts) -> Site:
    """The one site of its one layer."""
    assert len(only(found).sites) == 1
    return only(found).sites[0]


def vectors(found: Layer) -> dict[str, Vector]:
    """By the names that Keras gives."""
    return dict(zip(ROLES, (found.gamma, found.beta, found.mean, found.variance), strict=True))


def test_takes_everything_from_the_configuration(tmp_path: Path) -> None:
    """Epsilon, decay, axis, trainable, initial values; the four vectors bit-exactly."""
    bn = batch_norm(
        "bn",
        axis=[3],
        momentum=0.9,
        epsilon=1e-5,
        trainable=False,
        moving_variance_initializer={"class_name": "Constant", "config": {"value": 0.25}},
        gamma_initializer={"class_name": "Zeros", "config": {}},
        beta_initializer="ones",
    )
    found = only(keras_2(tmp_path, bn))
    assert (found.name, found.origin, found.channels) == ("bn", Origin.CONFIG, 4)
    assert (found.epsilon, found.decay, found.decay_from, found.trainable) == (
        1e-5,
        0.9,
        DecaySource.CONFIGURATION,
        False,
    )
    assert (found.variance.starts_at, found.gamma.starts_at, found.beta.starts_at, found.mean.starts_at) == (
        0.25,
        0,
        1,
        0,
    )
    assert (found.sites[0].axis, found.sites[0].epsilon, found.sites[0].form) == (3, 1e-5, "BatchNormalization")
    for role, vector in vectors(found).items():
        assert vector.presence is Presence.PRESENT
        np.testing.assert_array_equal(vector.values, bn_values()[role].astype(np.float64))
    assert only(facts(tmp_path / "m.h5", Options(decay=0.5))).decay_from is DecaySource.OPTION


@pytest.mark.parametrize(("scale", "center"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("layout", ["named", "positional"])
def test_absent_by_design_shifts_the_positions(tmp_path: Path, layout: str, *, scale: bool, center: bool) -> None:
    """Without gamma or beta, unnamed weights move up; the vectors are ABSENT, not MISSING."""
    roles = [role for role in ROLES if (scale or role != "gamma") and (center or role != "beta")]
    values = bn_values(roles=roles)
    model = sequential(batch_norm("bn", scale=scale, center=center))
    if layout == "named":
        path = h5_file(tmp_path / "m.h5", model, {"bn": scoped("bn", values)})
    else:
        path = archive(tmp_path / "m.keras", model, {"layers/batch_normalization": ("bn", list(values.values()))})
    for role, vector in vectors(only(facts(path))).items():
        if role in values:
            np.testing.assert_array_equal(vector.values, values[role].astype(np.float64))
        else:
            assert (vector.presence, vector.reason[:9]) == (Presence.ABSENT, "the layer")


def test_statistics_that_the_file_lacks_are_missing(tmp_path: Path) -> None:
    """Named weights without moving ones: MISSING; a file without any weights: UNREAD."""
    values = bn_values(roles=("gamma", "beta"))
    found = only(keras_2(tmp_path, batch_norm("bn"), bn=scoped("bn", values)))
    assert [v.presence for v in found.statistics] == [Presence.MISSING] * 2
    assert found.mean.name == "bn/moving_mean"
    nothing = only(
        facts(archive(tmp_path / "m.keras", sequential(batch_norm("bn")), {"layers/batch_normalization": ("bn", [])}))
    )
    assert [v.presence for v in nothing.statistics] == [Presence.UNREAD] * 2


def test_unnamed_weights_that_do_not_fit_are_a_gap(tmp_path: Path) -> None:
    """Three unnamed vectors for a layer of four are not guessed at."""
    values = list(bn_values().values())[:3]
    found = facts(
        archive(tmp_path / "m.keras", sequential(batch_norm("bn")), {"layers/batch_normalization": ("bn", values)})
    )
    assert [(gap.kind, gap.where) for gap in found.gaps] == [(GapKind.STATISTICS, "bn")]
    assert only(found).mean.presence is Presence.UNREAD


def test_batch_renormalisation_keeps_further_vectors(tmp_path: Path) -> None:
    """renorm=True stores three more behind the four."""
    values = [*bn_values().values(), *bn_values(seed=1, roles=("a", "b", "c")).values()]
    model = sequential(batch_norm("bn", renorm=True))
    found = only(facts(archive(tmp_path / "m.keras", model, {"layers/batch_normalization": ("bn", values)})))
    np.testing.assert_array_equal(found.variance.values, bn_values()["moving_variance"].astype(np.float64))


def test_other_normalisations_are_not_batch_norm(tmp_path: Path) -> None:
    """Layer, group and feature normalisation have gamma and beta, or statistics, of other kinds."""
    vector = np.ones(4, np.float32)
    others = {
        "LayerNormalization": {"gamma": vector, "beta": vector},
        "GroupNormalization": {"gamma": vector, "beta": vector},
        "Normalization": {"mean": vector, "variance": vector, "count": np.int64(3)},
        "Dense": {"kernel": KERNEL[0, 0], "bias": vector},
    }
    layers = [layer(name, name.lower(), epsilon=1e-3, momentum=0.9) for name in others]
    stored = {name.lower(): scoped(name.lower(), values) for name, values in others.items()}
    assert keras_2(tmp_path, *layers, **stored).layers == ()


def test_a_batch_norm_of_the_users_own_class_is_one(tmp_path: Path) -> None:
    """By momentum, epsilon and weights; it rests on names, and says so. A class alone, without weights, is none."""
    own = layer("my_package>FrozenNorm", "own", momentum=0.9, epsilon=1e-4)
    found = only(keras_2(tmp_path, own, own=scoped("own", bn_values())))
    assert (found.origin, found.epsilon, found.sites[0].form) == (Origin.NAME, 1e-4, "FrozenNorm")
    assert keras_2(tmp_path, own, own={"own/w:0": KERNEL}).layers == ()
    unnamed = archive(
        tmp_path / "m.keras", sequential(own), {"layers/frozen_norm": ("own", list(bn_values().values()))}
    )
    assert only(facts(unnamed)).origin is Origin.NAME


@pytest.mark.parametrize(
    "class_name", ["SyncBatchNormalization", "BatchNormalizationV1", "Custom>BatchNormalizationV2"]
)
def test_keras_own_classes_go_by_several_names(tmp_path: Path, class_name: str) -> None:
    """All of them are recognised by configuration."""
    one = {**batch_norm("bn"), "class_name": class_name}
    assert only(keras_2(tmp_path, one, bn=scoped("bn", bn_values()))).origin is Origin.CONFIG


@pytest.mark.parametrize(("mode", "layers", "expected"), [(0, 1, Mode.SWITCHED), (2, 1, Mode.TRAIN), (1, 0, None)])
def test_modes_of_keras_1(tmp_path: Path, mode: int, layers: int, expected: Mode | None) -> None:
    """mode=2 always uses the batch (its stored statistics are unused), mode=1 is no batch norm; std is a variance."""
    values = bn_values(roles=("gamma", "beta", "running_mean", "running_std"))
    stored = {f"bn_{role}": value for role, value in values.items()}
    model = {"class_name": "Sequential", "config": [batch_norm("bn", mode=mode)]}
    found = facts(h5_file(tmp_path / "m.h5", model, {"bn": stored}, version="1.2.2"))
    assert len(found.layers) == layers
    assert len(found.gaps) == 1 - layers
    if expected is not None:
        assert only(found).sites[0].mode is expected
        assert only(found).variance.presence is (Presence.ABSENT if mode == 2 else Presence.PRESENT)
    if mode == 0:
        np.testing.assert_array_equal(only(found).variance.values, values["running_std"].astype(np.float64))


@pytest.mark.parametrize(
    ("version", "training", "mode", "default"),
    [
        ("2.4.0", None, Mode.SWITCHED, None),
        ("2.4.0", False, Mode.EVAL, None),
        ("2.4.0", True, Mode.TRAIN, None),
        ("3.15.1", False, Mode.SWITCHED, False),
        ("3.15.1", True, Mode.TRAIN, None),
    ],
)
def test_mode_of_a_call(
    tmp_path: Path, *, version: str, training: bool | None, mode: Mode, default: bool | None
) -> None:
    """training=False holds under `fit` in Keras 2; Keras 3 overrides it there, so the site stays switched."""
    arguments = {} if training is None else {"training": training}
    bn = batch_norm("bn", feeds=[[["in", 0, 0, arguments]]])
    model = functional(inputs("in"), bn, outputs=["bn"])
    found = site(facts(h5_file(tmp_path / "m.h5", model, {"bn": scoped("bn", bn_values())}, version=version)))
    assert found.mode is mode
    assert (found.switch is None) == (mode is not Mode.SWITCHED)
    if found.switch is not None:
        assert (found.switch.predicate, found.switch.kind, found.switch.default) == ("training", "argument", default)


def test_a_shared_layer_has_a_site_for_each_application(tmp_path: Path) -> None:
    """Two branches through one batch norm: two sites, each with the convolution before it."""
    nodes = [[["a", 0, 0, {}]], [["b", 0, 0, {}]]]
    merged = layer("Add", "add", feeds=[[["bn", 0, 0, {}], ["bn", 1, 0, {}]]])
    model = functional(
        inputs("in"), conv("a", feeds=["in"]), conv("b", feeds=["in"]), batch_norm("bn", feeds=nodes), merged,
        outputs=["add"],
    )  # fmt: skip
    stored = {"a": {"a/kernel:0": KERNEL}, "b": {"b/kernel:0": KERNEL * 2}, "bn": scoped("bn", bn_values())}
    first, second = only(facts(h5_file(tmp_path / "m.h5", model, stored))).sites
    assert [first.name, second.name] == ["bn", "bn:1"]
    assert first.linear is not None
    assert second.linear is not None
    assert (first.linear.name, second.linear.name) == ("a", "b")
    np.testing.assert_array_equal(second.linear.channel_max, 2 * np.abs(KERNEL).max(axis=(0, 1, 2)))
    assert (first.rank, first.inputs, first.outputs, first.order) == (4, ("in",), ("add",), 3)


DEPTHWISE = np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2)
TRANSPOSED = np.arange(54, dtype=np.float32).reshape(3, 3, 2, 3)


@pytest.mark.parametrize(
    ("class_name", "weights", "kernel", "expected"),
    [
        ("Conv2D", {"kernel": KERNEL}, "kernel", np.abs(KERNEL).max(axis=(0, 1, 2))),
        ("Dense", {"kernel": KERNEL[0, 0]}, "kernel", np.abs(KERNEL[0, 0]).max(axis=0)),
        (
            "DepthwiseConv2D",
            {"depthwise_kernel": DEPTHWISE},
            "depthwise_kernel",
            DEPTHWISE.max(axis=(0, 1)).reshape(-1),
        ),
        (
            "DepthwiseConvolution2D",
            {"depthwise_kernel": DEPTHWISE},
            "depthwise_kernel",
            DEPTHWISE.max(axis=(0, 1)).reshape(-1),
        ),
        ("Conv2DTranspose", {"kernel": TRANSPOSED}, "kernel", TRANSPOSED.max(axis=(0, 1, 3))),
        (
            "SeparableConv2D",
            {"depthwise_kernel": DEPTHWISE, "pointwise_kernel": KERNEL[:1, :1]},
            "pointwise_kernel",
            np.abs(KERNEL[:1, :1]).max(axis=(0, 1, 2)),
        ),
    ],
)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_linear_layer_before(
    tmp_path: Path,
    *,
    class_name: str,
    weights: dict[str, NDArray[Any]],
    kernel: str,
    expected: NDArray[Any],
    data_format: str,
) -> None:
    """The kernel that folding multiplies, by output channel; its data format; its bias, which batch norm cancels."""
    before = layer(class_name, "lin", use_bias=True, activation="linear", data_format=data_format)
    stored = weights | {"bias": np.ones(4, np.float32)}
    found = site(keras_2(tmp_path, before, batch_norm("bn"), lin=scoped("lin", stored)))
    assert found.linear is not None
    assert (found.linear.name, found.linear.op, found.linear.kernel) == ("lin", class_name, f"lin/{kernel}")
    np.testing.assert_array_equal(found.linear.channel_max, expected)
    assert found.linear_axis == (1 if data_format == "channels_first" and class_name != "Dense" else -1)
    assert found.bias == "lin/bias"
    groups = {
        f"layers/{place}": (name, values)
        for place, name, values in (("x", "lin", list(stored.values())), ("y", "bn", list(bn_values().values())))
    }
    positional = site(facts(archive(tmp_path / "m.keras", sequential(before, batch_norm("bn")), groups)))
    assert positional.linear is not None
    np.testing.assert_array_equal(positional.linear.channel_max, expected)
    assert positional.bias == f"lin/vars/{len(stored) - 1}"


@pytest.mark.parametrize(
    ("between", "linear"),
    [
        ([], "c"),
        ([layer("Dropout", "d", rate=0.5)], "c"),
        ([layer("Activation", "a", activation="linear")], "c"),
        ([layer("Activation", "a", activation="relu")], None),
        ([layer("ReLU", "a")], None),
        ([layer("MaxPooling2D", "a")], None),
    ],
)
def test_only_what_is_identity_at_inference_may_stand_between(
    tmp_path: Path, between: Sequence[dict[str, Any]], linear: str | None
) -> None:
    """Batch norm folds into the convolution before it, not through a non-linearity."""
    found = site(keras_2(tmp_path, conv("c"), *between, batch_norm("bn"), c={"c/kernel:0": KERNEL}))
    assert (found.linear.name if found.linear else None) == linear
    assert found.bias is None


@pytest.mark.parametrize(
    ("inner", "linear"),
    [
        ({"class_name": "NoOpActivation", "config": {}}, "c"),
        ({"class_name": "function", "config": "linear"}, "c"),
        ("relu", None),
        ({"class_name": "Unknown", "config": {}}, None),
    ],
)
def test_an_activation_wrapped_for_quantization_aware_training(tmp_path: Path, inner: Any, linear: str | None) -> None:
    """What the wrapper of the model-optimization toolkit holds decides."""
    wrapped = {"class_name": "QuantizeAwareActivation", "config": {"activation": inner}}
    found = site(keras_2(tmp_path, conv("c", activation=wrapped), batch_norm("bn"))).linear
    assert (None if found is None else found.name) == linear


def test_an_activation_of_the_convolution_itself_stops_folding(tmp_path: Path) -> None:
    """Conv2D(activation="relu") followed by batch norm."""
    assert site(keras_2(tmp_path, conv("c", activation="relu"), batch_norm("bn"))).linear is None


@pytest.mark.parametrize(
    ("above", "dropout"),
    [
        ([layer("Dropout", "d", rate=0.5), conv("c")], "d"),
        ([layer("SpatialDropout2D", "d", rate=0.5), layer("Flatten", "f"), layer("Dense", "x")], "d"),
        ([layer("Dropout", "d", rate=0.0), conv("c")], None),
        ([layer("Dropout", "d", rate=0.5), layer("ReLU", "r"), conv("c")], None),
        ([conv("c")], None),
    ],
)
def test_dropout_before_batch_norm(tmp_path: Path, above: Sequence[dict[str, Any]], dropout: str | None) -> None:
    """Dropout with nothing but linear layers up to the batch norm shifts its variance."""
    found = keras_2(tmp_path, batch_norm("first"), *above, batch_norm("bn"))
    assert found.layers[-1].sites[0].dropout == dropout


def test_layers_renamed_after_they_were_built_are_told_by_order(tmp_path: Path) -> None:
    """A nested model whose weights keep old names: as many batch norms there as here, so the order decides."""
    values = [bn_values(seed=1), bn_values(seed=2)]
    stored = {k: v for i, one in enumerate(values) for k, v in scoped(f"old_{i}", one).items()}
    nested = sequential(batch_norm("new_a"), batch_norm("new_b"), name="nested")
    found = facts(h5_file(tmp_path / "m.h5", sequential(nested), {"nested": stored}))
    assert [one.name for one in found.layers] == ["nested/new_a", "nested/new_b"]
    np.testing.assert_array_equal(found.layers[1].mean.values, values[1]["moving_mean"].astype(np.float64))
    fewer = facts(h5_file(tmp_path / "f.h5", sequential(nested), {"nested": scoped("old_0", values[0])}))
    assert [gap.kind for gap in fewer.gaps] == [GapKind.STATISTICS] * 2
    assert fewer.layers[0].mean.presence is Presence.UNREAD


def test_named_weights_alone(tmp_path: Path) -> None:
    """Without configuration: by name, no sites, no epsilon; what stands beside tells gamma; Keras 1's std too."""
    path = h5_file(
        tmp_path / "w.h5",
        None,
        {
            "bn": scoped("bn", bn_values()),
            "block": scoped("block", bn_values(roles=ROLES[1:]), scope="block/inner"),
            "old": {f"old_{role}": np.ones(2) for role in ("gamma", "beta", "running_mean", "running_std")},
            "ln": {"ln/gamma:0": np.ones(2), "ln/beta:0": np.ones(2)},
        },
    )
    found = facts(path)
    assert [(one.name, one.origin) for one in found.layers] == [
        ("bn", Origin.NAME), ("block/inner", Origin.NAME), ("old", Origin.NAME),
    ]  # fmt: skip
    assert found.layers[1].gamma.presence is Presence.ABSENT
    assert all(one.sites == () and one.epsilon is None for one in found.layers)


def unnamed(tmp_path: Path, place: str, name: str, count: int) -> Facts:
    """Vectors without names at one place, in a file without configuration."""
    path = tmp_path / "m.weights.h5"
    path.write_bytes(vars_bytes({place: (name, list(bn_values(roles=[str(i) for i in range(count)]).values()))}))
    return facts(path)


@pytest.mark.parametrize(
    ("place", "name", "count", "layers", "gaps"),
    [
        ("layers/batch_normalization_3", "", 4, 1, 0),
        ("layers/batch_normalization_3", "", 3, 1, 0),
        ("layers/batch_normalization_3", "", 2, 1, 0),
        ("layers/sync_batch_normalization", "norm1", 4, 1, 0),
        ("block/bn1", "", 4, 1, 0),
        ("block/bn1", "", 2, 0, 0),
        ("block/second", "bn2", 4, 1, 0),
        ("block/norm", "", 4, 0, 1),
        ("block/norm", "", 3, 0, 0),
        ("layers/layer_normalization", "bn", 2, 0, 0),
        ("metrics/auc", "", 4, 0, 0),
        ("my_auc", "", 4, 0, 0),
        ("layers/dense", "", 2, 0, 0),
    ],
)
def test_unnamed_weights_alone(tmp_path: Path, *, place: str, name: str, count: int, layers: int, gaps: int) -> None:
    """By what the owner is called and how many vectors it has; four vectors of unknown owner are a gap, not a guess."""
    found = unnamed(tmp_path, place, name, count)
    assert (len(found.layers), len(found.gaps)) == (layers, gaps)
    if layers:
        values = list(bn_values(roles=[str(i) for i in range(count)]).values())
        assert found.layers[0].origin is Origin.NAME
        np.testing.assert_array_equal(found.layers[0].mean.values, values[-2].astype(np.float64))
        np.testing.assert_array_equal(found.layers[0].variance.values, values[-1].astype(np.float64))
        known = [found.layers[0].gamma.presence, found.layers[0].beta.presence]
        assert known == [{4: Presence.PRESENT, 3: Presence.UNREAD, 2: Presence.ABSENT}[count]] * 2


@pytest.mark.parametrize(
    ("channels", "last", "layers"),
    [(4, 1.0, 1), (4, 0.0, 0), (4, -1.0, 0), (6, 1.0, 0)],
    ids=["like batch norm", "no variance", "negative", "of another length"],
)
def test_unnamed_weights_of_an_attribute(tmp_path: Path, channels: int, last: float, layers: int) -> None:
    """Four vectors of an owner called anything are batch norm if a kernel has as many channels and the last fits."""
    vectors = [*bn_values(channels, roles=ROLES[:3]).values(), np.full(channels, last, np.float32)]
    path = tmp_path / "m.weights.h5"
    path.write_bytes(vars_bytes({"block/c": ("", [KERNEL]), "block/norm": ("", vectors)}))
    found = facts(path)
    assert ([one.name for one in found.layers], len(found.gaps)) == (["block/norm"] * layers, 1 - layers)


def test_optimizer_iterations_tell_the_updates(tmp_path: Path) -> None:
    """Iterations of the optimizer are the number of updates."""
    slots = {"Adam/iterations:0": np.int64(321), "Adam/m/bn/beta:0": np.ones(4, np.float32)}
    path = h5_file(tmp_path / "m.h5", sequential(batch_norm("bn")), {"bn": scoped("bn", bn_values())}, optimizer=slots)
    run = facts(path).run
    assert (run.updates, run.updates_from, run.values) == (321, "optimizer iterations", True)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real models are not beside this checkout")
@pytest.mark.parametrize(
    ("file", "layers", "axis", "linear"),
    [
        ("mlperf_tiny_vww/vww_96.h5", 27, 3, 27),
        ("fer_emotion/emotion_model.hdf5", 14, -1, 14),
        ("eegnet/EEGNet-8-2-weights.h5", 3, 1, 3),
    ],
)
def test_real_models(file: str, layers: int, axis: int, linear: int) -> None:
    """Every batch norm of three public models, trained, with the convolution before it and matching channels."""
    found = facts(REAL / file)
    assert (len(found.layers), found.gaps) == (layers, ())
    sites = [one for each in found.layers for one in each.sites]
    assert [one.axis for one in sites] == [axis] * layers
    assert sum(one.linear is not None for one in sites) == linear
    for each in found.layers:
        assert each.moved is True
        assert each.linear is not None
        assert each.linear.channel_max is not None
        assert each.linear.channel_max.shape == (each.channels,)
    assert {one.linear_axis for one in sites} == {1 if axis == 1 else -1}
