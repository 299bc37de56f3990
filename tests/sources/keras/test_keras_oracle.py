"""Models that Keras 3 and tf-keras save, read without them: every batch norm has the live layer's own weights."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_writer import ROLES
from numpy.typing import NDArray

from bncheck.facts.layers import Facts, Layer, Mode, Origin, Presence
from bncheck.recognise.named.by_config import recognise_config
from bncheck.settings.options import Options
from bncheck.sources.keras.keras import read_keras

keras_3 = pytest.importorskip("keras", minversion="3")
keras_2 = pytest.importorskip("tf_keras")
pytestmark = pytest.mark.tensorflow

Live = Mapping[str, Mapping[str, NDArray[Any]]]
"""Path of a batch norm -> its weights by Keras' names."""
KERAS = {"keras 3": keras_3, "tf-keras": keras_2}
MODELS = ("sequential", "functional", "subclassed")
UNNAMED = ".weights.h5"


def block_class(keras: Any) -> Any:
    """A layer of a user's own that holds layers as attributes and in a list."""

    class Block(keras.layers.Layer):
        def __init__(self, **keywords: Any) -> None:
            super().__init__(**keywords)
            self.conv = keras.layers.Conv2D(4, 1, use_bias=False)
            self.bn1 = keras.layers.BatchNormalization(name="block_first")
            self.norms = [keras.layers.BatchNormalization(name=f"block_bn_{index}") for index in range(2)]

        def call(self, x: Any, training: Any = None) -> Any:
            x = self.bn1(self.conv(x), training=training)
            for norm in self.norms:
                x = norm(x, training=training)
            return x

    return Block


def sequential(keras: Any) -> Any:
    """One of each: no gamma, no beta, channels first axis, wrapped, frozen on its own."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.InputLayer((6, 6, 3)),
            layers.Conv2D(4, 3, padding="same", name="c"),
            layers.BatchNormalization(scale=False, name="no_gamma"),
            layers.SeparableConv2D(5, 3, padding="same", name="s"),
            layers.BatchNormalization(center=False, name="no_beta"),
            layers.BatchNormalization(scale=False, center=False, name="neither"),
            layers.Reshape((36, 5)),
            layers.TimeDistributed(layers.BatchNormalization(name="wrapped"), name="td"),
            layers.BatchNormalization(axis=1, name="axis_1"),
            layers.BatchNormalization(trainable=False, name="born_frozen"),
            layers.Flatten(),
            layers.Dense(3),
            layers.BatchNormalization(),
        ]
    )


def functional(keras: Any) -> Any:
    """Shared within, shared with a nested model, nested three deep, a nested model frozen before saving."""
    layers, block = keras.layers, block_class(keras)
    deep = keras.Sequential(
        [layers.InputLayer((6, 6, 4)), layers.BatchNormalization(name="bn_deep"), layers.ReLU()], name="deep"
    )
    shared_out = layers.BatchNormalization(name="shared_out")
    i_mid = keras.Input((6, 6, 4), name="i_mid")
    x = layers.DepthwiseConv2D(3, padding="same", name="dw")(i_mid)
    x = layers.BatchNormalization(name="bn_mid")(x)
    x = deep(shared_out(x))
    mid = keras.Model(i_mid, layers.BatchNormalization(name="bn_last")(x), name="mid")
    frozen = keras.Sequential(
        [layers.InputLayer((6, 6, 4)), layers.Conv2D(4, 1), layers.BatchNormalization(name="bn_frozen")], name="frozen"
    )
    frozen.trainable = False
    i = keras.Input((6, 6, 3), name="i")
    shared = layers.BatchNormalization(name="shared")
    left = shared(layers.Conv2D(4, 3, padding="same", name="left")(i))
    right = shared(layers.Conv2D(4, 1, name="right")(i), training=False)
    x = layers.Add()([left, right])
    x = mid(shared_out(x), training=False)
    x = frozen(x)
    x = block(name="block")(x)
    x = layers.BatchNormalization(name="bn_before")(x)
    return keras.Model(i, layers.Dense(2)(layers.Flatten()(x)))


def subclassed(keras: Any) -> Any:
    """Layers that no configuration lists."""
    layers, block = keras.layers, block_class(keras)

    class Net(keras.Model):
        def __init__(self, **keywords: Any) -> None:
            super().__init__(**keywords)
            self.conv = layers.Conv2D(4, 1)
            self.bn = layers.BatchNormalization(name="net_bn")
            self.stages = [block(name="stage0"), block(name="stage1")]
            self.body = keras.Sequential([layers.Conv2D(4, 1), layers.BatchNormalization(name="body_bn")], name="body")

        def call(self, x: Any, training: Any = None) -> Any:
            x = self.bn(self.conv(x), training=training)
            for stage in self.stages:
                x = stage(x, training=training)
            return self.body(x, training=training)

    net = Net()
    net(np.zeros((1, 6, 6, 3), np.float32))
    return net


BUILDERS = {"sequential": sequential, "functional": functional, "subclassed": subclassed}


def batch_norms(keras: Any, holder: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, layer) of every batch norm of a live model."""
    for layer in holder._flatten_layers(include_self=False, recursive=False):
        path = f"{prefix}{layer.name}"
        if isinstance(layer, keras.layers.BatchNormalization):
            yield path, layer
        else:
            yield from batch_norms(keras, layer, f"{path}/")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Path, Live]]:
    """(keras, model) -> the stem of its files, and what the live model has. Weights are all different."""
    directory = tmp_path_factory.mktemp("keras")
    done = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for version, keras in KERAS.items():
            for kind, build in BUILDERS.items():
                model = build(keras)
                rng = np.random.default_rng(len(done))
                for weight in model.weights:
                    weight.assign(rng.uniform(0.5, 2, weight.shape).astype(np.float32))
                if kind != "subclassed":
                    model.compile("adam", "mse")
                stem = directory / f"{version.replace(' ', '')}_{kind}"
                for suffix in (".keras", ".weights.h5", *([] if kind == "subclassed" else [".h5"])):
                    (model.save_weights if suffix == UNNAMED else model.save)(f"{stem}{suffix}")
                found: dict[int, tuple[str, Any]] = {}
                for path, layer in batch_norms(keras, model):
                    found.setdefault(id(layer), (path, layer))
                done[version, kind] = (stem, {path: weights_of(layer) for path, layer in found.values()})
    return done


