"""Naming a backbone: what is understood, what is refused and how. No TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bncheck.backbones.builders import load_builder
from bncheck.backbones.checkpoint_fit import check_builder, check_network, check_scope, scopes_of, told
from bncheck.backbones.keras_names import renamed, slim_name
from bncheck.backbones.registry import BACKBONES, names, parse
from bncheck.facts.errors import BncheckError, UsageError
from bncheck.sources import open_model
from bncheck.sources.raw import RawTensor

NSFW = Path(__file__).parents[2].parent / "shared" / "real" / "nsfwjs_mobilenetv2.npz"


def test_values_are_typed() -> None:
    """Each option has its own type, in any order, blanks allowed; the spec prints as it was written."""
    spec = parse(" mobilenet_v2:depth_multiplier=0.35, num_classes=10,use_explicit_padding=yes,scope=A/MobilenetV2 ")
    assert spec.backbone is BACKBONES["mobilenet_v2"]
    assert spec.options == {
        "depth_multiplier": 0.35,
        "num_classes": 10,
        "use_explicit_padding": True,
        "scope": "A/MobilenetV2",
    }
    assert (
        str(spec) == "mobilenet_v2:depth_multiplier=0.35,num_classes=10,use_explicit_padding=true,scope=A/MobilenetV2"
    )
    assert parse(str(spec)) == spec
    assert (parse("resnet_v1_50").scope, parse("resnet_v1_50:scope=/").scope) == ("resnet_v1_50", "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mobilenetv2", "did you mean mobilenet_v2"),
        ("", "there is no backbone ''"),
        ("mobilenet_v2:depthmultiplier=1", "did you mean depth_multiplier"),
        ("resnet_v1_50:depth_multiplier=1", "has no option 'depth_multiplier'"),
        ("mobilenet_v2:num_classes", "num_classes needs a value"),
        ("mobilenet_v2:num_classes=", "num_classes needs a value"),
        ("mobilenet_v2:num_classes=ten", "num_classes must be a whole number, not 'ten'"),
        ("mobilenet_v2:num_classes=-1", "num_classes cannot be -1"),
        ("mobilenet_v2:depth_multiplier=nan", "depth_multiplier cannot be nan"),
        ("mobilenet_v2:depth_multiplier=inf", "depth_multiplier cannot be inf"),
        ("mobilenet_v2:use_explicit_padding=maybe", "must be true or false"),
        ("mobilenet_v2:num_classes=1,num_classes=2", "given twice"),
        ("vgg_16", "vgg_16 has no batch norm"),
        ("alexnet_v2:num_classes=3", "no batch norm"),
    ],
)
def test_wrong_names_end_in_one_sentence(text: str, says: str) -> None:
    """Unknown names, keys and values are usage errors that say what is wrong and what is near."""
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_tf_slim_ships_is_listed() -> None:
    """Every network of TF-slim 1.1.0 has its entry; those without batch norm cannot be chosen."""
    assert set(BACKBONES) - set(names()) == {"alexnet_v2", "overfeat", "vgg_a", "vgg_16", "vgg_19"}
    assert {f"resnet_v{v}_{d}" for v in (1, 2) for d in (50, 101, 152, 200)} < set(names())
    assert {"mobilenet_v2", "inception_v1", "inception_v2", "inception_v3"} < set(names())


def test_naming_a_backbone_loads_no_tensorflow() -> None:
    """The registry, builders and the check of shapes stay light: `--help` and a wrong name cost nothing."""
    code = (
        "import sys, bncheck.backbones.registry as r, bncheck.backbones.checkpoint_fit, bncheck.backbones.builders;"
        "r.parse('resnet_v1_50:num_classes=3'); assert 'tensorflow' not in sys.modules and 'h5py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_checkpoint_tells_the_number_of_classes() -> None:
    """The last axis of the classifier's kernel, unless something else was asked for."""
    shapes = {"resnet_v1_50/logits/weights": (1, 1, 2048, 7)}
    assert told(parse("resnet_v1_50"), shapes).options == {"num_classes": 7}
    assert told(parse("resnet_v1_50:num_classes=0"), shapes).options == {"num_classes": 0}
    assert told(parse("resnet_v1_50"), {}).options == {}
    assert told(parse("inception_v3"), {"InceptionV3/AuxLogits/a": (1,)}).options == {"create_aux_logits": True}


