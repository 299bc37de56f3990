"""Backbones and builders beside bare checkpoints: the graphs that compare and repair get to see."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.backbones.build import build
from bncheck.backbones.builders import load_builder
from bncheck.backbones.registry import BACKBONES, parse
from bncheck.facts.errors import BncheckError, UsageError
from bncheck.facts.layers import Mode
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.sources.raw import RawModel, RawTensor

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

REPOSITORY = Path(__file__).parents[2]
FIXTURES = REPOSITORY / "fixtures" / "mobilenet_v2"
NSFW = REPOSITORY.parent / "shared" / "real" / "nsfwjs_mobilenetv2.npz"


@pytest.fixture(scope="module", autouse=True)
def _needs_slim() -> None:
    pytest.importorskip("tf_slim")


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, RawTensor]:
    """Tensors that keep a network in range: variances and gammas around 1, kernels as He would draw them."""
    random = np.random.default_rng(0)

    def value(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        if name.endswith(("moving_variance", "gamma")):
            return random.uniform(0.5, 1.5, shape).astype(np.float32)
        fan_in = np.prod(shape[:2] if "depthwise" in name else shape[:-1])
        return (
            random.normal(0, np.sqrt(2 / max(fan_in, 1)), shape) if len(shape) > 1 else random.normal(0, 0.1, shape)
        ).astype(np.float32)

    return {name: tensor(name, value(name, shape)) for name, shape in shapes.items()}


def tensor(name: str, value: np.ndarray[Any, Any]) -> RawTensor:
    """One tensor as a reader gives it."""
    return RawTensor(name=name, dtype=value.dtype.name, shape=value.shape, read=lambda: value)


def slim_shapes(name: str, size: int, **arguments: Any) -> dict[str, tuple[int, ...]]:
    """Variables of one of TF-slim's networks, as its own training code would make them."""
    import tensorflow as tf

    from bncheck.backbones.slim_compat import load_net, load_slim

    v1, slim, net = tf.compat.v1, load_slim(), load_net(BACKBONES[name].module)
    scope = net.resnet_arg_scope if "resnet" in name else getattr(net, f"{name}_arg_scope")
    with tf.Graph().as_default():
        with slim.arg_scope(scope()):
            getattr(net, name)(v1.placeholder(tf.float32, [1, size, size, 3]), is_training=True, **arguments)
        return {v.op.name: tuple(v.shape.as_list()) for v in v1.global_variables()}


def outputs(model: RawModel, images: np.ndarray[Any, Any]) -> Mapping[str, np.ndarray[Any, Any]]:
    """Output name -> values in eval mode, through the engine that compares."""
    from bncheck.compare.prepared import prepare
    from bncheck.compare.twins.twins import open_twins

    prepared = prepare(model, Options())
    with open_twins(prepared.forward) as twins:
        run = twins.run(images)
    return dict(zip((name.split("/")[-1] for name in prepared.outputs), run.eval_outputs, strict=True))


def images(*shape: int) -> np.ndarray[Any, Any]:
    """Noise in [-1, 1]."""
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("variant", ["wired", pytest.param("forgotten", marks=pytest.mark.slow)])
def test_a_checkpoint_alone_gives_what_its_meta_gives(variant: str) -> None:
    """From the name of the backbone the same logits come as from the training graph, without a word on classes."""
    prefix = FIXTURES / variant / "model.ckpt-300"
    bare = build(
        parse("mobilenet_v2:depth_multiplier=0.35"),
        open_model(prefix, use_graph=False).tensors,
        path=prefix,
        input_shape=(64, 64, 3),
    )
    batch = images(4, 64, 64, 3)
    ours, theirs = outputs(bare, batch), outputs(open_model(prefix), batch)
    assert list(ours) == ["logits"]
    np.testing.assert_allclose(ours["logits"], next(iter(theirs.values())), rtol=1e-4, atol=1e-4)
    assert bare.format.label == "checkpoint + mobilenet_v2"
    assert bare.notes == (
        "derived from the checkpoint: mobilenet_v2:num_classes=10,finegrain_classification_mode=false",
    )