def weights_of(layer: Any) -> dict[str, NDArray[Any]]:
    """A live layer's weights by name."""
    found = {role: getattr(layer, role) for role in ROLES}
    return {role: np.asarray(value.numpy(), np.float64) for role, value in found.items() if value is not None}


def facts(path: Path) -> Facts:
    """Read without Keras."""
    return recognise_config(read_keras(path), Options())


def stored(layer: Layer) -> dict[str, NDArray[Any]]:
    """What bncheck has of it."""
    vectors = zip(ROLES, (layer.gamma, layer.beta, layer.mean, layer.variance), strict=True)
    return {role: vector.values for role, vector in vectors if vector.values is not None}


def assert_same(found: Mapping[str, NDArray[Any]], live: Mapping[str, NDArray[Any]], where: str) -> None:
    """All weights of one layer, to the bit."""
    assert found.keys() == live.keys(), where
    for role, value in live.items():
        np.testing.assert_array_equal(found[role], value, err_msg=f"{where} {role}")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", ["sequential", "functional"])
@pytest.mark.parametrize("version", KERAS)
def test_models(saved: dict[tuple[str, str], tuple[Path, Live]], version: str, kind: str, suffix: str) -> None:
    """Each batch norm under the path that users know, absent vectors absent, nothing invented, nothing lost."""
    stem, live = saved[version, kind]
    found = facts(Path(f"{stem}{suffix}"))
    by_mean = {one["moving_mean"].tobytes(): path for path, one in live.items()}
    # the legacy form of Keras 3 does not record that two models share a layer: loaded again, it is two
    twice = (version, kind, suffix) == ("keras 3", "functional", ".h5")
    assert len(found.layers) == len(live) + twice
    assert found.gaps == ()
    for layer in found.layers:
        assert layer.mean.values is not None
        path = by_mean[layer.mean.values.tobytes()]
        if path.startswith("block/"):  # tf-keras does not record what sublayers are called
            assert layer.name.startswith("block/")
        elif not twice or path != "shared_out":
            assert layer.name == path
        assert layer.origin is (Origin.NAME if path.startswith("block/") else Origin.CONFIG)
        assert_same(stored(layer), live[path], f"{suffix} {path}")
        for role, vector in zip(ROLES, (layer.gamma, layer.beta, layer.mean, layer.variance), strict=True):
            assert vector.presence is (Presence.PRESENT if role in live[path] else Presence.ABSENT)


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_archives_from_before_names_were_recorded(
    saved: dict[tuple[str, str], tuple[Path, Live]], tmp_path: Path, kind: str
) -> None:
    """Early Keras 3 recorded no names in its groups: counting classes, shared layers included, tells the same."""
    stem, _ = saved["keras 3", kind]
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(f"{stem}.keras") as source, zipfile.ZipFile(path, "w") as target:
        weights = io.BytesIO(source.read("model.weights.h5"))
        with h5py.File(weights, "a") as file:
            file.visititems(lambda _, item: item.attrs.pop("name", None) and None)
        for name in ("config.json", "metadata.json"):
            target.writestr(name, source.read(name))
        target.writestr("model.weights.h5", weights.getvalue())
    told = {one.name: one for one in facts(Path(f"{stem}.keras")).layers if not one.name.startswith("block/")}
    counted = {one.name: one for one in facts(path).layers if not one.name.startswith("block/")}
    assert counted.keys() == told.keys()
    for name, one in told.items():
        assert_same(stored(counted[name]), stored(one), name)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("version", KERAS)