def test_another_scope_is_named() -> None:
    """Where the network's variables stand elsewhere, the error says where; another network is recognised."""
    shapes = {"FeatureExtractor/MobilenetV2/expanded_conv/depthwise/depthwise_weights": (3, 3, 32, 1)}
    assert scopes_of(BACKBONES["mobilenet_v2"], shapes) == ("FeatureExtractor/MobilenetV2",)
    with pytest.raises(BncheckError, match="add scope=FeatureExtractor/MobilenetV2"):
        check_scope(parse("mobilenet_v2"), shapes)
    with pytest.raises(BncheckError, match="looks like mobilenet_v2"):
        check_scope(parse("inception_v1"), shapes)
    with pytest.raises(BncheckError, match=r"it has bert$"):
        check_scope(parse("inception_v1"), {"bert/embeddings": (1,)})
    check_scope(parse("mobilenet_v2:scope=FeatureExtractor/MobilenetV2"), shapes)
    with pytest.raises(BncheckError, match="under '/'"):
        check_scope(parse("mobilenet_v2:scope=/"), shapes)


def test_what_does_not_fit_is_named_both_ways() -> None:
    """Variables lacking, of another shape, and too many come in one sentence; slots and averages are not too many."""
    spec = parse("resnet_v1_50:num_classes=2")
    network = {"resnet_v1_50/a": (3, 4), "resnet_v1_50/b": (2,), "resnet_v1_50/c": (1,)}
    stored = {
        "resnet_v1_50/a": (3, 5),
        "resnet_v1_50/b": (2,),
        "resnet_v1_50/b/Momentum": (2,),
        "resnet_v1_50/b/ExponentialMovingAverage": (2,),
        "resnet_v1_50/d/weights": (9,),
        "head/weights": (9,),
        "global_step": (),
    }
    with pytest.raises(BncheckError) as caught:
        check_network(spec, network, network, stored)
    assert str(caught.value) == (
        "resnet_v1_50:num_classes=2 does not fit the checkpoint: 1 variable that it lacks (resnet_v1_50/c); 1 variable "
        "of another shape (resnet_v1_50/a is 3x5 there and 3x4 in the network); 1 variable of the checkpoint that "
        "the network lacks (resnet_v1_50/d/weights)"
    )


def test_too_much_can_be_left_out_on_request() -> None:
    """`partial=true` is named where nothing else is wrong, and then what was left out is told."""
    network = {"resnet_v1_50/a": (3,)}
    stored = {"resnet_v1_50/a": (3,), "resnet_v1_50/d/weights": (9,), "head/weights": (9,)}
    with pytest.raises(BncheckError, match="add partial=true"):
        check_network(parse("resnet_v1_50:num_classes=2"), network, network, stored)
    notes = check_network(parse("resnet_v1_50:num_classes=2,partial=true"), network, network, stored)
    assert notes == ["ignored, as they are not part of resnet_v1_50: resnet_v1_50/d/weights, head/weights"]
    features = {"resnet_v1_50/a": (3,), "resnet_v1_50/logits/weights": (9,)}
    assert check_network(parse("resnet_v1_50:num_classes=0"), network, network, features)


def test_statistics_that_a_saver_left_out_are_no_misfit() -> None:
    """A checkpoint that lacks nothing but moving averages is built, noted, and left to the rules and to repair."""
    network = {"resnet_v1_50/a": (3,), "resnet_v1_50/n/moving_mean": (3,), "resnet_v1_50/n/moving_variance": (3,)}
    notes = check_network(parse("resnet_v1_50:num_classes=2"), network, network, {"resnet_v1_50/a": (3,)})
    assert notes == ["the checkpoint lacks 2 statistics (resnet_v1_50/n/moving_mean, resnet_v1_50/n/moving_variance)"]
    with pytest.raises(BncheckError, match="3 variables that it lacks"):
        check_network(parse("resnet_v1_50:num_classes=2"), network, network, {})


def test_a_builders_lack_names_the_nearest() -> None:
    """A variable that the checkpoint has under another scope is pointed at; more in the checkpoint is fine."""
    with pytest.raises(BncheckError, match="nearest to net/conv1/kernel is model/net/conv1/kernel"):
        check_builder("m:f", {"net/conv1/kernel": (1,)}, {}, {"model/net/conv1/kernel": (1,), "z": (1,)})
    assert check_builder("m:f", {"a/b": (None, 2)}, {"a/b": (None, 2)}, {"a/b": (5, 2), "c/d": (1,)}) == [
        "ignored, as they are not in the graph of m:f: c/d"
    ]