def test_the_facts_are_those_of_an_inference_graph() -> None:
    """52 layers in eval mode with their values, a float placeholder of the data's size, a signature, no updates."""
    from bncheck.recognise import recognise

    prefix = FIXTURES / "wired" / "model.ckpt-300"
    model = build(
        parse("mobilenet_v2"), open_model(prefix, use_graph=False).tensors, path=prefix, input_shape=(96, 64, 3)
    )
    facts = recognise(model, Options())
    assert len(facts.layers) == 52
    assert {site.mode for layer in facts.layers for site in layer.sites} == {Mode.EVAL}
    assert all(layer.mean.values is not None and layer.epsilon == pytest.approx(1e-3) for layer in facts.layers)
    assert not any(layer.updates for layer in facts.layers)
    (graph,) = model.graphs
    (placeholder,) = [node for node in graph.graph_def.node if node.op == "Placeholder"]
    assert placeholder.name == "input"
    assert [dim.size for dim in placeholder.attr["shape"].shape.dim] == [-1, 96, 64, 3]
    assert dict(graph.signatures[0].outputs) == {"logits": "logits:0"}
    assert len(graph.collections["trainable_variables"]) == 52 * 3 + 2


def test_image_size_goes_before_the_datas_and_both_before_the_default() -> None:
    """Option, then data, then what the backbone was made for."""
    tensors = open_model(FIXTURES / "wired" / "model.ckpt-300", use_graph=False).tensors

    def size(text: str, shape: tuple[int | None, ...] | None) -> int:
        node = build(parse(text), tensors, input_shape=shape).graphs[0].graph_def.node[0]
        return int(node.attr["shape"].shape.dim[1].size)

    short = "mobilenet_v2:final_endpoint=layer_2"
    assert size(f"{short},image_size=96", (64, 64, 3)) == 96
    assert size(short, (64, 64, 3)) == 64
    assert size(short, None) == size(short, (None, None, 3)) == 224


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mobilenet_v2:depth_multiplier=0.5", "its depths are those of depth_multiplier=0.35"),
        (
            "mobilenet_v2:num_classes=11",
            "Logits/Conv2d_1c_1x1/weights is 1x1x448x10 there and 1x1x448x11 in the network",
        ),
        ("resnet_v2_50", "this looks like mobilenet_v2"),
        ("mobilenet_v2:output_stride=3", "output_stride must be"),
        ("mobilenet_v2:final_endpoint=layer_30", "layer_30"),
    ],
)
def test_what_does_not_fit_ends_in_one_sentence(text: str, says: str) -> None:
    """Wrong options for this checkpoint are errors that name the variables or the right value."""
    with pytest.raises(BncheckError) as caught:
        build(parse(text), open_model(FIXTURES / "wired" / "model.ckpt-300", use_graph=False).tensors)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [
        ("resnet_v1_50", 224, {"num_classes": 7}),
        ("inception_v1", 224, {"num_classes": 7}),
        pytest.param("resnet_v2_50", 224, {"num_classes": 7}, marks=pytest.mark.slow),
        pytest.param("inception_v2", 224, {"num_classes": 7, "depth_multiplier": 0.5}, marks=pytest.mark.slow),
        pytest.param("inception_v3", 299, {"num_classes": 7, "depth_multiplier": 0.25}, marks=pytest.mark.slow),
    ],
)
def test_slims_networks_take_their_own_checkpoints(name: str, size: int, arguments: dict[str, Any]) -> None:
    """Each builds at its own size from what its training graph stores, with all batch norms before the logits."""
    from bncheck.compare.prepared import prepare

    options = "".join(f":{key}={value}" for key, value in arguments.items() if key != "num_classes")
    model = build(parse(name + options), drawn(slim_shapes(name, size, **arguments)))
    prepared = prepare(model, Options())
    assert prepared.outputs == ("logits",)
    assert len(prepared.forward.sites) == BACKBONES[name].batch_norms
    aux = 2 if name == "inception_v3" else 0
    assert len(prepared.facts.layers) == BACKBONES[name].batch_norms + aux


@pytest.mark.parametrize("depth", [101, 152, 200])
@pytest.mark.parametrize("version", [1, 2])
def test_deep_residual_networks_are_in_the_registry_as_slim_builds_them(version: int, depth: int) -> None:
    """The number of batch norms of each is what TF-slim's network of that name has."""
    name = f"resnet_v{version}_{depth}"
    module = importlib.import_module(f"tf_slim.nets.resnet_v{version}")
    assert callable(getattr(module, name))
    units = {101: 3 + 4 + 23 + 3, 152: 3 + 8 + 36 + 3, 200: 3 + 24 + 36 + 3}[depth]
    assert BACKBONES[name].batch_norms == (5 + 3 * units if version == 1 else 1 + 3 * units)


