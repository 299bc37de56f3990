"""No code of a Keras file runs unless the model is trusted: what its configuration may name, and what is refused."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bncheck
from bncheck.compare.twins.keras_vetting import _bases, _below, _classes, _is_own, refuse_foreign
from bncheck.facts.errors import BncheckError

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]

LIBRARIES = ("keras", "tf_keras")


@pytest.fixture(scope="module", params=LIBRARIES)
def keras(request: pytest.FixtureRequest) -> Any:
    """Keras 3, then tf-keras."""
    return pytest.importorskip(request.param)


def plain(keras: Any) -> Any:
    """A small network with one batch norm."""
    entry = keras.Input((4, 4, 3), name="entry")
    net = keras.layers.Conv2D(2, 3, activation="relu", name="conv")(entry)
    net = keras.layers.BatchNormalization(name="bn")(net)
    net = keras.layers.GlobalAveragePooling2D(name="pool")(net)
    return keras.Model(entry, keras.layers.Dense(3, name="head")(net))


def configuration(path: Path) -> dict[str, Any]:
    """That of a `.keras` archive or an HDF5 file."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read("config.json"))
    else:
        with importlib.import_module("h5py").File(path) as file:
            found = json.loads(file.attrs["model_config"])
    assert isinstance(found, dict)
    return found


def write_configuration(path: Path, config: Mapping[str, Any]) -> None:
    """In place of the one that the file has."""
    if path.suffix == ".keras":
        whole = path.with_suffix(".old")
        path.rename(whole)
        with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
            for info in old.infolist():
                new.writestr(info.filename, json.dumps(config) if info.filename == "config.json" else old.read(info))
        whole.unlink()
    else:
        with importlib.import_module("h5py").File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(config)