@pytest.mark.parametrize(
    ("keras", "ours"),
    [
        ("Conv1/kernel", "Conv/weights"),
        ("bn_Conv1/gamma", "Conv/BatchNorm/gamma"),
        ("expanded_conv_depthwise/depthwise_kernel", "expanded_conv/depthwise/depthwise_weights"),
        ("expanded_conv_project_BN/moving_variance", "expanded_conv/project/BatchNorm/moving_variance"),
        ("block_16_expand_BN/moving_mean:0", "expanded_conv_16/expand/BatchNorm/moving_mean"),
        ("block_1_project/kernel", "expanded_conv_1/project/weights"),
        ("Conv_1/kernel", "Conv_1/weights"),
        ("Conv_1_bn/beta", "Conv_1/BatchNorm/beta"),
        ("predictions/bias", "Logits/Conv2d_1c_1x1/biases"),
        ("dense_1/kernel", None),
        ("block_1_expand_BN/kernel", None),
        ("block_1_pad/kernel", None),
    ],
)
def test_keras_names_have_their_place(keras: str, ours: str | None) -> None:
    """Every kind of weight in Keras's MobileNetV2 has one name here; others have none."""
    assert slim_name(keras) == ours


def _tensor(name: str, *shape: int) -> RawTensor:
    return RawTensor(
        name=name, dtype="float32", shape=shape, read=lambda: np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    )


def test_keras_weights_are_renamed_and_the_classifier_becomes_a_convolution() -> None:
    """Nested model names and doubled layer names are looked through; a dense kernel gets two axes of one."""
    keys = [
        "m/expanded_conv_depthwise_BN/expanded_conv_depthwise_BN/moving_mean:0",
        "m/predictions/predictions/kernel:0",
    ]
    tensors = {keys[0]: _tensor(keys[0], 32), keys[1]: _tensor(keys[1], 4, 3), "m/top/top/kernel:0": _tensor("x", 1)}
    found = renamed(tensors, "MobilenetV2")
    assert found is not None
    assert found.left_out == ("m/top/top/kernel:0",)
    kernel = found.tensors["MobilenetV2/Logits/Conv2d_1c_1x1/weights"]
    assert kernel.shape == kernel.read().shape == (1, 1, 4, 3)
    assert kernel.read().reshape(-1).tolist() == list(range(12))
    assert "MobilenetV2/expanded_conv/depthwise/BatchNorm/moving_mean" in found.tensors
    assert renamed({"MobilenetV2/Conv/weights": _tensor("x", 1)}, "MobilenetV2") is None


@pytest.mark.skipif(not NSFW.is_file(), reason="the folder of real models is not beside the checkout")
def test_a_real_keras_model_has_all_our_variables() -> None:
    """Of nsfwjs's 266 arrays 260 are the network's, 6 the author's own dense layers."""
    found = renamed(open_model(NSFW).tensors, "MobilenetV2")
    assert found is not None
    assert (len(found.tensors), len(found.left_out)) == (260, 6)
    assert {name.split("/")[0] for name in found.left_out} == {"dense_1", "dense_2", "dense_3"}


def test_builders_are_found_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module beside the user is imported, a dotted attribute resolved, and `sys.path` is as before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_users_net.py").write_text(
        "class Net:\n    @staticmethod\n    def f(images, is_training): return images\n"
    )
    before = list(sys.path)
    builder = load_builder("a_users_net:Net.f")
    assert builder.function(3, is_training=False) == 3
    assert str(builder) == "a_users_net:Net.f"
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no_colon", "takes pkg.mod:function"),
        ("json:", "takes pkg.mod:function"),
        ("no_such_module_here:f", "no module 'no_such_module_here'"),
        ("json:nothing", "json has no 'nothing'"),
        ("json:__name__", "is not a function but a str"),
        ("json:dumps_", "has no"),
        ("os.path:basename", "must take (images, is_training)"),
        ("a_broken_net:f", "importing a_broken_net raised ZeroDivisionError"),
        ("a_needy_net:f", "needs no_such_package"),
    ],
)
def test_wrong_builders_end_in_one_sentence(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A builder that cannot be loaded or called is a usage error, whatever the user's module raises."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_broken_net.py").write_text("1 / 0\n")
    (tmp_path / "a_needy_net.py").write_text("import no_such_package\n")
    with pytest.raises(UsageError) as caught:
        load_builder(text)
    assert says in str(caught.value)
