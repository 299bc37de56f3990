"""`sources/keras.py`: layers, weights and calls from archives, HDF5 models and weight files of every Keras."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from keras_writer import (
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

from bncheck.facts.errors import NoModel, NotFound, UnknownFormat, Unsupported
from bncheck.sources.keras.keras import matches, read_keras
from bncheck.sources.keras.weights import snake_case
from bncheck.sources.raw import RawKeras, RawModel

REAL = Path(__file__).parents[3].parent / "shared" / "real"
KERNEL = np.arange(108, dtype=np.float32).reshape(3, 3, 3, 4)


def keras_of(model: RawModel) -> RawKeras:
    """The Keras part, which every one of these has."""
    assert model.keras is not None
    return model.keras


def names(model: RawModel) -> dict[str, list[str]]:
    """Layer path -> names of its weights, for layers that have any."""
    return {one.path: [weight.name for weight in one.weights] for one in keras_of(model).layers if one.weights}


def wiring(model: RawModel) -> list[tuple[str, tuple[str, ...]]]:
    """(call, calls that feed it)."""
    return [(call.name, call.inbound) for call in keras_of(model).calls]


def test_a_process_that_keeps_a_file_ends_as_it_should(tmp_path: Path) -> None:
    """HDF5 closes files when Python is gone, and must not call Python then: the exit code is the verdict's."""
    path = h5_file(
        tmp_path / "m.h5", sequential(conv("c"), batch_norm("bn")), {"c": {"c/kernel:0": KERNEL}, "bn": bn_values()}
    )
    code = (
        "import ctypes, sys; from pathlib import Path; from bncheck.sources.keras.keras import read_keras; "
        "kept = read_keras(Path(sys.argv[1])); ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept)); sys.exit(3)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False, capture_output=True)
    assert (ended.returncode, ended.stderr) == (3, b"")


def test_reads_a_sequential_hdf5_model(tmp_path: Path) -> None:
    """Layers in order, weights by name without scope and ":0", values as stored, calls as a chain."""
    values = bn_values()
    path = h5_file(
        tmp_path / "m.h5",
        sequential(conv("c", batch_input_shape=[None, 8, 8, 3]), batch_norm("bn")),
        {"c": {"c/kernel:0": KERNEL}, "bn": scoped("bn", values)},
    )
    model = read_keras(path)
    assert model.format.label == "Keras 2 HDF5 model"
    assert keras_of(model).keras_version == "2.4.0"
    assert names(model) == {"c": ["c/kernel"], "bn": [f"bn/{role}" for role in values]}
    assert wiring(model) == [("c", ()), ("bn", ("c",))]
    assert keras_of(model).layers[0].input_shape == (None, 8, 8, 3)
    for role, value in values.items():
        tensor = model.tensors[f"bn/{role}"]
        assert (tensor.dtype, tensor.shape) == ("float32", (4,))
        np.testing.assert_array_equal(tensor.read(), value)
        assert not tensor.read().flags.writeable


def test_resolves_keras_3_groups_by_recorded_names(tmp_path: Path) -> None:
    """`layers/batch_normalization_1` is the layer whose name the group records, not the second in the list."""
    first, second = bn_values(seed=1), bn_values(seed=2)
    path = archive(
        tmp_path / "m.keras",
        sequential(batch_norm("a"), batch_norm("b")),
        {
            "layers/batch_normalization": ("b", list(second.values())),
            "layers/batch_normalization_1": ("a", list(first.values())),
        },
    )
    model = read_keras(path)
    assert model.format.label == "Keras 3 archive"
    np.testing.assert_array_equal(model.tensors["a/vars/2"].read(), first["moving_mean"])
    np.testing.assert_array_equal(model.tensors["b/vars/3"].read(), second["moving_variance"])


def test_resolves_keras_3_groups_by_counting_classes(tmp_path: Path) -> None:
    """Without recorded names, groups are counted by class in snake case, operations of `keras.ops` left out."""
    add = {"module": "keras.src.ops.numpy", "class_name": "Conv2D", "config": {"name": "op"}, "name": "op"}
    path = archive(
        tmp_path / "m.keras",
        sequential(conv("x"), {**add}, batch_norm("a"), conv("y"), batch_norm("b")),
        {
            "layers/conv2d": ("", [KERNEL]),
            "layers/conv2d_1": ("", [KERNEL + 1]),
            "layers/batch_normalization": ("", list(bn_values(seed=1).values())),
            "layers/batch_normalization_1": ("", list(bn_values(seed=2).values())),
        },
    )
    model = read_keras(path)
    np.testing.assert_array_equal(model.tensors["y/vars/0"].read(), KERNEL + 1)
    np.testing.assert_array_equal(model.tensors["b/vars/2"].read(), bn_values(seed=2)["moving_mean"])


def test_counts_doubled_groups_of_tensorflow_2_12_and_the_container_of_2_13(tmp_path: Path) -> None:
    """`_layer_checkpoint_dependencies`, with every second number left out, still maps in order."""
    place = "_layer_checkpoint_dependencies/batch_normalization"
    path = archive(
        tmp_path / "m.keras",
        sequential(batch_norm("a"), batch_norm("b")),
        {place: ("", list(bn_values(seed=1).values())), f"{place}_2": ("", list(bn_values(seed=2).values()))},
        version="2.13.1",
    )
    model = read_keras(path)
    assert model.format.label == "Keras 2 archive"
    np.testing.assert_array_equal(model.tensors["b/vars/2"].read(), bn_values(seed=2)["moving_mean"])


def test_tells_nested_models_of_one_hdf5_group_apart(tmp_path: Path) -> None:
    """Weights of a nested model, trainable ones first, go to the layer that their scope names, at any depth."""
    outer, inner = bn_values(seed=1), bn_values(seed=2)
    deep = functional(inputs("i2"), batch_norm("bn_deep", feeds=["i2"]), ins=["i2"], outputs=["bn_deep"], name="deep")
    deep |= {"name": "deep", "inbound_nodes": [[["bn_mid", 0, 0, {}]]]}
    mid = functional(
        inputs("i1"), batch_norm("bn_mid", feeds=["i1"]), deep, ins=["i1"], outputs=["deep"], name="mid", feeds=["in"]
    )
    stored = {
        **{f"bn_mid/{role}:0": outer[role] for role in ("gamma", "beta")},
        **{f"bn_deep/{role}:0": inner[role] for role in ("gamma", "beta")},
        **{f"bn_mid/{role}:0": outer[role] for role in ("moving_mean", "moving_variance")},
        **{f"bn_deep/{role}:0": inner[role] for role in ("moving_mean", "moving_variance")},
    }
    path = h5_file(tmp_path / "m.h5", functional(inputs("in"), mid, outputs=["mid"]), {"in": {}, "mid": stored})
    model = read_keras(path)
    assert set(names(model)) == {"mid/bn_mid", "mid/deep/bn_deep"}
    np.testing.assert_array_equal(model.tensors["mid/deep/bn_deep/moving_mean"].read(), inner["moving_mean"])
    assert wiring(model) == [("in", ()), ("mid/bn_mid", ("in",)), ("mid/deep/bn_deep", ("mid/bn_mid",))]


def test_gives_every_application_of_a_shared_layer_a_call(tmp_path: Path) -> None:
    """Two inbound nodes are two calls, each with its own `training=`; who takes the second is wired to it."""
    nodes = [[["a", 0, 0, {}]], [["b", 0, 0, {"training": False}]]]
    merge = layer("Add", "add", feeds=[[["bn", 0, 0, {}], ["bn", 1, 0, {}]]])
    config = functional(
        inputs("in"), conv("a", feeds=["in"]), conv("b", feeds=["in"]), batch_norm("bn", feeds=nodes), merge,
        outputs=["add"],
    )  # fmt: skip
    model = read_keras(h5_file(tmp_path / "m.h5", config, {"bn": scoped("bn", bn_values())}))
    calls = {call.name: (call.layer, call.inbound, call.training) for call in keras_of(model).calls}
    assert calls["bn"] == ("bn", ("a",), None)
    assert calls["bn:1"] == ("bn", ("b",), False)
    assert calls["add"][1] == ("bn", "bn:1")
    assert next(one for one in keras_of(model).layers if one.path == "bn").inbound == ("a", "b")


def test_reads_the_inbound_nodes_of_keras_3(tmp_path: Path) -> None:
    """`__keras_tensor__` in args and kwargs gives wiring, the shape, and `training=` passed to a nested model."""

    def tensor(name: str, shape: list[int | None], node: int = 0) -> dict[str, object]:
        return {"class_name": "__keras_tensor__", "config": {"shape": shape, "keras_history": [name, node, 0]}}

    inner_bn = batch_norm("bn", feeds=[{"args": [tensor("i", [None, 8, 8, 4])], "kwargs": {"mask": None}}])
    inner = functional(inputs("i"), inner_bn, ins=["i"], outputs=["bn"], name="inner")
    inner |= {
        "name": "inner",
        "inbound_nodes": [{"args": [tensor("in", [None, 8, 8, 4])], "kwargs": {"training": False}}],
    }
    last = batch_norm("last", feeds=[{"args": [], "kwargs": {"inputs": tensor("inner", [None, 8, 8, 4], node=1)}}])
    model = read_keras(
        archive(tmp_path / "m.keras", functional(inputs("in"), inner, last, outputs=["last"]), {"": ("", [])})
    )
    calls = {call.name: (call.inbound, call.training) for call in keras_of(model).calls}
    assert calls == {"in": ((), None), "inner/bn": (("in",), False), "last": (("inner/bn",), None)}
    assert keras_of(model).layers[-1].input_shape == (None, 8, 8, 4)


def test_looks_into_wrappers_and_the_users_own_layers(tmp_path: Path) -> None:
    """TimeDistributed gives its layer; a layer's sublayers that no configuration names appear under its path."""
    wrapped = layer("TimeDistributed", "td", layer=batch_norm("tdbn"))
    path = archive(
        tmp_path / "m.keras",
        sequential(wrapped, layer("MyBlock", "block")),
        {
            "layers/time_distributed": ("td", []),
            "layers/time_distributed/layer": ("tdbn", list(bn_values(seed=1).values())),
            "layers/my_block": ("block", []),
            "layers/my_block/norm": ("batch_normalization_7", list(bn_values(seed=2).values())),
        },
    )
    model = read_keras(path)
    assert set(names(model)) == {"td/tdbn", "block/batch_normalization_7"}
    assert [call.layer for call in keras_of(model).calls] == ["td/tdbn", "block"]


def test_finds_a_wrapped_layer_by_the_wrappers_name(tmp_path: Path) -> None:
    """In HDF5 files of Keras 2 the weights of TimeDistributed(BatchNormalization) are called as the wrapper."""
    config = sequential(layer("TimeDistributed", "td", layer=batch_norm("tdbn")))
    model = read_keras(h5_file(tmp_path / "m.h5", config, {"td": scoped("td", bn_values())}))
    assert names(model) == {"td/tdbn": [f"td/tdbn/{role}" for role in bn_values()]}


def test_reads_keras_1_files(tmp_path: Path) -> None:
    """A Sequential as a bare list, weights called "<layer>_<weight>" without scope."""
    values = bn_values(roles=("gamma", "beta", "running_mean", "running_std"))
    config = {"class_name": "Sequential", "config": [batch_norm("batchnormalization_1", mode=0)]}
    stored = {f"batchnormalization_1_{role}": value for role, value in values.items()}
    model = read_keras(h5_file(tmp_path / "m.h5", config, {"batchnormalization_1": stored}, version="1.2.2"))
    assert model.format.label == "Keras 1 HDF5 model"
    assert names(model) == {"batchnormalization_1": [f"batchnormalization_1/{role}" for role in values]}


def test_reads_unnamed_parameters_from_before_keras_1(tmp_path: Path) -> None:
    """`nb_layers`, `layer_0`, `param_0` ... of Keras 0.x."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["nb_layers"] = 1
        for index, value in enumerate(bn_values().values()):
            file.create_dataset(f"layer_0/param_{index}", data=value)
    model = read_keras(tmp_path / "m.h5")
    assert names(model) == {"layer_0": [f"layer_0/param_{index}" for index in range(4)]}


def test_reads_names_that_are_spread_over_several_attributes(tmp_path: Path) -> None:
    """Lists above 64 KB lie in `layer_names0`, `layer_names1`."""
    weights = {f"bn{i}": scoped(f"bn{i}", bn_values(seed=i)) for i in range(4)}
    config = sequential(*(batch_norm(name) for name in weights))
    model = read_keras(h5_file(tmp_path / "m.h5", config, weights, chunked=True))
    assert list(names(model)) == list(weights)


def test_reads_weights_alone(tmp_path: Path) -> None:
    """Files of `save_weights`, in both layouts, have layers but no configuration and no calls."""
    old = read_keras(h5_file(tmp_path / "old.h5", None, {"bn": scoped("bn", bn_values())}))
    new = tmp_path / "new.weights.h5"
    new.write_bytes(
        vars_bytes(
            {
                "layers/functional": ("inner", []),
                "layers/functional/layers/batch_normalization": ("bn", list(bn_values().values())),
                "optimizer": ("adam", [np.int64(7), np.float32(0.1), KERNEL]),
            }
        )
    )
    read = read_keras(new)
    assert (old.format.label, read.format.label) == ("Keras 2 HDF5 weights", "Keras HDF5 weights")
    assert set(names(old)) == {"bn"}
    assert names(read) == {"inner/bn": [f"inner/bn/vars/{index}" for index in range(4)]}
    assert not keras_of(read).has_config
    assert keras_of(read).calls == ()
    assert read.tensors["optimizer/iterations"].read() == 7


def test_reads_optimizer_weights_of_hdf5_models(tmp_path: Path) -> None:
    """The iteration counter has one name whatever Keras called it."""
    for stored in ("Adam/iterations:0", "iteration:0", "training/Adam/iter:0"):
        slots = {stored: np.int64(12), "Adam/m/bn/beta:0": np.zeros(4, np.float32)}
        path = h5_file(tmp_path / "m.h5", sequential(batch_norm("bn")), {"bn": {}}, optimizer=slots)
        model = read_keras(path)
        assert model.tensors["optimizer/iterations"].read() == 12
        assert len(keras_of(model).optimizer_weights) == 2


def test_reads_shards_beside_their_map(tmp_path: Path) -> None:
    """`save_weights(max_shard_size=)` splits one layer over files; a shard that is away is named."""
    values = list(bn_values().values())
    (tmp_path / "m_00000.weights.h5").write_bytes(vars_bytes({"layers/batch_normalization": ("bn", values[:2])}))
    with h5py.File(tmp_path / "m_00001.weights.h5", "w") as file:
        for index in (2, 3):
            file.create_dataset(f"layers/batch_normalization/vars/{index}", data=values[index])
    place = "/layers/batch_normalization/vars"
    path = tmp_path / "m.weights.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {place: ["m_00000.weights.h5", "m_00001.weights.h5"]}}))
    model = read_keras(path)
    assert matches(path, path.read_bytes()[:64])
    assert model.format.label == "Keras 3 sharded weights"
    np.testing.assert_array_equal(model.tensors["bn/vars/3"].read(), values[3])
    (tmp_path / "m_00001.weights.h5").unlink()
    with pytest.raises(NotFound, match=r"m_00001\.weights\.h5.*names it as a shard"):
        read_keras(path)


def test_reads_an_unpacked_archive(tmp_path: Path) -> None:
    """`save_model(zipped=False)` and the Hugging Face Hub keep the members in a directory."""
    path = archive(tmp_path / "m.keras", sequential(batch_norm("bn")), {"layers/batch_normalization": ("bn", [])})
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "unpacked")
    assert matches(tmp_path / "unpacked", b"")
    assert [one.path for one in keras_of(read_keras(tmp_path / "unpacked")).layers] == ["bn"]
    with pytest.raises(NoModel, match=r"no 'config\.json'"):
        read_keras(tmp_path)


def test_reads_compressed_archives_and_a_user_block(tmp_path: Path) -> None:
    """A repacked archive and an HDF5 signature at byte 512 hold the same model."""
    groups = {"layers/batch_normalization": ("bn", list(bn_values().values()))}
    packed = archive(tmp_path / "m.keras", sequential(batch_norm("bn")), groups, compression=zipfile.ZIP_DEFLATED)
    blocked = h5_file(tmp_path / "m.h5", None, {"bn": scoped("bn", bn_values())}, userblock_size=512)
    assert matches(blocked, blocked.read_bytes()[:64])
    for path, key in ((packed, "bn/vars/2"), (blocked, "bn/moving_mean")):
        np.testing.assert_array_equal(read_keras(path).tensors[key].read(), bn_values()["moving_mean"])


def test_widens_bfloat16_and_keeps_other_types(tmp_path: Path) -> None:
    """Keras 3 stores bfloat16 as pairs of opaque bytes; float16 and big endian stay numbers."""
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/batch_normalization/vars")
        opaque = np.array([0x3F80, 0xC000], np.uint16).view(h5py.opaque_dtype(np.dtype("V2")))
        group.create_dataset("0", data=opaque).attrs["dtype"] = "bfloat16"
        group.create_dataset("1", data=np.array([0.5, 2], np.float16))
        group.create_dataset("2", data=np.array([0.5, 2], ">f8"))
        group.create_dataset("3", data=["a", "b"])
    weights = keras_of(read_keras(path)).layers[0].weights
    assert [weight.dtype for weight in weights] == ["bfloat16", "float16", "float64", "object"]
    np.testing.assert_array_equal(weights[0].read(), [1.0, -2.0])
    np.testing.assert_array_equal(weights[2].read(), [0.5, 2.0])
    assert weights[3].unavailable is not None


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("BatchNormalization", "batch_normalization"),
        ("Conv2DTranspose", "conv2d_transpose"),
        ("ReLU", "re_lu"),
        ("LSTM", "lstm"),
        ("MyBNLayer", "my_bn_layer"),
        ("_Private", "__private"),
    ],
)
def test_snake_case_is_keras_own(class_name: str, expected: str) -> None:
    """The names of groups, as Keras makes them from classes."""
    assert snake_case(class_name) == expected


def test_refuses_what_is_no_keras_file(tmp_path: Path) -> None:
    """Other HDF5 files, other zips, pickled weights and models without weights each get their own sentence."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("data", data=[1, 2])
    with pytest.raises(UnknownFormat, match="not one that Keras wrote"):
        read_keras(tmp_path / "other.h5")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("a.txt", "a")
    assert not matches(tmp_path / "other.zip", b"PK\x03\x04")
    with zipfile.ZipFile(tmp_path / "pickled.keras", "w") as pickled:
        pickled.writestr("config.json", "{}")
        pickled.writestr("model.weights.npz", "")
    with pytest.raises(Unsupported, match="pickled"):
        read_keras(tmp_path / "pickled.keras")
    (tmp_path / "text").write_text("hello")
    assert not matches(tmp_path / "text", b"hello")
    with pytest.raises(UnknownFormat, match="neither an HDF5 file"):
        read_keras(tmp_path / "text")
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(sequential(batch_norm("bn")))
    with pytest.raises(NoModel, match="no weights"):
        read_keras(tmp_path / "empty.h5")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real models are not beside this checkout")
@pytest.mark.parametrize(
    ("file", "layers", "version"),
    [
        ("mlperf_tiny_vww/vww_96.h5", 27, "2.4.0"),
        ("fer_emotion/emotion_model.hdf5", 14, "2.0.5"),
        ("eegnet/EEGNet-8-2-weights.h5", 3, "2.1.6-tf"),
    ],
)
def test_reads_real_models(file: str, layers: int, version: str) -> None:
    """Every batch norm of three public models has its four weights, and every layer of them is called."""
    model = read_keras(REAL / file)
    found = [one for one in keras_of(model).layers if one.class_name == "BatchNormalization"]
    assert keras_of(model).keras_version == version
    assert len(found) == layers
    assert all([weight.name.rpartition("/")[2] for weight in one.weights] == list(bn_values()) for one in found)
    assert {one.path for one in keras_of(model).layers} == {call.layer for call in keras_of(model).calls}