def layer(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A layer of a configuration, to be changed."""
    return next(each for each in config["config"]["layers"] if each["config"]["name"] == name)


def compare(path: Path, **options: Any) -> Any:
    """Train against eval mode on a little noise."""
    data = path.with_name("images.npy")
    np.save(data, np.random.default_rng(0).normal(size=(8, 4, 4, 3)).astype(np.float32))
    return bncheck.compare_train_vs_eval(path, data=data, **options)


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_a_lambda_is_refused_before_it_runs(keras: Any, tmp_path: Path, ending: str) -> None:
    """Its bytecode makes a folder where it runs; trusted, both formats load and it does."""
    mark = str(tmp_path / "it_ran")
    entry = keras.Input((4, 4, 3))
    code = keras.layers.Lambda(
        lambda x, at: (__import__("os").makedirs(at, exist_ok=True), x)[1],
        output_shape=(4, 4, 3),
        arguments={"at": mark},
        name="evil",
    )
    net = keras.layers.BatchNormalization(name="bn")(code(entry))
    model = keras.Model(entry, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(net)))
    model.save(tmp_path / f"model.{ending}")
    shutil.rmtree(mark, ignore_errors=True)
    with pytest.raises(BncheckError, match=r"'evil' holds code.*--trust-model"):
        compare(tmp_path / f"model.{ending}")
    assert not Path(mark).exists()
    assert compare(tmp_path / f"model.{ending}", trust_model=True).comparison is not None
    assert Path(mark).exists()


def _function(module: str, name: str) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


ATTACKS: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "activation": lambda c: layer(c, "conv")["config"].update(activation=_function("antigravity", "geohash")),
    "activation of a class": lambda c: layer(c, "conv")["config"].update(
        activation={"module": "subprocess", "class_name": "Popen", "config": {"args": "true"}, "registered_name": "x"}
    ),
    "initializer": lambda c: layer(c, "conv")["config"].update(kernel_initializer=_function("os", "system")),
    "regularizer": lambda c: layer(c, "head")["config"].update(kernel_regularizer=_function("builtins", "exec")),
    "constraint": lambda c: layer(c, "bn")["config"].update(
        gamma_constraint={"class_name": "__lambda__", "config": {"value": ["4wAA", None, None]}}
    ),
    "dtype": lambda c: layer(c, "bn")["config"].update(
        dtype={"module": "os", "class_name": "system", "config": {"command": "true"}, "registered_name": None}
    ),
    "layer of a module": lambda c: layer(c, "conv").update(module="antigravity"),
    "registered": lambda c: layer(c, "conv").update(registered_name="mine>Conv2D"),
    "class that is none of Keras": lambda c: layer(c, "pool").update(class_name="mine>Pool"),
    "class that is no text": lambda c: layer(c, "pool").update(class_name=["Lambda"]),
    "function of Keras that loads": lambda c: layer(c, "conv")["config"].update(
        activation=_function("keras.utils", "get_file")
    ),
    "switch of the safe mode": lambda c: layer(c, "conv")["config"].update(
        kernel_initializer=_function("keras.config", "enable_unsafe_deserialization")
    ),
    "another SavedModel": lambda c: layer(c, "pool").update(
        class_name="TFSMLayer", config={"name": "pool", "filepath": "other"}
    ),
    "pickle": lambda c: layer(c, "pool").update(
        class_name="TorchModuleWrapper", config={"name": "pool", "module": "gASV"}
    ),
    "method": lambda c: layer(c, "pool").update(
        class_name="ClassMethod", config={"name": "pool", "cls_symbol": "io.gfile.GFile", "method_name": "write"}
    ),
    "symbol": lambda c: layer(c, "pool").update(
        class_name="TFOpLambda", config={"name": "pool", "function": "io.gfile.remove"}
    ),
    "symbol that writes": lambda c: layer(c, "pool").update(
        class_name="TFOpLambda", config={"name": "pool", "function": "io.write_file"}
    ),
    "python": lambda c: layer(c, "pool").update(
        class_name="TFOpLambda", config={"name": "pool", "function": "numpy_function"}
    ),
    "wrapped": lambda c: layer(c, "pool").update(
        class_name="TimeDistributed",
        config={"name": "pool", "layer": {"class_name": "Bidirectional", "config": {"layer": _lambda()}}},
    ),
    "model in a model": lambda c: c["config"]["layers"].append(
        {"class_name": "Functional", "config": {"name": "pool", "layers": [_lambda()]}, "inbound_nodes": []}
    ),
    "compiled model in a model": lambda c: c["config"]["layers"].append(
        {
            "class_name": "Sequential",
            "config": {"name": "pool", "layers": []},
            "compile_config": {"loss": _function("os", "system")},
        }
    ),
    "argument of a call": lambda c: layer(c, "pool").update(
        inbound_nodes=[{"args": [], "kwargs": {"training": _function("os", "system")}}]
    ),
    "type": lambda c: layer(c, "pool")["config"].update(
        spec={"class_name": "__typespec__", "spec_name": "system", "module": "os", "registered_name": "", "config": []}
    ),
    "method of a module": lambda c: layer(c, "pool").update(
        class_name="ModuleWrapper", config={"name": "pool", "module": "{0.graph}", "method_name": "format"}
    ),
    "package in the name": lambda c: layer(c, "pool").update(class_name="Custom>Lambda"),
    "file of words": lambda c: layer(c, "pool").update(
        class_name="StringLookup", config={"name": "pool", "vocabulary": "/etc/passwd"}
    ),
}
"""What of a configuration is changed to what is no plain Keras."""


def _cell_wrapper(kind: str, field: str) -> Callable[[dict[str, Any]], object]:
    """A wrapper of a recurrent cell that holds bytecode in a field of its own."""
    code = {field: ["4wAA", None, None], f"{field}_type": "lambda", f"{field}_module": "m"}
    cell = {"class_name": kind, "config": {"cell": {"class_name": "LSTMCell", "config": {"units": 3}}, **code}}
    return lambda c: layer(c, "pool").update(class_name="RNN", config={"name": "pool", "cell": cell})


def _lambda() -> dict[str, Any]:
    return {"class_name": "Lambda", "config": {"name": "pool", "function": ["4wAA", None, None]}}


CARRIED: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "residual": _cell_wrapper("ResidualWrapper", "residual_fn"),
    "dropout": _cell_wrapper("DropoutWrapper", "dropout_fn"),
}
"""Bytecode that no `Lambda` names."""


@pytest.fixture(scope="module")
def saved(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plain network in both formats."""
    folder = tmp_path_factory.mktemp("saved")
    model = plain(keras)
    model.save(folder / "model.h5")
    model.save(folder / "model.keras")
    return folder


@pytest.mark.parametrize("attack", [*ATTACKS, *CARRIED])
@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_what_is_no_plain_keras_is_refused_by_the_name_of_its_layer(
    keras: Any, saved: Path, ending: str, attack: str
) -> None:
    """Whatever is named in whichever place, nested or not; nothing is built before that."""
    path = saved / f"model.{ending}"
    config = configuration(path)
    refuse_foreign(keras, path, json.dumps(config))
    {**ATTACKS, **CARRIED}[attack](config)
    with pytest.raises(BncheckError, match=r"layer '(conv|bn|pool|head)' .*--trust-model"):
        refuse_foreign(keras, path, json.dumps(config))


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_a_function_of_any_module_is_never_imported(saved: Path, tmp_path: Path, ending: str) -> None:
    """The whole command: it ends before the module that the file names is known."""
    path = Path(shutil.copy(saved / f"model.{ending}", tmp_path))
    config = configuration(path)
    layer(config, "conv")["config"]["activation"] = _function("this", "rot13")
    write_configuration(path, config)
    with pytest.raises(BncheckError, match=r"'conv' names this\.rot13.*--trust-model"):
        compare(path)
    assert "this" not in sys.modules


def test_no_class_that_may_be_built_loads_code(keras: Any) -> None:
    """Of the library as it is installed: a new version that unpacks bytecode in another layer fails here."""
    known = _classes(keras)
    own = {c for base in _bases(keras) for c in (base, *_below(base)) if _is_own(keras, c) and c.__name__ in known}
    assert len(own) > 200
    modules = {cls.__module__ for cls in own}
    carriers = [
        m for m in modules if re.search(r"func_load|^import (marshal|pickle)|pickle\.load", source_of(m), re.MULTILINE)
    ]
    assert carriers == []


def source_of(module: str) -> str:
    """The text of a module."""
    return inspect.getsource(importlib.import_module(module))


def test_what_a_model_was_compiled_with_does_not_count(keras: Any, tmp_path: Path) -> None:
    """A loss of one's own is not needed to run the model, and is not loaded."""

    def my_loss(wanted: Any, got: Any) -> Any:
        return (wanted - got) ** 2

    model = plain(keras)
    model.compile("adam", my_loss)
    for ending in ("h5", "keras"):
        model.save(tmp_path / f"model.{ending}")
        assert compare(tmp_path / f"model.{ending}").comparison is not None


def test_a_file_of_two_formats_is_refused(saved: Path, tmp_path: Path) -> None:
    """An HDF5 file with an archive behind it: bncheck vets one configuration, Keras would build the other."""
    both = tmp_path / "model.keras"
    both.write_bytes((saved / "model.h5").read_bytes())
    with zipfile.ZipFile(both, "a") as archive, zipfile.ZipFile(saved / "model.keras") as whole:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name))
    assert re.match(b"\x89HDF", both.read_bytes())
    with pytest.raises(BncheckError, match="an HDF5 file and a zip archive in one"):
        compare(both)