@pytest.mark.slow
def test_residual_network_runs_on_small_images_as_slim_runs_it() -> None:
    """The same weights give the same logits in a plain session of TF-slim's own network."""
    import tensorflow as tf

    from bncheck.backbones.slim_compat import load_net, load_slim

    tensors = drawn(slim_shapes("resnet_v1_50", 64, num_classes=5))
    batch = images(2, 64, 64, 3)
    ours = outputs(build(parse("resnet_v1_50"), tensors, input_shape=(64, 64, 3)), batch)["logits"]
    v1, slim, net = tf.compat.v1, load_slim(), load_net("resnet_v1")
    with tf.Graph().as_default(), v1.Session() as session:
        fed = v1.placeholder(tf.float32, [None, 64, 64, 3])
        with slim.arg_scope(net.resnet_arg_scope()):
            logits, _ = net.resnet_v1_50(fed, 5, is_training=False)
        for variable in v1.global_variables():
            variable.load(tensors[variable.op.name].read(), session)
        theirs = session.run(logits, {fed: batch}).reshape(2, 5)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


@pytest.fixture(scope="module")
def features() -> np.ndarray[Any, Any]:
    """Of the wired checkpoint's network without its classifier, for `images(2, 64, 64, 3)`."""
    tensors = open_model(FIXTURES / "wired" / "model.ckpt-300", use_graph=False).tensors
    asked = build(parse("mobilenet_v2:num_classes=0"), tensors, input_shape=(64, 64, 3))
    return outputs(asked, images(2, 64, 64, 3))["layer_19"]


def test_without_a_classifier_there_are_features(features: np.ndarray[Any, Any]) -> None:
    """A checkpoint of the base alone ends at layer_19, and so does `num_classes=0` where there is a classifier."""
    tensors = open_model(FIXTURES / "wired" / "model.ckpt-300", use_graph=False).tensors
    base = {name: value for name, value in tensors.items() if "/Logits/" not in name}
    alone = outputs(build(parse("mobilenet_v2"), base, input_shape=(64, 64, 3)), images(2, 64, 64, 3))
    assert alone["layer_19"].shape == (2, 2, 2, 448)
    np.testing.assert_array_equal(alone["layer_19"], features)
    named = build(parse("mobilenet_v2:final_endpoint=layer_20"), tensors)
    assert list(named.graphs[0].signatures[0].outputs) == ["layer_20"]