def test_weights_alone(saved: dict[tuple[str, str], tuple[Path, Live]], version: str, kind: str) -> None:
    """Statistics of every layer whose owner is called a batch norm; those of other owners are gaps, never wrong."""
    stem, live = saved[version, kind]
    found = facts(Path(f"{stem}{UNNAMED}"))
    pairs = {(one["moving_mean"].tobytes(), one["moving_variance"].tobytes()): path for path, one in live.items()}
    matched = set()
    for layer in found.layers:
        assert layer.mean.values is not None
        assert layer.variance.values is not None
        path = pairs[layer.mean.values.tobytes(), layer.variance.values.tobytes()]
        matched.add(path)
        if layer.gamma.presence is Presence.PRESENT:
            assert_same(stored(layer), live[path], path)
    assert len(matched) == len(found.layers)
    assert live.keys() - matched <= ({"td/wrapped"} if version == "tf-keras" else {"td/wrapped", "axis_1", "no_gamma"})
    assert len(matched) + len(found.gaps) == len(live)


@pytest.mark.parametrize("version", KERAS)
def test_subclassed_models(saved: dict[tuple[str, str], tuple[Path, Live]], version: str) -> None:
    """An archive whose configuration lists no layers still gives every batch norm, by position."""
    stem, live = saved[version, "subclassed"]
    found = facts(Path(f"{stem}.keras"))
    assert sorted(layer.mean.values.tobytes() for layer in found.layers if layer.mean.values is not None) == sorted(
        one["moving_mean"].tobytes() for one in live.values()
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("version", KERAS)
def test_applications(saved: dict[tuple[str, str], tuple[Path, Live]], version: str, suffix: str) -> None:
    """Shared layers have two sites; training=False reaches nested models; convolutions before are found."""
    stem, _ = saved[version, "functional"]
    layers = {layer.name: layer for layer in facts(Path(f"{stem}{suffix}")).layers}
    first, second = layers["shared"].sites
    assert first.linear is not None
    assert second.linear is not None
    assert {first.linear.name, second.linear.name} == {"left", "right"}
    modes = {site.linear.name: site.mode for site in layers["shared"].sites if site.linear}
    baked = Mode.EVAL if version == "tf-keras" else Mode.SWITCHED
    assert modes == {"left": Mode.SWITCHED, "right": baked}
    assert layers["mid/bn_mid"].sites[0].mode is baked
    assert layers["mid/deep/bn_deep"].sites[0].mode is baked
    assert layers["mid/bn_mid"].sites[0].linear is not None
    assert layers["bn_before"].sites[0].mode is Mode.SWITCHED
    assert layers["frozen/bn_frozen"].trainable is False
    assert sum(len(layer.sites) for name, layer in layers.items() if name.endswith("shared_out")) == 2


def test_training_false_in_a_keras_3_configuration_still_moves_under_fit() -> None:
    """What the mode of a site rests on: Keras 3 overrides the baked argument in `fit`, tf-keras obeys it."""
    moved = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for version, keras in KERAS.items():
            i = keras.Input((2,))
            bn = keras.layers.BatchNormalization()
            model = keras.Model(i, bn(i, training=False))
            model.compile("sgd", "mse")
            model.fit(np.full((8, 2), 5.0), np.zeros((8, 2)), verbose=0)
            moved[version] = bool(np.any(bn.moving_mean.numpy()))
    assert moved == {"keras 3": True, "tf-keras": False}


def test_shards_that_keras_writes(tmp_path: Path) -> None:
    """`save_weights(max_shard_size=)` of Keras 3.10 and later, three files, one model."""
    model = sequential(keras_3)
    path = tmp_path / "m.weights.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_weights(path, max_shard_size=3e-6)
    assert len(list(tmp_path.glob("*.h5"))) > 1
    live = {weights_of(layer)["moving_variance"].shape for _, layer in batch_norms(keras_3, model)}
    found = facts(path)
    assert {layer.variance.shape for layer in found.layers} <= live
    assert len(found.layers) >= 6