def test_networks_of_the_library_itself_are_built(keras: Any) -> None:
    """A false alarm would keep people from their own models: wrappers, recurrent layers, plain ops, nested models."""
    layers = keras.layers
    inner = keras.Sequential([layers.Input((4, 4, 3)), layers.Conv2D(2, 3), layers.BatchNormalization()], name="inner")
    entry = keras.Input((5, 4, 4, 3))
    net = layers.TimeDistributed(inner)(entry)
    net = layers.Reshape((5, 8))(net)
    net = layers.Bidirectional(layers.LSTM(4, return_sequences=True, recurrent_initializer="orthogonal"))(net)
    net = layers.RNN(layers.StackedRNNCells([layers.GRUCell(3), layers.LSTMCell(4)]))(net)
    net = layers.Dense(3, activation=keras.activations.swish, kernel_regularizer=keras.regularizers.L2(1e-4))(net)
    net = net * 2.0 + net[:, :1]
    if keras.__name__ == "tf_keras":
        tf = importlib.import_module("tensorflow")
        net = tf.nn.relu6(tf.concat([net, tf.math.reduce_mean(net, axis=-1, keepdims=True)], axis=-1))
    else:
        net = keras.ops.relu6(keras.ops.concatenate([net, keras.ops.mean(net, axis=-1, keepdims=True)], axis=-1))
    net = layers.Activation("softmax", dtype="float32")(layers.BatchNormalization(gamma_constraint="non_neg")(net))
    refuse_foreign(keras, Path("model"), keras.Model(entry, net).to_json())


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "ConvNeXtTiny", "NASNetMobile", "Xception"])
@pytest.mark.slow
def test_applications_are_built(keras: Any, name: str) -> None:
    """The networks that Keras ships."""
    refuse_foreign(keras, Path(name), getattr(keras.applications, name)(weights=None).to_json())