def test_a_detectors_backbone_is_found_in_its_scope(features: np.ndarray[Any, Any]) -> None:
    """`scope=` and `partial=true` take the backbone out of a checkpoint that has a head beside and within it."""
    tensors = open_model(FIXTURES / "wired" / "model.ckpt-300", use_graph=False).tensors
    moved = {f"FeatureExtractor/{name}": value for name, value in tensors.items() if "/Logits/" not in name}
    moved |= drawn({"FeatureExtractor/MobilenetV2/layer_19_1_Conv2d/weights": (1, 1, 8, 8), "BoxPredictor_0/w": (3, 3)})
    text = "mobilenet_v2:scope=FeatureExtractor/MobilenetV2"
    with pytest.raises(BncheckError, match=r"layer_19_1_Conv2d/weights.*add partial=true"):
        build(parse(text), moved)
    model = build(parse(f"{text},partial=true"), moved, input_shape=(64, 64, 3))
    assert any("BoxPredictor_0/w" in note for note in model.notes)
    np.testing.assert_allclose(outputs(model, images(2, 64, 64, 3))["layer_19"], features, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("alpha", "size"),
    [(0.35, 64), (1.4, 63), *(pytest.param(*other, marks=pytest.mark.slow) for other in ((0.35, 63), (1.4, 64)))],
)
def test_keras_weights_give_kerass_logits(alpha: float, size: int) -> None:
    """Keras's own MobileNetV2 and ours agree on even and odd sizes: its padding is TensorFlow's SAME."""
    keras = pytest.importorskip("tf_keras")
    net = keras.applications.MobileNetV2(
        input_shape=(size, size, 3), alpha=alpha, weights=None, classes=6, classifier_activation=None
    )
    names = {w.name.removesuffix(":0"): tuple(w.shape) for w in net.weights}
    tensors = drawn(names)
    net.set_weights([tensors[w.name.removesuffix(":0")].read() for w in net.weights])
    batch = images(2, size, size, 3)
    theirs = net(batch, training=False).numpy()  # before ours, for a graph of TF-slim's makes models of Keras stale
    model = build(parse("mobilenet_v2"), tensors, input_shape=(size, size, 3))
    assert model.notes[-1].startswith("derived from the checkpoint: mobilenet_v2:num_classes=6")
    np.testing.assert_allclose(outputs(model, batch)["logits"], theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.skipif(not NSFW.is_file(), reason="the folder of real models is not beside the checkout")
def test_a_real_keras_model_runs_in_our_network() -> None:
    """The weights of nsfwjs fill all variables up to layer_19, and what is not MobileNetV2's is told."""
    model = build(parse("mobilenet_v2"), open_model(NSFW).tensors, path=NSFW, input_shape=(96, 96, 3))
    assert (
        model.notes[0]
        == "MobileNetV2 weights from Keras; ignored, as they are not part of it: dense_1, dense_2, dense_3"
    )
    features = outputs(model, images(1, 96, 96, 3))["layer_19"]
    assert features.shape == (1, 3, 3, 1280)
    assert np.isfinite(features).all()
    assert 0 < features.max() <= 6


BUILDER = """
import tensorflow as tf
v1 = tf.compat.v1

def _norm(x, training):
    from bncheck.backbones.slim_compat import load_tf_layers
    return load_tf_layers().batch_normalization(x, training=training, name="bn")

def tensor(images, is_training):
    w = v1.get_variable("w", [3, 3, 1, 4])
    return tf.reduce_mean(tf.nn.relu(_norm(tf.nn.conv2d(images, w, 1, "SAME"), is_training)), [1, 2])

def pair(images, is_training):
    v1.train.get_or_create_global_step()
    return tensor(images, is_training), {"a": images}

def several(images, is_training):
    x = tensor(images, is_training)
    return {"scores": x, "box es": 2 * x}

def raises(images, is_training):
    raise KeyError("no such layer")

def nothing(images, is_training):
    return None
"""


@pytest.fixture
def users_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Name of a module of the user's in the current directory, another one for each test."""
    name = f"users_net_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(BUILDER)
    monkeypatch.chdir(tmp_path)
    return name


SMALL = {"w": (3, 3, 1, 4), **{f"bn/{part}": (4,) for part in ("gamma", "beta", "moving_mean", "moving_variance")}}


@pytest.mark.parametrize(
    ("function", "expected"), [("tensor", ["output"]), ("pair", ["output"]), ("several", ["box es", "scores"])]
)
def test_a_users_function_builds_the_graph(users_code: str, function: str, expected: list[str]) -> None:
    """A tensor, a pair, or named tensors; what the outputs do not need (a step counter) may be absent."""
    model = build(load_builder(f"{users_code}:{function}"), drawn({**SMALL, "more": (1,)}), input_shape=(8, 8, 1))
    found = outputs(model, images(3, 8, 8, 1))
    assert list(found) == expected
    assert {value.shape for value in found.values()} == {(3, 4)}
    assert any(note.endswith(": more") for note in model.notes)


@pytest.mark.parametrize(
    ("function", "kind", "says"),
    [
        ("raises", BncheckError, "raises raised KeyError"),
        ("nothing", UsageError, "gave NoneType for 'output'"),
    ],
)
def test_a_users_function_that_fails_is_told_as_theirs(
    users_code: str, function: str, kind: type[Exception], says: str
) -> None:
    """What the user's code raises or forgets to return ends in one sentence that names the function."""
    with pytest.raises(kind) as caught:
        build(load_builder(f"{users_code}:{function}"), drawn(SMALL), input_shape=(8, 8, 1))
    assert says in str(caught.value)


def test_a_users_function_that_does_not_fit_names_the_variable(users_code: str) -> None:
    """A checkpoint from under another scope: the variable lacking, and the nearest that is there."""
    tensors = drawn({f"model/{name}": shape for name, shape in SMALL.items()})
    with pytest.raises(BncheckError, match="nearest to w is model/w"):
        build(load_builder(f"{users_code}:tensor"), tensors, input_shape=(8, 8, 1))


def test_facts_name_the_backbone_that_was_trained() -> None:
    """The fixtures' own record of how to name them is understood."""
    facts = json.loads((FIXTURES / "wired" / "facts.json").read_text())
    spec = parse(facts["backbone"])
    assert spec.options == {"depth_multiplier": 0.35, "finegrain_classification_mode": False, "num_classes": 10}
